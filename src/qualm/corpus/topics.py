"""What documents are about: k-means over hashed words, and the words that tell each cluster from the others.

Keywords by c-TF-IDF (Grootendorst 2022, arXiv 2203.05794): a word counts by how often it stands in a cluster, times the
logarithm of 1 + the mean number of words in a cluster over how often it stands anywhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qualm.text import segment

WIDE = 4096  # buckets of hashed words
MOST, FEWEST = 12, 8  # clusters at most; documents a cluster on average at least
_ROUNDS, _WORDS = 25, 8


@dataclass(frozen=True)
class Topic:
    """A cluster: how many documents, its keywords from the most telling, and the places of those nearest its middle."""

    size: int
    words: tuple[str, ...]
    nearest: tuple[int, ...]


def topics(texts: Sequence[str], seed: int = 0) -> list[Topic]:
    """The clusters of some texts, largest first; none of fewer than twice `FEWEST` texts."""
    counts = [Counter(segment.terms(text)) for text in texts]
    rows = [i for i, each in enumerate(counts) if each]
    if len(rows) < 2 * FEWEST:
        return []
    table = _vectors([counts[i] for i in rows])
    labels, middles = _clusters(table, min(MOST, len(rows) // FEWEST), seed)
    sums: list[Counter[str]] = [Counter() for _ in middles]
    for place, label in zip(rows, labels.tolist(), strict=True):
        sums[label].update(counts[place])
    everywhere = sum(sums, Counter[str]())
    mean = sum(everywhere.values()) / len(sums)
    found = []
    for label, inside in enumerate(sums):
        own = np.flatnonzero(labels == label)
        scores = {word: count * np.log(1 + mean / everywhere[word]) for word, count in inside.items() if count > 1}
        best = sorted(scores, key=lambda word: (-scores[word], word))[:_WORDS]
        close = own[np.argsort(-(table[own] @ middles[label]), kind="stable")[:3]]
        found.append(Topic(len(own), tuple(best), tuple(rows[i] for i in close.tolist())))
    return sorted((topic for topic in found if topic.size), key=lambda topic: -topic.size)


def _vectors(counts: Sequence[Counter[str]]) -> np.ndarray:
    """(N, WIDE) float32 of length 1: 1 + log of the count, times log of the inverse share of documents."""
    seen: dict[str, int] = {}
    table = np.zeros((len(counts), WIDE), np.float32)
    for row, each in enumerate(counts):
        for word, count in each.items():
            bucket = seen.setdefault(word, _bucket(word))
            table[row, bucket] += 1 + np.log(count)
    table *= np.log((1 + len(counts)) / (1 + (table > 0).sum(0)))
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)


def _bucket(word: str) -> int:
    value = 0
    for byte in word.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return (value ^ value >> 32) % WIDE


def _clusters(table: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels (N,), middles (k, WIDE)): spherical k-means from k-means++ (Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(seed)
    middles = table[rng.integers(len(table))][None]
    while len(middles) < k:
        far = np.maximum(1 - (table @ middles.T).max(1), 0) ** 2
        share = far / far.sum() if far.sum() > 0 else np.full(len(table), 1 / len(table))
        middles = np.concatenate((middles, table[rng.choice(len(table), p=share)][None]))
    labels = np.full(len(table), -1)
    for _ in range(_ROUNDS):
        now = (table @ middles.T).argmax(1)
        if (now == labels).all():
            break
        labels = now
        for label in range(k):
            if (labels == label).any():
                middle = table[labels == label].mean(0)
                middles[label] = middle / max(float(np.linalg.norm(middle)), 1e-9)
    return labels, middles
