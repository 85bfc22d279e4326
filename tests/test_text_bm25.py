"""BM25: against the formula written out plainly, and on text as it comes."""

import doctest
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qualm.text import bm25
from qualm.text.bm25 import Bm25, terms

PASSAGES = [
    "The cat sat on the mat.",
    "A dog sat near the cat, and the cat left.",
    "Stocks fell sharply today.",
    "她住在北京。",
    "他住在上海。",
    "",
]


def plain_score(query: str, passages: list[str], at: int) -> float:
    """The textbook formula, one passage at a time."""
    documents = [terms(p) for p in passages]
    average = sum(max(len(d), 1) for d in documents) / len(documents)
    total = 0.0
    for term in set(terms(query)):
        df = sum(term in d for d in documents)
        idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
        tf = documents[at].count(term)
        total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * max(len(documents[at]), 1) / average))
    return total


def test_examples():
    assert doctest.testmod(bm25).failed == 0


@pytest.mark.parametrize("query", ["cat", "the cat sat", "fell today stocks", "谁住在北京", "dog near mat the"])
def test_scores_are_the_formula(query):
    found = dict(Bm25(PASSAGES).top(query, 10))
    for i in range(len(PASSAGES)):
        assert found.get(i, 0.0) == pytest.approx(plain_score(query, PASSAGES, i), rel=1e-5)


def test_best_first_and_only_those_that_share_a_word():
    index = Bm25(PASSAGES)
    assert [i for i, _ in index.top("cat on a mat", 3)] == [0, 1]
    assert [i for i, _ in index.top("北京", 3)] == [3]
    assert index.top("zebra", 3) == []
    assert Bm25([]).top("cat", 3) == []
    assert index.shared("the cat at dawn", 1) == {"the", "cat"}
    assert index.frequency("cat") == 2
    assert index.idf("zebra") > index.idf("stocks") > index.idf("cat")


def test_ties_go_by_index():
    assert [i for i, _ in Bm25(["same text"] * 5).top("text", 3)] == [0, 1, 2]


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8), st.text(max_size=40))
def test_any_text_can_be_indexed(passages, query):
    found = Bm25(passages).top(query, 3)
    assert len(found) <= 3
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)


def test_twenty_thousand_passages():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(5000)]
    passages = [" ".join(words[j] for j in rng.zipf(1.3, 60) % 5000) for _ in range(20_000)]
    passages[777] += " needle"
    index = Bm25(passages)
    start = time.process_time()
    for _ in range(20):
        assert index.top("where is the needle w1", 3)[0][0] == 777
    assert (time.process_time() - start) / 20 < 0.5
