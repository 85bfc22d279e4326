"""Words and word n-grams of a text as 64-bit hashes, by array operations alone.

A word is a run of letters, digits and marks, case folded; where a script has no spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese, Tibetan) each character is a word of its own, so a 5-gram is five words of English, five characters of
Chinese, and a mixture in a mixed text. Hashes are the same on every machine.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

UNSPACED = (
    *((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
)
OTHER, LETTER, ALONE = 0, 1, 2
_KNOWN = 0x32400  # code points that have a class; what lies beyond is private or unassigned
_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))


@dataclass(frozen=True)
class Words:
    """`hashes` (W,) uint64; `starts` and `ends` (W,) in characters; `alone` (W,): a character of an unspaced script."""

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    alone: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


def words(text: str) -> Words:
    """The words of a text, in order.

    >>> len(words("Don't stop: 她住在北京.")), len(words("don t STOP"))
    (8, 3)
    """
    classes, values = _tables()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = classes.take(codes, mode="clip")
    before = np.concatenate((np.zeros(1, np.uint8), kinds[:-1]))
    after = np.concatenate((kinds[1:], np.zeros(1, np.uint8)))
    starts = np.flatnonzero((kinds == ALONE) | ((kinds == LETTER) & (before != LETTER)))
    ends = np.flatnonzero((kinds == ALONE) | ((kinds == LETTER) & (after != LETTER))) + 1
    powers, inverses = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(values.take(codes, mode="clip") * powers, out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * inverses[starts]  # of the characters, wherever they stand
    return Words(mixed(hashes), starts, ends, kinds[starts] == ALONE)


def grams(hashes: np.ndarray, n: int) -> np.ndarray:
    """The hash (W - n + 1,) of each run of n words; one of them all where there are fewer, none of none."""
    if len(hashes) == 0:
        return hashes
    n = min(n, len(hashes))
    count = len(hashes) - n + 1
    found = np.full(count, n, np.uint64)
    for k in range(n):
        found = (found ^ hashes[k : k + count]) * _BASE
        found ^= found >> np.uint64(29)
    return mixed(found)


def words_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The hashes (W,) of the words of several texts end to end, and where each text's begin: (texts + 1,)."""
    found = words("\n".join(texts))
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    return found.hashes, np.searchsorted(found.starts, starts)


def grams_of(hashes: np.ndarray, borders: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`grams` of each of several texts whose words lie end to end: all hashes, and how many each text has."""
    counts = np.diff(borders)
    last = np.repeat(borders[1:], counts) - n  # where the last n-gram of a word's own text begins
    inside = np.arange(len(hashes)) <= last
    found = np.zeros(len(hashes), np.uint64)
    if len(hashes) >= n:
        found[: len(hashes) - n + 1] = grams(hashes, n)
    for text in np.flatnonzero((counts > 0) & (counts < n)).tolist():
        first = int(borders[text])
        found[first], inside[first] = grams(hashes[first : borders[text + 1]], n)[0], True
    return found[inside], np.where(counts < n, np.minimum(counts, 1), counts - n + 1)


def mixed(values: np.ndarray) -> np.ndarray:
    """uint64 with every bit hanging on every bit (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Of each code point: its class, and the value that it adds to its word, which is that of its small letter."""
    classes, folded = np.zeros(_KNOWN + 1, np.uint8), np.arange(_KNOWN + 1, dtype=np.uint64)
    for code in range(_KNOWN):
        char = chr(code)
        if char.isalnum() or unicodedata.category(char)[0] == "M":
            classes[code] = LETTER
            low = char.lower()
            if low != char and len(low) == 1:
                folded[code] = ord(low)
    for first, last in UNSPACED:
        span = slice(first, last + 1)
        classes[span] = np.where(classes[span] == LETTER, ALONE, classes[span])
    return classes, mixed(folded + np.uint64(1))


_kept = [np.ones(1, np.uint64), np.ones(1, np.uint64)]


def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers of the base, and of its inverse modulo 2^64, from 0 to `length` - 1."""
    if len(_kept[0]) < length:
        size = max(length, 2 * len(_kept[0]), 4096)
        for i, base in enumerate((_BASE, _INVERSE)):
            _kept[i] = np.cumprod(np.concatenate((np.ones(1, np.uint64), np.full(size - 1, base, np.uint64))))
    return _kept[0][:length], _kept[1][:length]
