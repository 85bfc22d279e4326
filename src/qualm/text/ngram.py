"""An n-gram model of token ids: interpolated, with modified Kneser-Ney smoothing (Chen and Goodman 1998, TR-10-98).

What a neural model of the same tokens has to beat. The highest order counts n-grams; each lower one counts how many
different tokens an n-gram stands after. One that opens a document stands after none, and keeps its plain count (as in
Heafield et al. 2013). Nothing is left out for being rare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FALLBACK = (0.5, 1.0, 1.5)  # discounts of counts of 1, 2, 3 and more, where a text is too small to tell


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order, an index each.

    `keys` (N,) sorted: the index of an n-gram's first n - 1 tokens, times the vocabulary, plus its last token. `counts`
    (N,) as the order counts them, and what is taken off counts of 0, 1, 2, 3 and more. For each context, an n-gram of
    the order below: `totals` (M,) of the counts after it, and the share `left` (M,) that the order below is given.
    """

    keys: np.ndarray
    counts: np.ndarray
    discounts: np.ndarray
    totals: np.ndarray
    left: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, vocab: int, contexts: int) -> "_Order":
        after = keys // vocab
        totals = np.bincount(after, counts, contexts)
        discounts = discounts_of(counts)
        taken = np.bincount(after, discounts[np.minimum(counts, 3)], contexts)
        return cls(keys, counts, discounts, totals, taken / np.maximum(totals, 1))

    def find(self, contexts: np.ndarray, tokens: np.ndarray, vocab: int) -> np.ndarray:
        """The index (T,) of each n-gram; -1 for one that was not seen, or whose context (-1) was not."""
        wanted = contexts * vocab + tokens
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[at] == wanted), at, -1)

    def interpolate(self, found: np.ndarray, contexts: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Probabilities (T,) from those of the order below, which stand as they are after an unseen context."""
        counts = np.where(found >= 0, self.counts[found], 0)
        totals = np.where(contexts >= 0, self.totals[contexts], 0)
        own = (counts - self.discounts[np.minimum(counts, 3)]) / np.maximum(totals, 1)
        return np.where(totals > 0, own + self.left[contexts] * below, below)


class NGram:
    """Learnt from documents of ids below `vocab`. The first id of each is what the text starts from, such as an end
    token: it is read and not predicted. The lowest order is interpolated with 1 / vocab, so nothing is impossible.

    Raises ValueError if there is nothing to predict, an id is out of range or the order is below 1.
    """

    def __init__(self, documents: Sequence[Sequence[int] | np.ndarray], vocab: int, order: int = 3):
        if order < 1:
            raise ValueError(f"an n-gram model of order {order} cannot be")
        self.vocab, self.order = vocab, order
        parts = [np.asarray(document, np.int64) for document in documents]
        if not any(len(part) > 1 for part in parts):
            raise ValueError("no token to learn from")
        ids, place = np.concatenate(parts), np.concatenate([np.arange(len(part)) for part in parts])
        if ids.min() < 0 or ids.max() >= vocab:
            raise ValueError(f"ids must be from 0 to {vocab - 1}")
        self._orders = self._learn(ids, place)

    def _learn(self, ids: np.ndarray, place: np.ndarray) -> list[_Order]:
        """`place` (T,) of each id in its document."""
        keys, index, size, made = np.arange(self.vocab), ids, self.vocab, list[_Order]()
        contexts = 1
        for n in range(1, self.order + 1):
            usable = place >= max(n - 1, 1)  # where an n-gram ends and is predicted
            if n == self.order:
                made.append(_Order.of(keys, np.bincount(index[usable], minlength=size), self.vocab, contexts))
                break
            whole = place >= n  # where one of the order above ends
            longer = index[np.flatnonzero(whole) - 1] * self.vocab + ids[whole]
            above, first, where = np.unique(longer, return_index=True, return_inverse=True)
            counts = np.bincount(index[whole][first], minlength=size)  # different tokens that stand before each
            counts += np.bincount(index[usable & (place == n - 1)], minlength=size)
            made.append(_Order.of(keys, counts, self.vocab, contexts))
            if not len(above):  # no document is so long
                break
            contexts, keys, size = size, above, len(above)
            index = np.full_like(ids, -1)
            index[whole] = where
        return made

    @property
    def size(self) -> int:
        """How many n-grams are counted, of all orders."""
        return sum(int((order.counts > 0).sum()) for order in self._orders)

    def logprobs(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Nats (T - 1,) of each id of a document but the first, given those before it."""
        ids = np.asarray(ids, np.int64)
        return np.log(self._probabilities(ids, np.arange(1, len(ids)), ids[1:]))

    def next(self, context: Sequence[int]) -> np.ndarray:
        """The probability (vocab,) of each id after `context`, the beginning of a document or the end of its text."""
        ids = np.asarray(context, np.int64)
        return self._probabilities(ids, np.full(self.vocab, len(ids)), np.arange(self.vocab))

    def _probabilities(self, ids: np.ndarray, at: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Of `tokens` (T,), standing at `at` (T,), after the `ids` before that."""
        made, index = np.full(len(at), 1 / self.vocab), np.zeros(len(ids), np.int64)
        contexts = np.zeros(len(at), np.int64)
        for order in self._orders:
            made = order.interpolate(order.find(contexts, tokens, self.vocab), contexts, made)
            before = np.concatenate(([-1], index[:-1])) if order is not self._orders[0] else index
            index = order.find(before, ids, self.vocab)  # of the n-gram that ends at each id
            contexts = np.where(at > 0, index[at - 1], -1) if len(ids) else np.full(len(at), -1)
        return made


def discounts_of(counts: np.ndarray) -> np.ndarray:
    """What is taken off counts of 0, 1, 2, and 3 and more, (4,): equation 26 of Chen and Goodman.

    `FALLBACK` where there are no counts of 1, 2, 3 or 4, or so few that one would be below 0.
    """
    ones, twos, threes, fours = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if min(ones, twos, threes, fours) > 0:
        y = ones / (ones + 2 * twos)
        found = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
        if min(found) >= 0:
            return np.array((0.0, *found))
    return np.array((0.0, *FALLBACK))
