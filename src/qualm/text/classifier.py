"""A linear classifier of texts that a person trains on examples of their own: hashed words and pairs of words, logistic
regression (Joulin et al. 2016, arXiv 1607.01759, without the hidden layer). For quality, or for what is not wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qualm.text.grams import grams, words

BITS = 18
_STEPS, _RATE, _DECAY = 120, 0.5, 1e-3


@dataclass(frozen=True)
class Classifier:
    """`weights` (2^18,) float32 of hashed features, and a bias."""

    weights: np.ndarray
    bias: float

    def probability(self, text: str) -> float:
        """How likely a text is of the first kind, from 0 to 1; 0.5 and no more where it has no word."""
        index, values = features(text)
        if not len(index):
            return 0.5
        return float(1 / (1 + np.exp(-(self.weights[index] @ values + self.bias))))


def features(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The buckets (F,) of a text's words and pairs, each once, and their values (F,), a vector of length 1."""
    single = words(text).hashes
    every = np.concatenate((single, grams(single, 2) if len(single) > 1 else single[:0]))
    index = np.unique(every >> np.uint64(64 - BITS)).astype(np.int64)
    return index, np.full(len(index), 1 / np.sqrt(max(len(index), 1)), np.float32)


def train(wanted: Sequence[str], unwanted: Sequence[str]) -> Classifier:
    """Fit both kinds, each with half of the weight. Raises ValueError if either is empty.

    All rows at every step (AdaGrad), from zero: nothing is drawn by lot.
    """
    if not wanted or not unwanted:
        raise ValueError("examples of both kinds are needed")
    rows = [features(text) for text in (*wanted, *unwanted)]
    index, values = (np.concatenate(part) for part in zip(*rows, strict=True))
    row = np.repeat(np.arange(len(rows)), [len(each) for each, _ in rows])
    target = np.arange(len(rows)) < len(wanted)
    share = np.where(target, 0.5 / len(wanted), 0.5 / len(unwanted))
    weights, squares = np.zeros(2**BITS), np.full(2**BITS, 1e-8)
    bias, bias_squares = 0.0, 1e-8
    for _ in range(_STEPS):
        logits = np.bincount(row, weights[index] * values, len(rows)) + bias
        error = (1 / (1 + np.exp(-logits)) - target) * share
        slope = np.bincount(index, values * error[row], 2**BITS) + _DECAY * weights / 2**BITS
        squares += slope**2
        weights -= _RATE * slope / np.sqrt(squares)
        bias_squares += error.sum() ** 2
        bias -= _RATE * error.sum() / np.sqrt(bias_squares)
    return Classifier(weights.astype(np.float32), float(bias))
