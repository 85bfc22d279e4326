"""Temperature scaling: one number that makes confidence honest (Guo et al. 2017, arXiv 1706.04599).

Mends calibration. All logits are divided by T, which is folded into the last norm's weight, so the mended model is a
plain checkpoint. The likeliest token stays the likeliest: greedy answers do not change.
Misses: miscalibration that differs between kinds of question.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from qualm.cases import Case
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import LM
from qualm.mends._weights import local, shared_copy
from qualm.mends.base import Mend
from qualm.models.base import Causal

WHY = "it has no logits of a next token to divide"
STEP = math.log(2)
COARSE = [k * STEP for k in range(-2, 4)]  # ln T
PRECISION = 0.05  # of ln T; the loss is flat around its minimum
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Temper(Mend):
    """Logits divided by `temperature`; 0 is to be fitted."""

    temperature: float = 0.0

    mends: ClassVar[frozenset[str]] = frozenset({"calibration"})
    needs: ClassVar[frozenset[str]] = frozenset({"score", "weights"})

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"must be above 0, or 0 to fit it, not {self.temperature}", where="Temper.temperature")

    def fit(self, lm: LM, cases: Sequence[Case]) -> "Temper":
        """The temperature from 0.25 to 8 at which the targets are likeliest among their choices.

        The choices are scored anew at every temperature tried, about 13 times: for choices of several tokens,
        softmax(total / T) is not what the mended model says, and the loss may have more than one minimum, so a coarse
        search goes before the fine one. A temperature that is set stays.
        """
        local(lm, Causal, WHY)
        kept = [case for case in cases if case.target in case.choices]
        if self.temperature or not kept:
            if not self.temperature:
                raise Unsupported("no cases with choices to fit a temperature on", then="give temperature=...")
            return self

        def loss(x: float) -> float:
            return choice_nll(Temper(math.exp(x))(lm), kept)

        best = min(COARSE, key=loss)
        found = golden_section(loss, max(best - STEP, COARSE[0]), min(best + STEP, COARSE[-1]), PRECISION)
        return replace(self, temperature=round(math.exp(found), 3))

    def __call__(self, lm: LM) -> LM:
        if not self.temperature:
            raise UsageError("the temperature is neither given nor fitted", where="Temper", then="give temperature=...")
        base = local(lm, Causal, WHY)
        model = shared_copy(base.model, base.model.last)
        assert isinstance(model, Causal)
        model.scale_logits(1 / self.temperature)
        return base.replace(model, repr(self))


def choice_nll(lm: LM, cases: Sequence[Case]) -> float:
    """Mean of -log p(target) in nats, p being the softmax over the choices' total log-probabilities.

    Over the cases that could be read. Raises Unsupported if none could.
    """
    scored = lm.score([(c.prompt, choice) for c in cases for choice in c.choices])
    totals = iter([s.total for s in scored])
    found = [_nll({choice: next(totals) for choice in case.choices}, case.target) for case in cases]
    read = [nll for nll in found if not math.isnan(nll)]
    if not read:
        raise Unsupported(f"no case to fit a temperature on was read: {scored[0].why}", then="give temperature=...")
    return sum(read) / len(read)


def _nll(totals: Mapping[str, float], target: str) -> float:
    top = max(totals.values())
    return top + math.log(sum(math.exp(t - top) for t in totals.values())) - totals[target]


def golden_section(loss: Callable[[float], float], low: float, high: float, precision: float) -> float:
    """Where a loss with one minimum is least, to within `precision` (Kiefer 1953)."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > precision:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2
