"""Okapi BM25 over short passages: own words, own index, no stemming (Robertson & Zaragoza 2009, eq. 3.15).

Words are lower-cased; Chinese and Japanese runs, which have no spaces, are indexed by their pairs of characters.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

K1, B = 1.2, 0.75

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECES = re.compile(rf"[{_IDEOGRAPHS}]+|[^\W_{_IDEOGRAPHS}]+")
_IS_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")


def terms(text: str) -> list[str]:
    """The index terms of a text, in order.

    >>> terms("Anna's 2 cats; 她住在北京")
    ['anna', 's', '2', 'cats', '她住', '住在', '在北', '北京']
    """
    found: list[str] = []
    for piece in _PIECES.findall(text.casefold()):
        if len(piece) > 1 and _IS_IDEOGRAPH.match(piece):
            found += [piece[i : i + 2] for i in range(len(piece) - 1)]
        else:
            found.append(piece)
    return found


def is_ideographic(text: str) -> bool:
    """It holds a Chinese or Japanese character."""
    return bool(_IS_IDEOGRAPH.search(text))


class Bm25:
    """An inverted index; each posting holds the whole weight of its term in its passage."""

    def __init__(self, passages: Sequence[str]):
        self.count = len(passages)
        postings: dict[str, list[tuple[int, int]]] = {}
        lengths = np.ones(self.count)
        for i, passage in enumerate(passages):
            counts = Counter(terms(passage))
            lengths[i] = max(counts.total(), 1)
            for term, times in counts.items():
                postings.setdefault(term, []).append((i, times))
        crowding = K1 * (1 - B + B * lengths / lengths.mean()) if self.count else lengths
        self._postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for term, pairs in postings.items():
            where, times = np.array(pairs).T  # (df,), (df,)
            weight = self._idf(len(pairs)) * times * (K1 + 1) / (times + crowding[where])
            self._postings[term] = (where.astype(np.int32), weight.astype(np.float32))

    def frequency(self, term: str) -> int:
        """In how many passages a term stands."""
        return len(self._postings[term][0]) if term in self._postings else 0

    def idf(self, term: str) -> float:
        """Inverse document frequency in nats, never negative; highest for a term that stands nowhere."""
        return self._idf(self.frequency(term))

    def top(self, query: str, k: int) -> list[tuple[int, float]]:
        """Up to `k` passages that share a term with the query, as (index, score), best first; ties by index."""
        scores = np.zeros(self.count)
        for term in set(terms(query)) & self._postings.keys():
            where, weight = self._postings[term]
            scores[where] += weight
        best = np.lexsort((np.arange(self.count), -scores))[:k]
        return [(int(i), float(scores[i])) for i in best if scores[i] > 0]

    def shared(self, query: str, index: int) -> set[str]:
        """The query's terms that stand in a passage."""
        return {t for t in set(terms(query)) & self._postings.keys() if index in self._postings[t][0]}

    def _idf(self, frequency: int) -> float:
        return float(np.log1p((self.count - frequency + 0.5) / (frequency + 0.5)))
