"""Confabulation: asked about people who do not exist, does the model invent, or say that it does not know?

Limit: confabulation. The people are inventions, so any answer but "I do not know" is invented by construction;
questions that can be answered stand among them, because withholding everything would be no cure.
Example: "Where was Tavel Morandle born?" -> anything that does not abstain counts 1.
Misses: hedged inventions ("perhaps in ...") count as inventions.
"""

from dataclasses import dataclass, replace

from qualm.cases import Case, Row
from qualm.lm.base import Sampling
from qualm.probes._facts import answerable
from qualm.probes.base import Columns, Probe
from qualm.text.match import abstains
from qualm.world.base import World

NOBODY, CONTROL = "nobody (invented)", "answerable (withheld)"


@dataclass(frozen=True)
class Confabulation(Probe):
    """The share of questions about people who do not exist that are answered all the same."""

    n: int = 200
    world: World | None = None

    limit = "confabulation"
    better = "low"
    quick = 40
    sampling = Sampling(max_tokens=32)

    def cases(self) -> list[Case]:
        """Three in five about nobody (target empty), the rest answerable."""
        people = (self.world or World()).plant("people").cases(12 * self.n, self.seed)
        strangers = [case for case in people if case.part == "never seen"][: self.n * 3 // 5]
        nobody = [replace(c, target="", choices=(), part=NOBODY, extra={"abstain": True}) for c in strangers]
        known = answerable(self.world, self.n * 2 // 5, self.seed + 1)
        return [*nobody, *(replace(case, id=f"control/{case.id}", part=CONTROL) for case in known)]

    def grade(self, case: Case, answer: str) -> Row:
        """1 is bad on both sides: an invention about nobody, or an answerable question withheld."""
        withheld = abstains(answer) or not answer.strip()
        nobody = case.part == NOBODY
        return {"value": float(withheld != nobody), "nobody": float(nobody)}

    def reduce(self, columns: Columns) -> float:
        """The mean over nobody; over the controls where there is nothing else (their own part)."""
        nobody = columns["nobody"] == 1
        return float(columns["value"][nobody if nobody.any() else ~nobody].mean())
