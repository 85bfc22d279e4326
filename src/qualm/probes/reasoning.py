"""Reasoning: transitivity by depth, and negation, each question with a twin of the opposite answer.

Limit: reasoning. Example: "Tavel beats Morix. Morix beats Drelin. Does Tavel beat Drelin?" and "Does Drelin beat
Tavel?". A case counts only if both twins are answered rightly: always yes reads 0, guessing 25 %.
Misses: anything that is not in the prompt; no world knowledge is usable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qualm.cases import Case, Row, ask
from qualm.lm.base import LM, Completion, Sampling
from qualm.probes.base import Probe, unread
from qualm.text.match import yes_no
from qualm.world.base import World


@dataclass(frozen=True)
class Reasoning(Probe):
    """The share of twin questions (order by depth, negation) answered rightly on both sides."""

    n: int = 240
    world: World | None = None

    limit = "reasoning"
    quick = 32
    sampling = Sampling(max_tokens=16)

    def cases(self) -> list[Case]:
        world = self.world or World()
        orders = world.plant("orders").cases(self.n * 3 // 4, self.seed)
        return [*orders, *world.plant("negations").cases(self.n - len(orders), self.seed)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        prompts = [case.prompt for case in cases] + [ask(case.extra["twin"]) for case in cases]
        said = lm.generate(prompts, self.sampling)
        return [unread(*pair) or _row(*pair) for pair in zip(said[: len(cases)], said[len(cases) :], strict=True)]

    def chance(self) -> float:
        return 0.25


def _row(answer: Completion, twin: Completion) -> Row:
    right, twin_right = yes_no(answer.text) is True, yes_no(twin.text) is False
    return {
        "value": float(right and twin_right),
        "yes": float(right),
        "no": float(twin_right),
        "answer": f"{answer.text} | {twin.text}",
    }
