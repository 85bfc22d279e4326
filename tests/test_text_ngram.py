"""The n-gram model: against the definition written out plainly, a case worked by hand, and as a distribution."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qualm.text.ngram import FALLBACK, NGram, discounts_of

START = 0


def plain(documents: list[list[int]], vocab: int, order: int, context: list[int], token: int) -> float:
    """Chen and Goodman's equations 19 and 26, with dictionaries, one n-gram at a time."""

    def counted(n: int) -> Counter:
        seen = [tuple(d[i - n + 1 : i + 1]) for d in documents for i in range(1, len(d)) if i - n + 1 >= 0]
        if n == order:
            return Counter(seen)
        longer = {tuple(d[i - n : i + 1]) for d in documents for i in range(1, len(d)) if i - n >= 0}
        opening = [tuple(d[:n]) for d in documents if 1 < n <= len(d)]
        return Counter([gram[1:] for gram in longer] + opening)

    def probability(n: int, before: tuple[int, ...]) -> float:
        if n == 0:
            return 1 / vocab
        below = probability(n - 1, before[1:] if n > 1 else ())
        counts = counted(n)
        off = discounts_of(np.array(list(counts.values())))
        after = {gram: c for gram, c in counts.items() if gram[:-1] == before}
        if len(before) != n - 1 or not after:
            return below
        total = sum(after.values())
        own = after.get((*before, token), 0)
        left = sum(off[min(c, 3)] for c in after.values()) / total
        return (own - off[min(own, 3)]) / total + left * below

    short = tuple(context[-(order - 1) :]) if order > 1 else ()
    return probability(len(short) + 1, short)


def test_a_case_worked_by_hand():
    """Text "0 1 2 1 2 1", bigrams. Discounts are FALLBACK's: .5, 1, 1.5."""
    model = NGram([[0, 1, 2, 1, 2, 1]], 4, 2)
    # 01 once, 12 twice, 21 twice. 1 stands after 2 different tokens (0, 2), 2 after one: 3 in all
    left = (FALLBACK[1] + FALLBACK[0]) / 3
    one, two, none = (2 - 1) / 3 + left / 4, (1 - 0.5) / 3 + left / 4, left / 4
    assert math.isclose(one + two + 2 * none, 1)
    after_one = [1 / 2 * none, 1 / 2 * one, (2 - 1) / 2 + 1 / 2 * two, 1 / 2 * none]
    assert np.allclose(model.next([0, 1]), after_one)
    assert np.allclose(model.next([3]), [none, one, two, none])  # an unseen context


def test_discounts_by_hand():
    """Four 1s, two 2s, one 3, one 4: Y = 4/8; D = 1 - 2Y/2, 2 - 3Y/2, 3 - 4Y."""
    assert np.allclose(discounts_of(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])), [0, 0.5, 1.25, 1])
    assert tuple(discounts_of(np.array([1, 1, 2]))[1:]) == FALLBACK


DOCUMENTS = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=30).map(lambda ids: [START, *ids]), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_equals_the_definition_and_sums_to_one(documents, order, context):
    model = NGram(documents, 6, order)
    found = model.next(context)
    assert math.isclose(found.sum(), 1, rel_tol=1e-12)
    assert (found > 0).all()
    assert np.allclose(found, [plain(documents, 6, order, context, token) for token in range(6)])


@settings(max_examples=30, deadline=None)
@given(DOCUMENTS, st.integers(1, 4), st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_a_text_is_scored_token_by_token(documents, order, text):
    model = NGram(documents, 6, order)
    one_by_one = [math.log(model.next(text[:i])[text[i]]) for i in range(1, len(text))]
    assert np.allclose(model.logprobs(text), one_by_one)


def test_a_known_source_is_learnt():
    """Of a Markov chain of order 2, the trigram model reads nearly the entropy; a bigram model cannot."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(8, 0.2), size=(8, 8))
    text = [0, 0]
    for _ in range(40_000):
        text.append(int(rng.choice(8, p=table[text[-2], text[-1]])))
    train, test = text[:30_000], text[30_000:]
    truth = -np.mean([math.log(table[test[i - 2], test[i - 1], test[i]]) for i in range(2, len(test))])
    read = {order: -NGram([train], 8, order).logprobs(test).mean() for order in (1, 2, 3)}
    assert read[3] < truth + 0.02
    assert read[3] < read[2] - 0.1 < read[1]


@pytest.mark.parametrize(
    ("documents", "order", "why"),
    [
        ([], 3, "no token"),
        ([[1]], 3, "no token"),
        ([[0, 7]], 3, "from 0 to 3"),
        ([[0, -1]], 3, "from 0 to 3"),
        ([[0, 1]], 0, "order 0"),
    ],
)
def test_refuses(documents, order, why):
    with pytest.raises(ValueError, match=why):
        NGram(documents, 4, order)
