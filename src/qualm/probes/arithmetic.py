"""Arithmetic: sums of two-digit numbers, with operand pairs held out from the planted world's text.

Limit: arithmetic. Example: "What is 23 + 45?" -> "68". The last number of the answer counts, so that a worked answer
may repeat the sum first; an answer without a number is wrong.
Misses: subtraction, longer numbers, word problems.
"""

from dataclasses import dataclass
from decimal import Decimal

from qualm.cases import Case, Row
from qualm.lm.base import Sampling
from qualm.probes.base import Probe
from qualm.text.match import last_number
from qualm.world.base import World


@dataclass(frozen=True)
class Arithmetic(Probe):
    """The share of two-digit sums worked out rightly."""

    n: int = 160
    world: World | None = None

    limit = "arithmetic"
    quick = 40
    sampling = Sampling(max_tokens=32)

    def cases(self) -> list[Case]:
        return (self.world or World()).plant("sums").cases(self.n, self.seed)

    def grade(self, case: Case, answer: str) -> Row:
        return {"value": float(last_number(answer) == Decimal(case.target))}
