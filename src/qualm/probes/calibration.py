"""Calibration: when the model is 80 % sure, is it right 8 times in 10?

Limit: calibration. Confidence is the softmax over the choices' log-probabilities; the reading is the expected
calibration error with bins of equal mass (Guo et al., arXiv 1706.04599). ECE alone can be zero for a useless constant,
so the Brier score and the AUROC of confidence against correctness stand beside it.
Example: "Where was Tavel Morandle born?" with eight towns to choose from.
Misses: what the model says of its own confidence in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qualm.cases import Case, Row
from qualm.lm.base import LM
from qualm.probes._facts import questions
from qualm.probes._numbers import auroc
from qualm.probes.base import Columns, Probe
from qualm.world.base import World

BINS = 15


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
        totals = iter([s.total for s in lm.score([(c.prompt, choice) for c in cases for choice in c.choices])])
        return [_row(case, np.array([next(totals) for _ in case.choices])) for case in cases]

    def reduce(self, columns: Columns) -> float:
        """ECE over bins that hold equally many cases, at most 15 and at least five cases each."""
        order = np.argsort(columns["confidence"], kind="stable")
        gap = (columns["confidence"] - columns["right"])[order]
        bins = max(1, min(BINS, len(gap) // 5))
        edges = np.linspace(0, len(gap), bins + 1).astype(int)[:-1]
        return float(np.abs(np.add.reduceat(gap, edges)).sum() / len(gap))

    def figures(self, columns: Columns) -> dict[str, float]:
        right, confidence = columns["right"], columns["confidence"]
        shown = {"accuracy": float(right.mean()), "Brier score": float(((confidence - right) ** 2).mean())}
        if 0 < right.mean() < 1:
            shown["AUROC of confidence"] = auroc(confidence[right == 1], confidence[right == 0])
        return shown


def _row(case: Case, totals: np.ndarray) -> Row:
    if np.isnan(totals).any():
        return {}
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
