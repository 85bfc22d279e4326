"""MinHash (Broder 1997) and its banding: near-duplicates without comparing every pair.

112 hashes in 14 bands of 8 rows (as in FineWeb: Penedo et al. 2024, arXiv 2406.17557): two texts whose sets of n-grams
have the Jaccard similarity s share a band with probability 1 - (1 - s^8)^14: 56, 77, 92 and 98.8 % at .7, .75, .8, .85.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from qualm.text.grams import grams, grams_of, mixed, words, words_of

BANDS, ROWS = 14, 8
HASHES = BANDS * ROWS
_CHUNK = 2048  # n-grams hashed at once, so that the table stays in the processor's cache
_GROUP = 1 << 16  # characters of several texts, for the same reason


def _seeded() -> tuple[np.ndarray, np.ndarray]:
    values = mixed(np.arange(1, 2 * HASHES + 1, dtype=np.uint64))
    odd = (values[:HASHES].astype(np.uint32) | np.uint32(1))[:, None]
    return odd, values[HASHES:].astype(np.uint32)[:, None]


_TIMES, _FLIP = _seeded()


def signature(text: str, n: int = 5) -> np.ndarray | None:
    """The least (112,) uint32 of 112 hashes over the n-grams of words of a text; None if it has no word."""
    found = grams(words(text).hashes, n)
    return of_grams(found) if len(found) else None


def of_grams(found: np.ndarray) -> np.ndarray:
    short = (found >> np.uint64(32)).astype(np.uint32)
    least = np.full(HASHES, 2**32 - 1, np.uint32)
    for start in range(0, len(short), _CHUNK):
        table = (short[None, start : start + _CHUNK] ^ _FLIP) * _TIMES  # (112, chunk): a permutation a row
        np.minimum(least, table.min(1), out=least)
    return least


def signatures(texts: Sequence[str], n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """`signature` of each text, several times as fast: (texts, 112) uint32, and which (texts,) have a word at all.

    A text without one has a row that means nothing.
    """
    made, some = np.zeros((len(texts), HASHES), np.uint32), np.zeros(len(texts), bool)
    for first, group in _groups(texts):
        found, counts = grams_of(*words_of(group), n)
        rows = np.flatnonzero(counts)
        if len(rows) == 1:  # perhaps a long one
            made[first + rows[0]], some[first + rows[0]] = of_grams(found), True
        elif len(rows):
            short = (found >> np.uint64(32)).astype(np.uint32)
            starts = (np.cumsum(counts) - counts)[rows]
            for k in range(HASHES):
                made[first + rows, k] = np.minimum.reduceat((short ^ _FLIP[k]) * _TIMES[k], starts)
            some[first + rows] = True
    return made, some


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """(number of the first, texts) of stretches of about _GROUP characters; a longer text stands alone."""
    first = size = 0
    for number, text in enumerate(texts):
        if size and size + len(text) > _GROUP:
            yield first, texts[first:number]
            first, size = number, 0
        size += len(text)
    if texts:
        yield first, texts[first:]


def similarity(left: np.ndarray, right: np.ndarray) -> float:
    """The estimate of the Jaccard similarity: the share of equal hashes. Standard error sqrt(s (1 - s) / 112)."""
    return float((left == right).mean())


def bands(made: np.ndarray) -> np.ndarray:
    """One key (..., 14) uint64 a band of each signature (..., 112): texts that share one are candidates."""
    rows = made.astype(np.uint64).reshape(*made.shape[:-1], BANDS, ROWS)
    keys = np.arange(1, BANDS + 1, dtype=np.uint64)
    for row in range(ROWS):
        keys = mixed(keys ^ rows[..., row])
    return keys
