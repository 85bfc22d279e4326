"""From documents to a corpus: each step alone, the chain and its manifest, and planted faults."""

import json
import random
import time
from collections.abc import Callable

import pytest

from qualm.corpus import (
    Cleaning,
    Deduping,
    Document,
    Filtering,
    Keeping,
    Pipeline,
    Scrubbing,
    clean,
    dedup,
    filter_,
    keep,
    read,
    scrub,
)  # fmt: skip
from qualm.errors import InputError, UsageError
from qualm.text import grams, minhash, normalise, personal, toxic
from qualm.text.classifier import train
from qualm.text.language import identify
from qualm.text.quality import faults
from simulated import load as simulation

PROSE = "The old bridge was closed because the river had risen, and nobody knew when it would be opened to them again. "


def texts(step, *given, settings=None):
    notes = []
    documents = [Document(str(i), text) for i, text in enumerate(given)]
    arguments = (settings, notes.append) if settings else ()
    return [d.text for d in step(documents, *arguments)], [(n.id, n.reason) for n in notes if n.dropped]


def varied(count, seed, word="word"):
    rng = random.Random(seed)
    return " ".join(f"{word}{rng.randrange(5000)}" for _ in range(count))


# --- clean


def test_joiners_stay_where_a_script_or_an_emoji_needs_them():
    kept = ["👨\u200d👩\u200d👧", "❤️\u200d🔥", "می\u200cخواهم", "क्\u200dष", "🏴\U000e0067\U000e0062\U000e007f"]
    assert texts(clean, *kept, settings=Cleaning(boilerplate=0))[0] == kept
    assert normalise.without_invisible("a\u200bb\u200dc\ufeff\u202ed\x00\r\ne") == ("abcd\ne", 6)


def test_only_html_is_taken_for_html():
    kept = [
        "if a < b and c > d",
        "Tab<unk> and <EMAIL_1>",
        "R&D &unknown; &copy=2",
        "List<String> x",
        "<!-- never closed",
    ]
    assert texts(clean, *kept, settings=Cleaning(boilerplate=0))[0] == kept
    page = "<p>One &amp; two &lt;b&gt;</p><script>if (a<b) {}</script><STYLE>p{}</STYLE><br/>three"
    assert texts(clean, page)[0] == ["One & two <b>\n\nthree"]


def test_lines_that_many_documents_share_go_and_code_stays():
    pages = [f"Page {i} of 30\n{varied(20, i)}\n}}\nAccept all cookies" for i in range(30)]
    made, _ = texts(clean, *pages, settings=Cleaning())
    assert made == [f"{varied(20, i)}\n}}" for i in range(30)]
    assert texts(clean, *pages[:9])[0] == pages[:9]  # fewer than ten


def test_conversations_are_cleaned_message_by_message():
    talk = Document("1", messages=({"role": "user", "content": "a\u200bb"}, {"role": "assistant", "content": "ok"}))
    assert [m["content"] for m in next(iter(clean([talk]))).messages] == ["ab", "ok"]


# --- dedup


def test_the_estimate_of_similarity_is_unbiased():
    rng, errors = random.Random(1), []
    for i in range(60):
        left = varied(200, i).split()
        right = [word if rng.random() > 0.04 else "other" for word in left]
        a, b = ({tuple(w[k : k + 5]) for k in range(196)} for w in (left, right))
        guess = minhash.similarity(minhash.signature(" ".join(left)), minhash.signature(" ".join(right)))
        errors.append(guess - len(a & b) / len(a | b))
    assert abs(sum(errors) / 60) < 0.02  # standard error 0.006
    assert (sum(e * e for e in errors) / 60) ** 0.5 < 0.07  # theory: 0.045


def test_words_are_the_same_wherever_they_stand():
    one, two = grams.words("xyz 北京 hello"), grams.words("A longer beginning: HELLO 北京")
    assert one.hashes[1:3].tolist() == two.hashes[4:6].tolist()
    assert one.hashes[3] == two.hashes[3]
    assert len(set(grams.words("ab ba a b aab aba").hashes.tolist())) == 6


def test_the_first_of_several_stays():
    one = varied(100, 1)
    near = one.replace(one.split()[50], "changed")
    made, gone = texts(dedup, one, varied(100, 2), one, near, settings=Deduping())
    assert made == [one, varied(100, 2)]
    assert gone == [("2", "exact duplicate"), ("3", "near duplicate")]
    assert len(texts(dedup, one, near, settings=Deduping(near=0))[0]) == 2


def test_paragraphs_and_lines_that_stood_before_are_cut():
    a, b, c = (varied(20, i) for i in range(3))
    made, gone = texts(dedup, f"{a}\n\n{b}", f"{b}\n\n{c}", a, settings=Deduping(near=0, paragraphs=50))
    assert made == [f"{a}\n\n{b}", c]
    assert gone == [("2", "every part stood before")]


def test_documents_of_a_test_set_and_of_another_split_are_dropped(tmp_path):
    (tmp_path / "test.csv").write_text('question,answer\n"Which of the nine grey rivers runs north past Oldham?",two\n')
    (tmp_path / "held.txt").write_text(varied(100, 3))
    settings = Deduping(evaluation=(tmp_path / "test.csv",), held_out=(tmp_path / "held.txt",))
    leak = varied(30, 1) + " which of the NINE grey rivers runs  north past Oldham " + varied(30, 2)
    made, gone = texts(dedup, leak, varied(100, 3), varied(100, 4), "two", settings=settings)
    assert gone == [("0", "in a test set"), ("1", "near duplicate")] or gone[1][1] == "exact duplicate"
    assert made == [varied(100, 4), "two"]


# --- filter


def test_reasons_of_the_filter():
    good = PROSE + "My uncle, with his usual calm, began to look for a boat in the village below the mill."
    bad = {"length": "Too short.", "language": "Die alte Brücke war geschlossen, und niemand wusste, wann sie wieder "
           "geöffnet wird. " * 3, "rules": "Buy it now, have it and be happy. " * 20}  # fmt: skip
    made, gone = texts(filter_, good, *bad.values(), settings=Filtering(languages=("en",), shortest=20))
    assert made == [good]
    assert [reason for _, reason in gone] == list(bad)


def test_licences_and_predicates():
    documents = [Document(str(i), "x", meta={"license": name}) for i, name in enumerate(["MIT", "secret"])]
    documents.append(Document("2", "x"))
    settings = Filtering(shortest=1, rules=False, licences=("mit",))
    assert [d.id for d in filter_(documents, settings)] == ["0"]
    notes = []
    assert [d.id for d in keep(documents, Keeping(lambda d: d.id != "1" or "not this one"), notes.append)] == ["0", "2"]
    assert notes[0].detail == "not this one"


def test_rules_have_names():
    assert faults(PROSE + "It is long gone.", "en") == []
    assert faults("12 34 56 78\n" * 9)[0].startswith("digits")
    assert faults("xkq zvbw plmt rrtd qwpt zxcv mnbq wrt " * 1 + "trt plk ghh jkl " * 8)[0].startswith("vowels")
    assert faults("...", "en") == ["no words"]


def test_languages():
    assert [identify(t)[0] for t in (PROSE, "今天天气很好，我们去公园散步。", "12 34")] == ["en", "zh", "und"]


def test_the_classifier_tells_what_it_was_taught():
    model = train([varied(40, i, "tea") for i in range(20)], [varied(40, i, "war") for i in range(20)])
    assert model.probability(varied(200, 99, "tea")) > 0.6 > 0.4 > model.probability(varied(200, 98, "war"))
    assert model.probability("...") == 0.5
    with pytest.raises(UsageError):
        Filtering(good="x")


# --- scrub


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Ann (ann.lee@x.org) or ANN.LEE@x.org", "Ann (<EMAIL_1>) or <EMAIL_1>"),
        ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", "card <CARD_1>, not 4111 1111 1111 1112"),
        ("DE89 3704 0044 0532 0130 00 not DE88 3704 0044 0532 0130 00", "<IBAN_1> not DE88 3704 0044 0532 0130 00"),
        ("身份证11010519491231002X，不是110105194912310021", "身份证<ID_1>，不是110105194912310021"),
        ("电话：１３８ 0013\u200b8000。2021-03-04", "电话：<PHONE_1>。2021-03-04"),
        ("v1.2.3.4, 10.0.0.7, 127.0.0.1, 2001:db8::8a2e:370:7334", "v1.2.3.4, <IP_1>, 127.0.0.1, <IP_2>"),
        ("passport C01X00T47 and 护照号：E12345678", "passport <PASSPORT_1> and 护照号：<PASSPORT_2>"),
        ("git clone https://bob:pw@host.com/x.git.", "git clone <URL_1>."),
        ("ann [at] x [dot] com", "<EMAIL_1>"),
    ],
)  # fmt: skip
def test_personal_data_is_told_from_its_likes(text, scrubbed):
    assert personal.scrub(text, {})[0] == scrubbed


def test_placeholders_are_the_same_throughout_a_document():
    talk = Document(
        "1", messages=({"role": "user", "content": "I am a@b.co"}, {"role": "assistant", "content": "Hi a@b.co c@d.co"})
    )
    made = next(iter(scrub([talk])))
    assert [m["content"] for m in made.messages] == ["I am <EMAIL_1>", "Hi <EMAIL_1> <EMAIL_2>"]
    assert next(iter(scrub([talk], Scrubbing(kinds=("PHONE",))))) == talk


HOSTILE = [
    *(
        "a",
        "a@",
        "1 ",
        "1",
        "12-",
        "DE89 ",
        "1.",
        ":",
        "f:",
        "passport ",
        "http://a:",
        "a://b:c",
        "one ",
        "一三",
        "tel 1234567 ",
    ),
    *(
        "+",
        "(",
        "1(",
        "a at ",
        "a[at]",
        "a at b dot ",
        " ",
        "\u200b1",
        "1111 ",
        "a@b.co ",
        "1234 123456 ",
        "<p ",
        "<script>",
    ),
    *("<!--", "\u200d", "&a", " \t", "a\u0301", "\n"),
]


def assert_linear(function: Callable[[str], object], unit: str, most: float) -> None:
    """100 kB of `unit` take at most `most` seconds, a multiple of what they need; where a machine is too busy for that,
    less than 8 times what a quarter of them takes. A square would take 16 times that.
    """

    def seconds(size: int) -> float:
        text, found = (unit * size)[:size], []
        for _ in range(3):
            start = time.process_time()
            function(text)
            found.append(time.process_time() - start)
            if found[-1] < most / 2:
                break
        return min(found)

    whole = seconds(100_000)
    assert whole < most or whole < 8 * seconds(25_000), (function, whole)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit):
    for function in (personal.find, normalise.without_html, normalise.without_invisible, normalise.with_plain_space):
        assert_linear(function, unit, 0.4)


# --- the chain


@pytest.fixture
def raw(tmp_path):
    lines = [{"id": str(i), "text": f"<p>{PROSE.replace('bridge', w)}</p> Write to {w}@x.org.", "license": "mit"}
             for i, w in enumerate(["bridge", "gate", "bridge"])]  # fmt: skip
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


STEPS = [Cleaning(), Deduping(), Filtering(shortest=5), Scrubbing()]


def test_the_manifest_reproduces_the_output(raw, tmp_path):
    manifest = Pipeline(STEPS).run(read(raw), tmp_path / "one")
    again = Pipeline.of(tmp_path / "one").run(read(raw), tmp_path / "two")
    assert manifest == again == json.loads((tmp_path / "two/manifest.json").read_text())
    assert [step["step"] for step in manifest["steps"]] == ["clean", "dedup", "filter", "scrub"]
    assert manifest["steps"][1]["dropped"] == {"exact duplicate": 1}
    assert manifest["steps"][3]["changed"] == {"EMAIL": 2}
    kept = list(read(tmp_path / "one/documents.jsonl"))
    assert [(d.id, d.meta["license"], d.meta["provenance"]["source"]) for d in kept] == [
        ("0", "mit", "raw.jsonl:1"),
        ("1", "mit", "raw.jsonl:2"),
    ]
    dropped = [json.loads(line) for line in (tmp_path / "one/dropped.jsonl").read_text().splitlines()]
    assert [(note["id"], note["reason"], note["detail"]) for note in dropped] == [("2", "exact duplicate", "0")]


def test_a_manifest_whose_files_changed_is_refused(raw, tmp_path):
    held = tmp_path / "held.txt"
    held.write_text(varied(50, 1))
    Pipeline([Deduping(held_out=(held,))]).run(read(raw), tmp_path / "one")
    held.write_text(varied(50, 2))
    with pytest.raises(InputError, match="changed"):
        Pipeline.of(tmp_path / "one")
    Pipeline([Keeping(lambda d: True)]).run(read(raw), tmp_path / "two")
    with pytest.raises(InputError, match="function"):
        Pipeline.of(tmp_path / "two")


def test_the_verb(qualm, raw):
    done = qualm("corpus", "clean,dedup,scrub", raw, "-o", "out", "--json")
    told = json.loads(done.out)
    assert (done.code, told["schema"], told["steps"][2]["written"]) == (0, "qualm.corpus/1", 2)
    assert qualm("corpus", "clean", raw, "-o", "out", "--near", "0.5").code == 2
    assert qualm("corpus", "wash", raw, "-o", "out").code == 2
    assert qualm("corpus", "filter", raw, "-o", "out", "--languages", "en,zh", "--shortest", "5").code == 0


def test_planted_faults_are_found():
    """A small run of benchmarks/corpus_faults.py; the large one is on the page."""
    scores, _ = simulation("corpus_faults").measured(60, 1)
    for score in scores:
        assert score.recall >= 0.85, str(score)
        assert score.precision >= 0.85, str(score)


# --- places, persons, rudeness


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He lives at 12 Baker Street, London NW1 6XE now.", ["12 Baker Street, London NW1 6XE"]),
        ("wohnt in der Hauptstraße 12a, 10115 Berlin", ["Hauptstraße 12a, 10115 Berlin"]),
        ("12 bis, rue de la Paix, 75002 Paris", ["12 bis, rue de la Paix, 75002 Paris"]),
        ("他住在北京市海淀区中关村大街27号院3号楼2单元501室，电话", ["北京市海淀区中关村大街27号院3号楼2单元501室"]),
        ("г. Москва, ул. Ленина, д. 5, кв. 12", ["г. Москва, ул. Ленина, д. 5, кв. 12"]),
        ("In 1999 Main Street was closed; they walked down the street. During 1980, the rue was long.", []),
        ("王府井大街很热闹，有3路公交车。", []),
    ],
)
def test_addresses_are_told_from_streets(text, found):
    assert [text[f.start : f.end] for f in personal.find(text, ("ADDRESS",))] == found


def test_names_are_replaced_only_where_they_are_asked_for():
    text = "Mary-Ann O'Neill met Dr. Karl von Braun at Virginia Beach. 联系人：李晓明，我们的历史老师。"
    page = [Document("1", text)]
    assert next(iter(scrub(page))).text == text
    made = next(iter(scrub(page, Scrubbing(names=True)))).text
    assert made == "<NAME_1> met Dr. <NAME_2> at Virginia Beach. 联系人：<NAME_3>，我们的历史老师。"


def test_toxic_lines_are_told_from_their_likes():
    pages = [
        "All is well.\nYou stupid m0ron!",
        "A fool's tale.\nThe Scunthorpe news: pigs on the trash heap.",
        "你 真是个 笨 蛋",
    ]
    settings = Filtering(shortest=1, rules=False, toxic=1)
    assert texts(filter_, *pages, settings=settings) == ([pages[1]], [("0", "toxic"), ("2", "toxic")])
    assert len(texts(filter_, *pages, settings=Filtering(shortest=1, rules=False))[0]) == 3


@pytest.mark.parametrize(
    "unit", ["A", "Aa ", "1 Aa ", "中市", "路1号", "Mr. Aa ", "张伟", "東京都", "Via A ", "f*", "傻", "you fool "]
)
def test_hostile_text_takes_linear_time_in_places_and_words(unit):
    assert_linear(lambda text: personal.find(text, ("ADDRESS", "NAME")), unit, 0.8)
    assert_linear(toxic.find, unit, 0.8)
