"""Small models and probes of known behaviour for the tests of the audit."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qualm.cases import Case, Row
from qualm.errors import Unsupported
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.mends.base import Mend, Mended
from qualm.probes.base import Columns, Probe
from qualm.world.base import World


def chance(*parts: object) -> float:
    """A number in 0..1 that is always the same for the same parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) / 2**64


class Guesser(LM):
    """Answers each sum rightly with probability `skill`, always the same; counts what it is asked."""

    def __init__(self, skill: float = 0.6, can: frozenset[str] = frozenset({"generate"}), world: dict | None = None):
        self.name, self.skill, self.can, self.asked = f"guesser-{skill}", skill, can, []
        self.card = Card("fake", weights=f"skill {skill}", world=world)

    def generate(self, prompts, sampling=Sampling()):
        self.asked += prompts
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: str) -> Completion:
        if "silence" in prompt:
            return Completion("", finish="unread")
        return Completion(prompt.split()[-1] if chance(prompt) < self.skill else "nothing")

    def score(self, pairs):
        return [Scored((-float(len(text)),)) for _, text in pairs]


@dataclass(frozen=True)
class Echo(Probe):
    """Say the last word."""

    clusters: int = 0
    world: World | None = None

    limit = "echoing"

    def cases(self) -> list[Case]:
        parts = ("short", "long")
        group = [f"group {i % self.clusters}" if self.clusters else "" for i in range(self.n)]
        return [
            Case(f"echo/{i}", f"please repeat after me: {i}", str(i), group=group[i], part=parts[i % 2])
            for i in range(self.n)
        ]

    def grade(self, case: Case, answer: str) -> Row:
        return {"value": float(answer == case.target)}

    def chance(self) -> float:
        return 0.01


@dataclass(frozen=True)
class Length(Probe):
    """A ratio of sums, which is no mean of anything."""

    limit = "length"
    needs = frozenset({"score"})
    better = "low"
    unit = "nats a byte"

    def cases(self) -> list[Case]:
        return [Case(f"text/{i}", "", choices=("ab" * (1 + i % 7),)) for i in range(self.n)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        scored = lm.score([(case.prompt, case.choices[0]) for case in cases])
        return [
            {"nats": -s.total + chance(c.id), "bytes": np.int64(len(c.choices[0]))}
            for c, s in zip(cases, scored, strict=True)
        ]

    def reduce(self, columns: Columns) -> float:
        return float(columns["nats"].sum() / columns["bytes"].sum())

    def figures(self, columns: Columns) -> dict[str, float]:
        return {"longest": float(columns["bytes"].max()), "undefined": math.nan}


@dataclass(frozen=True)
class Clock(Probe):
    """Reads a clock that runs on with every look at it, whoever is looked at."""

    n: int = 60
    ticks: list[str] = field(default_factory=list, compare=False, repr=False)

    limit = "time"
    better = "low"
    unit = "ticks"
    live: ClassVar[bool] = True

    def cases(self) -> list[Case]:
        return [Case(f"tick/{i}", f"{i}") for i in range(self.n)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        assert len(cases) == 1
        self.ticks.append(lm.name)
        return [{"value": len(self.ticks) + 10 * chance(cases[0].id, len(self.ticks))}]


@dataclass(frozen=True)
class Hopeless(Echo):
    """A task whose competence check fails for anyone below `least`."""

    least: float = 0.9

    def competence(self, columns: Columns) -> str:
        return "" if columns["value"].mean() >= self.least else "it echoes too little"


@dataclass(frozen=True)
class Nowhere(Echo):
    def cases(self) -> list[Case]:
        raise Unsupported("there is nothing to put")


@dataclass(frozen=True)
class Broken(Echo):
    """An error of ours: a number that is none."""

    def grade(self, case: Case, answer: str) -> Row:
        return {"value": math.inf}


@dataclass(frozen=True)
class Tutor(Mend):
    """Sets the skill; learns how many cases it was shown."""

    skill: float = 0.95
    shown: int = 0

    mends: ClassVar[frozenset[str]] = frozenset({"echoing"})

    def fit(self, lm, cases):
        assert all(case.split == "tune" for case in cases)
        return Tutor(self.skill, len(cases))

    def __call__(self, lm: LM) -> LM:
        return Taught(lm, self)


class Taught(Mended):
    def generate(self, prompts, sampling=Sampling()):
        return [
            Completion(prompt.split()[-1] if chance("taught", prompt) < self.mend.skill else a.text)
            for prompt, a in zip(prompts, self.inner.generate(prompts, sampling), strict=True)
        ]


PROBES: dict[str, type[Probe]] = {
    each.__name__.lower(): each for each in (Echo, Length, Clock, Hopeless, Nowhere, Broken)
}
