"""How often does a proof find a change where there is none, and how often one that is there?

    python benchmarks/nulls.py [proofs]

A proof of thirteen probes of mixed kinds is simulated: before and after are two noisy observations of the same cases,
with no true difference, or with one in a single probe. At most 5 % of the first may hold a "better" or a "worse".
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qualm.auditing.prove import changes
from qualm.auditing.types import Audit, Change, Measurement, Reading
from qualm.cases import Case
from qualm.lm.base import Card
from qualm.probes.base import Columns, Probe

RNG = np.random.Generator
Rows = Mapping[str, np.ndarray]  # one array a number of the rows
NOT_NEEDED = Reading(0.5, 0.0, 1.0, 2, 2)  # the readings of the sides have no part in the verdict


@dataclass(frozen=True)
class Made(Probe):
    """A probe whose rows are made up: `n` cases in `clusters` groups (0: each on its own)."""

    clusters: int = 0
    kind: str = "flips"

    limit = "made up"

    def cases(self) -> list[Case]:
        groups = np.arange(self.n) % self.clusters if self.clusters else [""] * self.n
        return [Case(f"{self.kind}/{i}", "?", group=f"{g}") for i, g in enumerate(groups)]


@dataclass(frozen=True)
class Low(Made):
    better = "low"
    unit: ClassVar[str] = "nats"


@dataclass(frozen=True)
class Bytes(Low):
    def reduce(self, columns: Columns) -> float:
        return float(columns["nats"].sum() / columns["bytes"].sum() / math.log(2))


@dataclass(frozen=True)
class Ranks(Made):
    def reduce(self, columns: Columns) -> float:
        """The AUROC of scores without ties; NaN where all are right, or all wrong."""
        right = columns["right"] == 1
        ones = int(right.sum())
        below = int(right[columns["score"].argsort()].nonzero()[0].sum()) - ones * (ones - 1) // 2
        return below / (ones * (len(right) - ones)) if 0 < ones < len(right) else math.nan


@dataclass(frozen=True)
class Told(Made):
    def reduce(self, columns: Columns) -> float:
        return float(columns["value"][columns["counts"] == 1].mean())


def flips(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    """Right or wrong; groups and cases differ in how hard they are."""
    hard = rng.normal(0, 0.5, probe.n) + _by_group(rng, probe, 1.0) + 0.8
    first, second = (rng.random(probe.n) < 1 / (1 + np.exp(-hard - shift)) for shift in (0.0, effect))
    return {"value": first.astype(float)}, {"value": second.astype(float)}


def told(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    counts = (np.arange(probe.n) % 3 > 0).astype(float)
    first, second = flips(rng, probe, effect)
    return {**first, "counts": counts}, {**second, "counts": counts}


def signs(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    first, second = (rng.choice([-1.0, 0.0, 1.0], probe.n, p=[0.05 + e, 0.8, 0.15 - e]) for e in (0.0, effect / 10))
    return {"value": first}, {"value": second}


def nats(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    """Positive and skewed, cases far more different than the two observations of one."""
    base = np.exp(rng.normal(0, 0.6, probe.n) + _by_group(rng, probe, 0.4))
    group, own = _by_group(rng, probe, 0.05), _by_group(rng, probe, 0.05)
    noise = [rng.exponential(0.1, probe.n) for _ in range(2)]
    return {"value": base + noise[0] + group}, {"value": base + noise[1] + own - effect / 5}


def documents(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    size = np.exp(rng.normal(5, 0.5, probe.n))
    rate = np.exp(rng.normal(0, 0.3, probe.n)) * math.log(2)
    first, second = (rate * np.exp(rng.normal(shift, 0.1, probe.n)) for shift in (0.0, -effect / 10))
    return {"nats": size * first, "bytes": size}, {"nats": size * second, "bytes": size}


def ranks(rng: RNG, probe: Made, effect: float) -> tuple[Rows, Rows]:
    right = rng.random(probe.n) < 0.6
    score = rng.normal(0, 1, probe.n) + right
    first, second = (score + rng.normal(0, 0.5, probe.n) + shift * right for shift in (0.0, effect))
    return {"right": right + 0.0, "score": first}, {"right": right + 0.0, "score": second}


def _by_group(rng: RNG, probe: Made, size: float) -> np.ndarray:
    if not probe.clusters:
        return np.zeros(probe.n)
    return rng.normal(0, size, probe.clusters)[np.arange(probe.n) % probe.clusters]


PROBES: list[tuple[Made, Callable[[RNG, Made, float], tuple[Rows, Rows]]]] = [
    (Made(60), flips),
    (Made(150), flips),
    (Made(300), flips),
    (Made(160, clusters=20), flips),
    (Made(150, clusters=30), flips),
    (Made(120, clusters=10), flips),
    (Told(150, kind="told"), told),
    (Made(120, kind="signs"), signs),
    (Low(150, kind="nats"), nats),
    (Low(160, clusters=20, kind="nats"), nats),
    (Low(14, kind="times"), nats),
    (Bytes(150, kind="documents"), documents),
    (Ranks(150, kind="ranks"), ranks),
]


def proof(seed: int, effects: Mapping[int, float]) -> tuple[Change, ...]:
    """The changes of one simulated proof; `effects` by the place of the probe."""
    rng = np.random.default_rng(seed)
    sides: tuple[list[Measurement], list[Measurement]] = ([], [])
    for place, (probe, make) in enumerate(PROBES):
        cases = tuple(probe.cases())
        for side, columns in zip(sides, make(rng, probe, effects.get(place, 0.0)), strict=True):
            rows = tuple(
                dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)
            )
            side.append(Measurement(f"probe {place}", probe, NOT_NEEDED, cases=cases, rows=rows))
    before, after = (Audit("simulated", Card("none"), tuple(side)) for side in sides)
    return changes(before, after)


def false_finds(proofs: int, seed: int = 0) -> int:
    """How many of so many proofs of nothing find something."""
    found = ([c.verdict for c in proof(seed + i, {})] for i in range(proofs))
    return sum(any(verdict != "cannot tell" for verdict in verdicts) for verdicts in found)


def power(effects: Mapping[int, float], proofs: int, seed: int = 10_000) -> dict[int, float]:
    """The share of proofs that find true improvements of some probes, by the place of the probe."""
    found = [proof(seed + i, effects) for i in range(proofs)]
    return {place: sum(each[place].verdict == "better" for each in found) / proofs for place in effects}


def main(proofs: int) -> None:
    started = time.process_time()
    finds = false_finds(proofs)
    seconds = (time.process_time() - started) / proofs
    print(f"{finds} of {proofs} proofs of nothing found something: {finds / proofs:.1%}")
    print(f"{seconds:.2f} s of processor time a proof of {len(PROBES)} probes")
    for place, effect in ((1, 1.0), (3, 1.5), (5, 2.0), (6, 1.5), (8, 0.5), (11, 0.5), (12, 1.0)):
        share = power({place: effect}, max(20, proofs // 10))[place]
        print(f"an effect of {effect:g} on {PROBES[place][0]!r}: found in {share:.0%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
