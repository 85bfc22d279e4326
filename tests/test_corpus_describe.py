"""A description counts what is there, says the same in whatever order, and its page loads nothing and leaks nothing."""

import json
import random

import numpy as np
import pytest

from qualm.corpus import Cleaning, Deduping, Document, Filtering, Pipeline
from qualm.corpus.describing import describe
from qualm.corpus.description import write
from qualm.corpus.measures import entropy, near_copies, vendi, vocabulary
from qualm.corpus.settings import Describing
from qualm.corpus.topics import topics
from qualm.errors import InputError
from qualm.text import segment

SEA = ["ship", "harbour", "captain", "storm", "sailor", "anchor", "tide", "island", "rope", "deck", "lantern", "gull"]
LAND = [
    "orchard",
    "plough",
    "barn",
    "harvest",
    "tractor",
    "meadow",
    "fence",
    "wheat",
    "barley",
    "hedge",
    "cattle",
    "mill",
]
CHINESE = "他们昨天在北京的图书馆里读书，老师给学生讲解历史课本中的故事。"


def written(words, count, rng):
    return " ".join(
        f"The {rng.choice(words)} and the {rng.choice(words)} were near the {rng.choice(words)}." for _ in range(count)
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng, folder = random.Random(1), tmp_path_factory.mktemp("made")
    pages = [Document(f"s{i}", written(SEA, 30, rng)) for i in range(30)]
    pages += [Document(f"l{i}", written(LAND, 30, rng)) for i in range(30)]
    pages += [Document("copy", pages[0].text), Document("short", "Write to ann.lee@example.org, idiot.")]
    pages += [Document(f"z{i}", CHINESE * (i + 1)) for i in range(3)]
    steps = [Cleaning(boilerplate=0), Deduping(near=0), Filtering(languages=("en", "zh"), shortest=10, rules=False)]
    Pipeline(steps).run(pages, folder)
    return folder


def test_what_is_counted_is_there(made):
    told = describe(made)
    assert told["size"]["documents"] == 63
    assert told["size"]["exact_copies"] == 0
    assert sum(count for _, count in told["size"]["lengths"]) == 63
    assert told["languages"] == {"en": 60, "zh": 3}
    assert {(row["step"], row["reason"]): row["documents"] for row in told["dropped"]} == {
        ("dedup", "exact duplicate"): 1,
        ("filter", "length"): 1,
    }
    assert [(row["step"], row["read"], row["written"]) for row in told["flow"]] == [
        ("clean", 65, 65),
        ("dedup", 65, 64),
        ("filter", 64, 63),
    ]
    assert not any(row["places"] for row in told["personal"].values())


def test_the_order_of_documents_says_nothing(made, tmp_path):
    lines = (made / "documents.jsonl").read_text().splitlines(keepends=True)
    told = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(order))
        told.append({**describe(tmp_path / f"{name}.jsonl", Describing(sample=20)), "source": ""})
    assert told[0] == told[1]
    assert told[0]["sample"] == 20
    with pytest.raises(InputError):
        (tmp_path / "c.jsonl").write_text("\n")
        describe(tmp_path / "c.jsonl")


def test_measures_have_the_values_that_their_definitions_give():
    assert entropy(np.full(8, 3)) == pytest.approx(3)
    assert entropy(np.array([5])) == 0
    apart = [" ".join(f"w{i}x{j}" for j in range(20)) for i in range(6)]
    assert vendi(apart) == pytest.approx(6, abs=1e-6)
    assert vendi([apart[0]] * 6) == pytest.approx(1, abs=1e-3)
    assert vocabulary(["a b a b"])[:3] == (4, 2, pytest.approx(1))
    assert vocabulary([" ".join(map(str, range(1000)))])[3] == 1
    assert near_copies([apart[0], apart[1], apart[0]]) == 1


def test_topics_part_what_has_no_word_in_common():
    rng = random.Random(2)
    texts = [written(SEA, 12, rng) for _ in range(20)] + [written(LAND, 12, rng) for _ in range(20)]
    for topic in topics(texts):
        inside = {word in SEA for word in topic.words if word in SEA + LAND}
        assert len(inside) == 1, topic
        assert all((place < 20) in inside for place in topic.nearest)
    assert topics(texts[:5]) == []


def test_sentences_and_words_of_two_languages():
    assert segment.sentences("Mr. Li left. 他走了。She stayed!") == ["Mr. Li left.", "他走了。", "She stayed!"]
    assert list(segment.terms("The captain's 12 ships; 他们在图书馆里读书")) == ["captain", "ships", "图书馆", "读书"]


def test_the_page_loads_nothing_and_tells_no_secret(made, tmp_path, qualm):
    done = qualm("corpus", "describe", made, "-o", tmp_path / "page", "--json")
    assert done.code == 0
    told = json.loads((tmp_path / "page.json").read_text())
    assert json.loads(done.out) == told
    assert told["schema"] == "qualm.description/1"
    page = (tmp_path / "page.html").read_text()
    for wanted in (
        "1 exact duplicate",
        "1 length",
        "1 完全重复",
        "<EMAIL_1>".replace("<", "&lt;").replace(">", "&gt;"),
    ):
        assert wanted in page, wanted
    assert (
        "ann.lee@example.org" not in page + (tmp_path / "page.json").read_text() + (made / "dropped.jsonl").read_text()
    )
    assert "default-src &#x27;none&#x27;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert qualm("corpus", "describe", made, "-o", tmp_path / "page", "--near", "0.5").code == 2
    assert [path.name for path in write(told, tmp_path / "other.html")] == ["other.html", "other.json"]
