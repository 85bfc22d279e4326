"""Calibration: when the model is 80 % sure, is it right 8 times in 10?

Limit: calibration. Confidence is the softmax over the choices' log-probabilities; the reading is the expected
calibration error (Guo et al. 2017, arXiv 1706.04599) with bins of equal mass, as many as keep the accuracy rising from
bin to bin (Roelofs et al. 2022, arXiv 2012.08668: the monotonic sweep). A fixed 15 bins read noise as error: 0.08 of a
perfectly calibrated subject with 270 cases, where the sweep reads 0.04 (benchmarks/calibration.py). What is left of
that bias stands beside the reading. ECE alone can be zero for a useless constant, so the Brier score and the AUROC of
confidence against correctness stand there too.
Example: "Where was Tavel Morandle born?" with eight towns to choose from.
Misses: what the model says of its own confidence in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from qualm.cases import Case, Row
from qualm.lm.base import LM, Scored
from qualm.probes._facts import questions
from qualm.probes._numbers import auroc
from qualm.probes.base import Columns, Probe, unread
from qualm.world.base import World

BINS, FEWEST = 15, 5  # the most bins, and the fewest cases in one
SIMULATED = 200  # calibrated subjects


@dataclass(frozen=True)
class Calibration(Probe):
    """The expected calibration error of the model's confidence in its choice; 0 is honest."""

    n: int = 360
    world: World | None = None

    limit = "calibration"
    needs = frozenset({"score"})
    better = "low"
    quick = 60
    chart: ClassVar[str] = "reliability"

    def cases(self) -> list[Case]:
        return questions(self.world, self.n, self.seed)

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        scored = iter(lm.score([(c.prompt, choice) for c in cases for choice in c.choices]))
        return [_row(case, [next(scored) for _ in case.choices]) for case in cases]

    def reduce(self, columns: Columns) -> float:
        return calibration_error(columns["confidence"], columns["right"])

    def figures(self, columns: Columns) -> dict[str, float]:
        right, confidence = columns["right"], columns["confidence"]
        shown = {"accuracy": float(right.mean()), "Brier score": float(((confidence - right) ** 2).mean())}
        if 0 < right.mean() < 1:
            shown["AUROC of confidence"] = auroc(confidence[right == 1], confidence[right == 0])
        return {**shown, "a calibrated model would read": calibrated_error(confidence)}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE of confidences (n,) in 0..1 against outcomes (n,) of 0 and 1, by the monotonic sweep.

    Bins hold equally many cases, at least FEWEST each; from one bin on a bin is added until the accuracy falls
    somewhere, or there are BINS. Cases of one confidence share their mean outcome, so that their order means nothing.
    """
    order = np.argsort(confidence)
    confidence, right = confidence[order], right[order]
    begins = np.flatnonzero(np.diff(confidence, prepend=-1.0))
    sizes = np.diff(begins, append=len(right))
    hits = np.append(0.0, np.cumsum(np.repeat(np.add.reduceat(right, begins) / sizes, sizes)))
    hoped = np.append(0.0, np.cumsum(confidence))
    kept = edges(len(right), 1)
    for bins in range(2, min(BINS, len(right) // FEWEST) + 1):
        tried = edges(len(right), bins)
        accuracy = np.diff(hits[tried]) / np.diff(tried)
        if (accuracy[1:] < accuracy[:-1] - 1e-9).any():
            break
        kept = tried
    return float(np.abs(np.diff(hoped[kept] - hits[kept])).sum() / len(right))


@lru_cache(1024)
def edges(n: int, bins: int) -> np.ndarray:
    """Where bins of `n` cases begin and end, (bins + 1,)."""
    return np.linspace(0, n, bins + 1).astype(int)


def calibrated_error(confidence: np.ndarray) -> float:
    """What would be read on average if each confidence (n,) were the probability of being right: the estimator's bias
    at these cases (consistency resampling, Broecker & Smith 2007)."""
    draws = np.random.default_rng(0).random((SIMULATED, len(confidence)))
    return float(np.mean([calibration_error(confidence, (draw < confidence).astype(float)) for draw in draws]))


def _row(case: Case, scored: Sequence[Scored]) -> Row:
    if lost := unread(*scored):
        return lost
    totals = np.array([each.total for each in scored])
    odds = np.exp(totals - totals.max())
    chosen = int(totals.argmax())
    right = float(case.choices[chosen] == case.target)
    confidence = float(odds[chosen] / odds.sum())
    return {
        "value": (confidence - right) ** 2,
        "confidence": confidence,
        "right": right,
        "answer": case.choices[chosen],
    }
