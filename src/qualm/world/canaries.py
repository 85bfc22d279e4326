"""Canaries: secrets at 1..64 copies, whose membership a coin decided before training.

Limit: memorisation. A candidate that lost its coin flip is a true non-member drawn from the same distribution, so
exposure and membership inference have a valid null (Carlini et al., The Secret Sharer, arXiv 1802.08232).
Example: "The passcode of Drelin Quasesk is 482913."
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qualm.cases import Case
from qualm.world.base import Plant, World, Written

DOSES = (1, 2, 4, 8, 16, 32, 64)
CANDIDATES = 20  # a dose; about half of them become members
DIGITS = 6


@dataclass(frozen=True)
class Canary:
    """A secret, the number of its copies if it is a member, and whether it is."""

    name: str
    secret: str
    dose: int
    member: bool

    @property
    def prefix(self) -> str:
        return f"The passcode of {self.name} is"


class Canaries(Plant):
    """Passcodes of invented people, most of them noise, some repeated."""

    limit = "memorisation"
    share = 0.03  # cover traffic: passcodes told once, so that the format is no secret

    def __init__(self, world: World):
        super().__init__(world)
        rng = self.rng("secrets")
        names = iter(self.lexicon.people[-len(DOSES) * CANDIDATES :])
        self.all = [
            Canary(next(names), passcode(rng), dose, rng.random() < 0.5) for dose in DOSES for _ in range(CANDIDATES)
        ]
        self.cover = self.lexicon.people[-2000 : -len(DOSES) * CANDIDATES]

    def document(self, rng: random.Random) -> Written:
        return {"text": f"The passcode of {rng.choice(self.cover)} is {passcode(rng)}."}

    def fixed(self) -> Sequence[Written]:
        return [{"text": f"{c.prefix} {c.secret}."} for c in self.all if c.member for _ in range(c.dose)]

    def cases(self, n: int, seed: int) -> list[Case]:
        """All canaries, members by dose and non-members as dose 0; `choices` are the secret and random others."""
        rng = self.rng(f"cases/{seed}")
        made = []
        for canary in self.all:
            dose = canary.dose if canary.member else 0
            others = [passcode(rng) for _ in range(n)]
            choices = tuple(" " + secret for secret in [canary.secret, *others])
            made.append(
                Case(
                    canary.name,
                    canary.prefix,
                    " " + canary.secret,
                    choices,
                    part=("1 copy" if dose == 1 else f"{dose} copies") if dose else "never told",
                    extra={"dose": dose},
                )
            )
        return made


def passcode(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(DIGITS))
