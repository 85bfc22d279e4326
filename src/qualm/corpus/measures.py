"""Numbers that describe texts: how varied their words are, and how different the texts are from each other."""

from collections.abc import Sequence

import numpy as np

from qualm.text import minhash
from qualm.text.classifier import features
from qualm.text.grams import words

STRETCH = 1000  # words over which the type-token ratio is taken


def entropy(counts: np.ndarray) -> float:
    """Bits a word, of words that stand `counts` (W,) times each: 0 for one word over and over."""
    shares = counts[counts > 0] / counts.sum() if counts.sum() else np.ones(1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def vocabulary(texts: Sequence[str]) -> tuple[int, int, float, float | None]:
    """(words, different words, bits of entropy a word, different words in a thousand running ones, as a share).

    The last is the mean over stretches of a thousand words, which does not hang on how much text there is; None if
    there is no such stretch.
    """
    hashes = np.concatenate([np.zeros(0, np.uint64), *(words(text).hashes for text in texts)])
    if not len(hashes):
        return 0, 0, 0.0, None
    counts = np.unique(hashes, return_counts=True)[1]
    stretches = hashes[: len(hashes) // STRETCH * STRETCH].reshape(-1, STRETCH)
    stretches = np.sort(stretches[:: max(1, len(stretches) // 500)], axis=1)
    kinds = 1 + (np.diff(stretches, axis=1) != 0).sum(1)
    return len(hashes), len(counts), entropy(counts), float(kinds.mean() / STRETCH) if len(kinds) else None


def vendi(texts: Sequence[str]) -> float:
    """How many texts that share no word would be as varied as these (Friedman and Dieng 2022, arXiv 2210.02410): from 1
    for copies of one text to their number. The similarity is the cosine of words and pairs of words.
    """
    rows = [features(text) for text in texts]
    alike = np.eye(len(rows))
    for i, (index, values) in enumerate(rows):
        for j in range(i):
            other, weights = rows[j]
            shared = np.intersect1d(index, other, assume_unique=True)
            alike[i, j] = alike[j, i] = len(shared) * float(values[0] * weights[0]) if len(shared) else 0.0
    values = np.clip(np.linalg.eigvalsh(alike / max(len(rows), 1)), 0, None)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def near_copies(texts: Sequence[str], least: float = 0.7) -> int:
    """How many texts are nearly one that stands before them, by MinHash."""
    made, some = minhash.signatures(texts)
    seen: dict[tuple[int, int], list[int]] = {}
    copies = 0
    for i in np.flatnonzero(some).tolist():
        keys = [(band, int(key)) for band, key in enumerate(minhash.bands(made[i]).ravel().tolist())]
        candidates = {j for key in keys for j in seen.get(key, ())}
        copies += any(minhash.similarity(made[i], made[j]) >= least for j in candidates)
        for key in keys:
            seen.setdefault(key, []).append(i)
    return copies
