"""How often do the 95 % intervals hold the truth? Simulated on rows like those that probes give.

    python benchmarks/coverage.py [repetitions]

Prints a table: what was simulated, the method that was chosen, the coverage, the misses on either side, and the mean
width. With R repetitions the coverage itself is known to about 2 * 22 / sqrt(R) points.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from qualm.auditing.intervals import Compared, compare, interval
from qualm.auditing.stats import NORMAL

CHEAP = 10
RNG = np.random.Generator
Made = tuple[dict[str, np.ndarray], np.ndarray]  # columns, clusters


@dataclass(frozen=True)
class Scenario:
    """`make` draws rows (and `after`, if given, the rows of the same cases after), of which the truth is known."""

    name: str
    truth: float
    make: Callable[[RNG], tuple]
    reduce: Callable | None = None
    paired: bool = False

    def cover(self, repetitions: int, seed: int = 0, draws: int = 600) -> "Coverage":
        rng, low, high, methods = np.random.default_rng(seed), [], [], set()
        for _ in range(repetitions):
            made = self.make(rng)
            found = (compare if self.paired else interval)(*made, self.reduce, draws=draws)
            estimate = found.estimate if isinstance(found, Compared) else found
            bounds = estimate.bounds()
            low.append(bounds[0])
            high.append(bounds[1])
            methods.add(estimate.method)
        lows, highs = np.array(low), np.array(high)
        above, below = float((lows > self.truth).mean()), float((highs < self.truth).mean())
        return Coverage(
            self.name, "/".join(sorted(methods)), 1 - above - below, above, below, float((highs - lows).mean())
        )


@dataclass(frozen=True)
class Coverage:
    name: str
    method: str
    share: float
    above: float  # the share of intervals that lie above the truth
    below: float
    width: float

    def __str__(self) -> str:
        misses = f"{self.above:5.1%} {self.below:5.1%}"
        return f"{self.name:52} {self.method:12} {self.share:6.1%}  {misses}  {self.width:.4f}"


def proportion(rng: RNG, n: int, p: float) -> Made:
    return {"value": (rng.random(n) < p).astype(float)}, np.arange(n)


def _cluster_rates(rng: RNG, groups: int, p: float, icc: float) -> np.ndarray:
    return rng.beta(p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc, groups)


def clustered_proportion(rng: RNG, shape: tuple[int, int], p: float, icc: float) -> Made:
    clusters = np.repeat(np.arange(shape[0]), shape[1])
    return {
        "value": (rng.random(len(clusters)) < _cluster_rates(rng, shape[0], p, icc)[clusters]).astype(float)
    }, clusters


def uneven_proportion(rng: RNG, groups: int, p: float, icc: float) -> Made:
    clusters = np.repeat(np.arange(groups), rng.integers(2, 31, groups))
    return {
        "value": (rng.random(len(clusters)) < _cluster_rates(rng, groups, p, icc)[clusters]).astype(float)
    }, clusters


def continuous(rng: RNG, shape: tuple[int, int], skew: float) -> Made:
    """Log-normal cluster effects times log-normal cases, of mean 1."""
    clusters = np.repeat(np.arange(shape[0]), shape[1])
    pull = np.exp(rng.normal(-(skew**2) / 2, skew, shape[0]))
    return {"value": pull[clusters] * np.exp(rng.normal(-0.045, 0.3, len(clusters)))}, clusters


def documents(rng: RNG, n: int, lengths: float, rates: float) -> Made:
    size = np.exp(rng.normal(5, lengths, n))
    return {"bytes": size, "nats": size * math.log(2) * np.exp(rng.normal(-(rates**2) / 2, rates, n))}, np.arange(n)


def bits_per_byte(columns) -> float:
    return float(columns["nats"].sum() / columns["bytes"].sum() / math.log(2))


def scored(rng: RNG, shape: tuple[int, int], shift: float) -> Made:
    """Right and wrong answers with scores `shift` apart; clusters (of more than one) share a part of the score."""
    clusters = np.repeat(np.arange(shape[0]), shape[1])
    right = rng.random(len(clusters)) < 0.5
    shared = rng.normal(0, 0.4, shape[0])[clusters] if shape[1] > 1 else 0.0
    return {"right": right.astype(float), "score": rng.normal(0, 1, len(clusters)) + shift * right + shared}, clusters


def auroc(columns) -> float:
    """Of scores without ties; NaN where all are right, or all wrong."""
    right = columns["right"] == 1
    ones = int(right.sum())
    below = int(right[columns["score"].argsort()].nonzero()[0].sum()) - ones * (ones - 1) // 2
    return below / (ones * (len(right) - ones)) if 0 < ones < len(right) else math.nan


def correlated(rng: RNG, n: int) -> Made:
    x = rng.normal(0, 1, n)
    return {"x": x, "y": 0.5 * x + math.sqrt(0.75) * rng.normal(0, 1, n)}, np.arange(n)


def correlation(columns) -> float:
    return float(np.corrcoef(columns["x"], columns["y"])[0, 1])


def slow_tail(rng: RNG, n: int) -> Made:
    return {"seconds": rng.exponential(1, n)}, np.arange(n)


def median(columns) -> float:
    return float(np.median(columns["seconds"]))


def told(rng: RNG, n: int, p: float) -> Made:
    """A mean over the part of the rows that counts; the rest are controls."""
    return {"value": (rng.random(n) < p).astype(float), "counts": (rng.random(n) < 0.6).astype(float)}, np.arange(n)


def mean_of_told(columns) -> float:
    return float(columns["value"][columns["counts"] == 1].mean())


def flips(rng: RNG, n: int, fixed: float, broken: float):
    change = rng.choice([1, -1, 0], n, p=[fixed, broken, 1 - fixed - broken])
    before = np.where(change == 1, 0, np.where(change == -1, 1, rng.random(n) < 0.7)).astype(float)
    return {"value": before}, {"value": before + change}, np.arange(n)


def clustered_flips(rng: RNG, shape: tuple[int, int], fixed: float, broken: float):
    clusters, icc = np.repeat(np.arange(shape[0]), shape[1]), 0.1
    odds = rng.dirichlet(np.array([fixed, broken, 1 - fixed - broken]) * (1 - icc) / icc, shape[0])[clusters]
    draw = rng.random(len(clusters))
    change = np.where(draw < odds[:, 0], 1, np.where(draw < odds[:, :2].sum(1), -1, 0))
    before = np.where(change == 1, 0, np.where(change == -1, 1, rng.random(len(clusters)) < 0.7)).astype(float)
    return {"value": before}, {"value": before + change}, clusters


def paired_continuous(rng: RNG, shape: tuple[int, int], change: float):
    columns, clusters = continuous(rng, shape, 0.5)
    moved = change + rng.normal(0, 0.1, shape[0])[clusters] + rng.exponential(0.2, len(clusters)) - 0.2
    return columns, {"value": columns["value"] + moved}, clusters


def paired_documents(rng: RNG, n: int, change: float):
    columns, clusters = documents(rng, n, 0.5, 0.3)
    extra = columns["bytes"] * math.log(2) * (change + rng.normal(0, 0.1, n))
    return columns, {**columns, "nats": columns["nats"] + extra}, clusters


def paired_auroc(rng: RNG, n: int, shift: float):
    columns, clusters = scored(rng, (n, 1), shift)
    return columns, {**columns, "score": columns["score"] + rng.normal(0, 0.5, n)}, clusters


def scenarios() -> list[Scenario]:
    listed = [
        Scenario(f"share {p:g}, n={n}", p, partial(proportion, n=n, p=p))
        for p in (0.5, 0.9, 0.95)
        for n in (30, 60, 100, 150, 300)
    ]
    listed += [
        Scenario(
            f"share {p:g}, {groups}x20, ICC {icc:g}", p, partial(clustered_proportion, shape=(groups, 20), p=p, icc=icc)
        )
        for groups in (20, 40)
        for p, icc in ((0.5, 0.1), (0.8, 0.2), (0.9, 0.05), (0.9, 0.1), (0.95, 0.1))
    ]
    listed += [
        Scenario("share 0.8, 40 of 2..30, ICC 0.1", 0.8, partial(uneven_proportion, groups=40, p=0.8, icc=0.1)),
        Scenario("share 0.9, 75x2, ICC 0.3", 0.9, partial(clustered_proportion, shape=(75, 2), p=0.9, icc=0.3)),
        Scenario("share 0.9 over 60 % of n=150 (custom)", 0.9, partial(told, n=150, p=0.9), mean_of_told),
    ]
    listed += [
        Scenario(f"mean, {a}x{b}, skewed {skew:g}", 1.0, partial(continuous, shape=(a, b), skew=skew))
        for a, b, skew in ((20, 20, 0.3), (20, 20, 0.5), (40, 20, 0.5), (150, 1, 0.5), (150, 1, 0.8))
    ]
    listed += [
        Scenario("bits per byte, n=40", 1.0, partial(documents, n=40, lengths=0.4, rates=0.25), bits_per_byte),
        Scenario("bits per byte, n=150", 1.0, partial(documents, n=150, lengths=0.5, rates=0.3), bits_per_byte),
        Scenario("AUROC .76, n=80", NORMAL.cdf(1 / math.sqrt(2)), partial(scored, shape=(80, 1), shift=1.0), auroc),
        Scenario("AUROC .92, n=150", NORMAL.cdf(2 / math.sqrt(2)), partial(scored, shape=(150, 1), shift=2.0), auroc),
        Scenario("AUROC .74, 20x8", NORMAL.cdf(1 / math.sqrt(2.32)), partial(scored, shape=(20, 8), shift=1.0), auroc),
        Scenario("correlation .5, n=60 (custom)", 0.5, partial(correlated, n=60), correlation),
        Scenario("median, n=60 (custom)", math.log(2), partial(slow_tail, n=60), median),
    ]
    return listed + _paired()


def _paired() -> list[Scenario]:
    cdf, root = NORMAL.cdf, math.sqrt(2)
    shift = cdf(1 / math.sqrt(2 * 1.25)) - cdf(1 / root)  # noise of variance 1/4 comes on top of the score
    return [
        *(
            Scenario(f"change +{f:g} -{b:g}, n={n}", f - b, partial(flips, n=n, fixed=f, broken=b), paired=True)
            for n, f, b in ((60, 0.1, 0.05), (150, 0.05, 0.05), (150, 0.1, 0.02), (150, 0.3, 0.02), (300, 0.05, 0.02))
        ),
        *(
            Scenario(
                f"change +{f:g} -{b:g}, {groups}x20, ICC 0.1",
                f - b,
                partial(clustered_flips, shape=(groups, 20), fixed=f, broken=b),
                paired=True,
            )
            for groups, f, b in ((20, 0.1, 0.05), (40, 0.1, 0.05), (20, 0.3, 0.05))
        ),
        Scenario("change of a mean, n=150", 0.0, partial(paired_continuous, shape=(150, 1), change=0.0), paired=True),
        Scenario("change of a mean, 20x20", 0.0, partial(paired_continuous, shape=(20, 20), change=0.0), paired=True),
        Scenario(
            "change of bits per byte, n=150", 0.0, partial(paired_documents, n=150, change=0.0), bits_per_byte, True
        ),
        Scenario("change of AUROC, n=150", shift, partial(paired_auroc, n=150, shift=1.0), auroc, True),
    ]


def main(repetitions: int) -> None:
    print(f"{'what':52} {'method':12} covers  above below  width")
    started = time.process_time()
    for scenario in scenarios():
        closed = scenario.reduce is None  # and so a hundred times faster
        print(scenario.cover(repetitions * (CHEAP if closed else 1)), flush=True)
    print(f"{repetitions} repetitions, {CHEAP} times as many of closed forms; {time.process_time() - started:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
