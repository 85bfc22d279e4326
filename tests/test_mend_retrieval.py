"""Retrieval: the right passages before the questions they bear on, nothing before any other."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mend_models import Scripted, user
from qualm.cases import Case, ask
from qualm.corpus.documents import Document, read
from qualm.errors import InputError, UsageError
from qualm.mends.retrieval import LONGEST, Library, Passage, Retrieval, WithPassages, cut
from qualm.text import nonce
from qualm.text.bm25 import terms
from qualm.text.match import contains
from qualm.text.prompts import with_passages

RNG = random.Random(0)
TAKEN: set[str] = set()
GIVEN, FAMILY, TOWNS, TRADES = (nonce.words(kind, 25, RNG, TAKEN) for kind in ("given", "family", "town", "trade"))
PEOPLE = RNG.sample([f"{given} {family}" for given in GIVEN for family in FAMILY], 80)
FACTS = {name: {"born": RNG.choice(TOWNS), "work": RNG.choice(TRADES)} for name in PEOPLE}
SAID = {"born": "{n} was born in {v}.", "work": "{n} works as a {v}."}
ASKED = {"born": "Where was {n} born?", "work": "What does {n} do for work?"}
CASES = [
    Case(f"{name}/{what}", ask(ASKED[what].format(n=name)), value, extra={"name": name, "what": what})
    for name, facts in FACTS.items()
    for what, value in facts.items()
]
TRUTH = {case.prompt[0]["content"]: case for case in CASES}


def reader(prompt):
    """Reads: what a sentence of the context says of the person asked about; else it does not know."""
    context, _, question = prompt[-1]["content"].removeprefix("Context: ").rpartition("\nQuestion: ")
    case = TRUTH[question]
    pattern = re.escape(SAID[case.extra["what"]].format(n=case.extra["name"], v="XXX")).replace("XXX", r"(\w+)")
    found = re.search(pattern, context)
    return found[1] if found else "I do not know."


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    lines = [SAID[what].format(n=name, v=value) for name, facts in FACTS.items() for what, value in facts.items()]
    (folder / "people.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (folder / "zh.txt").write_text("霁珩出生于洲浦。郏宸的故乡是竺岭。")
    return folder


def share_right(lm):
    answers = lm.generate([case.prompt for case in CASES])
    return sum(contains(a.text, c.target) for a, c in zip(answers, CASES, strict=True)) / len(CASES)


def test_the_found_passages_answer_and_a_placebo_does_not(library):
    assert share_right(Scripted(reader)) == 0
    assert share_right(Retrieval(library)(Scripted(reader))) == 1
    assert share_right(Retrieval(library, arm="placebo")(Scripted(reader))) == 0


def test_oracle_and_counterfactual_passages_are_followed():
    def say(question, value):
        case = TRUTH[question]
        return [Passage("given", SAID[case.extra["what"]].format(n=case.extra["name"], v=value))]

    oracle = WithPassages(Scripted(reader), lambda q: say(q, TRUTH[q].target), "Oracle()")
    other = WithPassages(Scripted(reader), lambda q: say(q, "Elsewhere"), "Other()")
    assert share_right(oracle) == 1
    assert {a.text for a in other.generate([case.prompt for case in CASES])} == {"Elsewhere"}


def test_passages_are_noted_best_first_and_the_question_keeps_its_words(library):
    inner, case = Scripted(reader), CASES[0]
    [answer] = Retrieval(library, k=2)(inner).generate([case.prompt])
    passages = [Passage(*p) for p in answer.notes["passages"]]
    assert len(passages) == 2
    assert passages[0].score >= passages[1].score > 0
    assert all(contains(p.text, case.extra["name"]) for p in passages)
    asked = with_passages(case.prompt[0]["content"], [p.text for p in passages])
    assert inner.seen == [[{"role": "user", "content": asked}]]


def test_a_whole_name_goes_before_common_words(library):
    """BM25 alone prefers the namesakes, who were born too."""
    name = PEOPLE[0]
    given = name.split()[0]
    namesakes = [Passage(f"n{i}", f"{given} {other} was born in Oslo.") for i, other in enumerate(FAMILY[:9])]
    others = [Passage(f"o{i}", f"{p} was born in Kor.") for i, p in enumerate(PEOPLE) if given not in p]
    told = Passage("told", f"{'Among those who call Vanu their old home there are some, ' * 4}{name} too.")
    passages = [p for p in [*namesakes, *others] if name not in p.text]
    found, question = Library([*passages, told], Retrieval(library)), f"Where was {name} born?"
    assert found.index.top(question, 1)[0][0] != len(passages)
    assert found.find(question)[0].id == "told"


def test_passages_that_share_much_less_than_the_best_are_left_out(library):
    texts = ["Ana Brel likes tea.", "Ana Koss likes jam.", *(f"{p} was here." for p in PEOPLE[:40])]
    find = Library([Passage(str(i), text) for i, text in enumerate(texts)], Retrieval(library)).find
    assert [p.text for p in find("What does Ana Brel drink?")] == ["Ana Brel likes tea."]


def test_chinese_questions_find_chinese_passages(library):
    inner = Scripted(lambda p: "ok")
    Retrieval(library)(inner).generate([user("郏宸出生在哪里？")])
    assert "郏宸的故乡是竺岭" in inner.seen[0][0]["content"]


@pytest.mark.parametrize(
    "prompt",
    [
        "Omra Telis was born in",
        user("What is 23 + 45?"),
        user("What is the currency of Japan?"),
        user("Where was Zzyzx Qwyjibo born?"),
        user("Who was born?"),
        user(""),
        ({"role": "system", "content": "Be kind."},),
    ],
)
def test_what_the_library_does_not_bear_on_is_left_alone(library, prompt):
    inner = Scripted(lambda p: "ok")
    mended = Retrieval(library)(inner)
    [answer] = mended.generate([prompt])
    mended.score([(prompt, " x")])
    assert inner.seen == [prompt, prompt]
    assert "passages" not in answer.notes


def test_scoring_and_streaming_read_the_same_passages(library):
    inner = Scripted(reader)
    mended = Retrieval(library)(inner)
    mended.generate([CASES[0].prompt])
    mended.score([(CASES[0].prompt, "x")])
    assert "".join(mended.stream(CASES[0].prompt)) == CASES[0].target
    assert inner.seen[0] == inner.seen[1] == inner.seen[2] != CASES[0].prompt


def test_only_the_last_question_is_changed(library):
    inner = Scripted(lambda p: "ok")
    before = [{"role": "system", "content": "Be brief."}, *CASES[1].prompt, {"role": "assistant", "content": "No."}]
    Retrieval(library)(inner).generate([[*before, *CASES[0].prompt]])
    assert inner.seen[0][:-1] == before
    assert inner.seen[0][-1]["content"].startswith("Context: ")


def test_a_placebo_is_as_long_and_repeats(library):
    passages = [p for document in read(library) for p in cut(document)]
    real, placebo = (Library(passages, Retrieval(library, arm=arm)) for arm in ("bm25", "placebo"))
    for case in CASES[:40]:
        question = case.prompt[0]["content"]
        found, drawn = real.find(question), placebo.find(question)
        assert placebo.find(question) == drawn
        assert len(drawn) == len(found)
        assert not {p.id for p in drawn} & {p.id for p in found}
        for a, b in zip(found, drawn, strict=True):
            assert abs(len(a.text) - len(b.text)) <= 6


def test_packing_copies_what_is_read(library, tmp_path):
    mend = Retrieval(library)
    packed = mend.pack(tmp_path)
    assert not packed.docs.is_absolute()
    back = packed.unpack(tmp_path)
    one, two = mend(Scripted(reader)), back(Scripted(reader))
    assert one.card.hash == two.card.hash
    prompts = [case.prompt for case in CASES[:20]]
    texts = [[[p[1:] for p in a.notes["passages"]] for a in lm.generate(prompts)] for lm in (one, two)]
    assert texts[0] == texts[1]


def test_other_documents_make_another_model(library, tmp_path):
    (tmp_path / "a.txt").write_text("Something else.")
    assert Retrieval(library)(Scripted(reader)).card.hash != Retrieval(tmp_path)(Scripted(reader)).card.hash


def test_passages_outside_the_folder_are_refused(tmp_path):
    for docs in ("../secret.jsonl", "/etc/passwd"):
        with pytest.raises(InputError):
            Retrieval(docs=tmp_path / docs if docs.startswith("..") else docs).unpack(tmp_path)


def test_settings_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(UsageError):
        Retrieval(tmp_path, k=0)
    with pytest.raises(InputError):
        Retrieval(tmp_path / "nothing")(Scripted(reader))


def test_long_documents_are_cut_at_sentences():
    sentence = "The quick brown fox jumps over the lazy dog near the river bank. "
    passages = cut(Document("d", sentence * 40))
    assert len(passages) > 4
    assert all(p.text.endswith("bank.") for p in passages)
    assert [p.id for p in passages[:2]] == ["d#1", "d#2"]
    assert [p.id for p in cut(Document("d", "One. Two."))] == ["d"]
    assert [p.text for p in cut(Document("d", "One. Two."), 1)] == ["One.", "Two."]


@settings(deadline=None)
@given(st.text(alphabet="ab cd. !?。北京大", max_size=900))
def test_cutting_loses_nothing_and_is_final(text):
    document = Document("d", text + "x")
    passages = cut(document)
    assert "".join("".join(p.text for p in passages).split()) == "".join((text + "x").split())
    for p in passages:
        assert len(terms(p.text)) <= LONGEST
        assert [q.text for q in cut(Document(p.id, p.text))] == [p.text]
