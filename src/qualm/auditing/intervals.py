"""Intervals and tests of what a probe reads, on one model and of the difference between two.

The method follows from the rows. A mean of 0s and 1s: Wilson, with an effective number of cases when they come in
clusters. A mean of changes by -1, 0 or 1: the adjusted Wald interval of Bonett & Price 2012, with half a case added to
each side. Any other mean: Hall's 1992 transformation of t for skewness, over clusters. Anything else: the bootstrap
over clusters. Where nothing varies, the exact bound on what n cases without one hit leave possible; a width of zero is
given only to what is a constant. Coverage is simulated in benchmarks/coverage.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qualm.auditing import stats
from qualm.auditing.resample import DRAWS, Drawn, Picked, bootstrap, kurtosis_df, rows_by_cluster, swap_test
from qualm.auditing.stats import LEVEL, t_quantile, wilson, zero_bound
from qualm.probes.base import Columns

Reduce = Callable[[Columns], float]
BITS, SIGNS = frozenset({0.0, 1.0}), frozenset({-1.0, 0.0, 1.0})
DEPENDENCE = 0.25  # weight, in clusters, of the prior guess that a cluster's cases all go the same way


@dataclass(frozen=True)
class Estimate(ABC):
    """A number, the cases and clusters it rests on, and how sure it is."""

    value: float
    n: int
    groups: int
    method: ClassVar[str]

    @abstractmethod
    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided interval; it always holds `value`."""

    @abstractmethod
    def detectable(self) -> float | None:
        """For a difference: the smallest true one shown with 80 % power at 5 %; None if these are too few cases."""


@dataclass(frozen=True)
class Share(Estimate):
    """A proportion; `effective` cases, and the degrees of freedom with which their number is known."""

    effective: float
    df: float
    method = "wilson"

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        return wilson(self.value * self.effective, self.effective, level, self.df)

    def detectable(self) -> float | None:
        se = math.sqrt(self.value * (1 - self.value) / self.effective)
        return stats.detectable(se, self.df)


@dataclass(frozen=True)
class Signed(Estimate):
    """The mean of values -1, 0 and 1, of which the shares `up` and `down` are 1 and -1."""

    up: float
    down: float
    effective: float
    df: float
    method = "wald"

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        if max(self.up, self.down, 1 - self.up - self.down) == 1:
            gap = zero_bound(self.effective, (1 + level) / 2)
            return max(-1.0, self.value - gap), min(1.0, self.value + gap)
        middle, se = self._adjusted()
        half = t_quantile((1 + level) / 2, self.df) * se
        return max(-1.0, min(middle - half, self.value)), min(1.0, max(middle + half, self.value))

    def _adjusted(self) -> tuple[float, float]:
        size = self.effective + 1
        up, down = (self.up * self.effective + 0.5) / size, (self.down * self.effective + 0.5) / size
        return up - down, math.sqrt((up + down - (up - down) ** 2) / size)

    def detectable(self) -> float | None:
        flips = stats.detectable_flips(self.groups)
        if flips is None:
            return None
        if self.up + self.down == 0:
            return flips
        found = stats.detectable(self._adjusted()[1], self.df)
        return max(found, flips) if self.groups == self.n else found


@dataclass(frozen=True)
class Mean(Estimate):
    """A mean over clusters with its standard error, the skewness of that, and the range it cannot leave."""

    se: float
    skew: float
    df: float
    least: float = -math.inf
    most: float = math.inf
    method = "t"

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        t = t_quantile((1 + level) / 2, self.df)
        low, high = self.value - self.se * self._untransform(t), self.value - self.se * self._untransform(-t)
        return max(self.least, min(low, self.value)), min(self.most, max(high, self.value))

    def _untransform(self, t: float) -> float:
        """The inverse of Hall's g(t) = t + a/3 t^2 + a^2/27 t^3 + a/6, a the skewness of the mean."""
        a = self.skew
        return t if abs(a) < 1e-6 else 3 / a * (math.cbrt(1 + a * (t - a / 6)) - 1)

    def detectable(self) -> float | None:
        return stats.detectable(self.se, self.df) if self.groups >= stats.FEWEST_FLIPS else None


@dataclass(frozen=True)
class Resampled(Estimate):
    """A number known by its bootstrap."""

    drawn: Drawn
    method = "bootstrap"

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        return self.drawn.bounds(level)

    def detectable(self) -> float | None:
        return stats.detectable(self.drawn.se, self.drawn.df) if self.groups >= stats.FEWEST_FLIPS else None


@dataclass(frozen=True)
class Still(Estimate):
    """A difference of which no case shows any; `spread` is what one case can be expected to move."""

    spread: float
    method = "exact"

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        gap = self.spread * zero_bound(self.groups, (1 + level) / 2)
        return self.value - gap, self.value + gap

    def detectable(self) -> float | None:
        flips = stats.detectable_flips(self.groups)
        return None if flips is None else flips * self.spread


@dataclass(frozen=True)
class Compared:
    """A paired difference, after - before, with its two-sided p-value and the test that gave it."""

    estimate: Estimate
    p: float
    test: str


def interval(
    columns: Columns, clusters: np.ndarray, reduce: Reduce | None = None, *, share: bool = True, draws: int = DRAWS
) -> Estimate | None:
    """What is read off the rows (`reduce`; None is the mean of "value"), and how sure it is.

    `clusters` (n,) names the cluster of each row. `share`: a reading of 0 or 1 is one of shares, which other cases
    could have moved, and no constant. None if the number is undefined on these rows or on too many
    resamples of them, or if it rests on fewer than two clusters.
    """
    whole: Reduce = reduce or _plain_mean
    among = averaged(columns, reduce)
    if among is not None:
        return _mean(columns["value"][among], clusters[among], share) if _several(clusters[among]) else None
    drawn = bootstrap(lambda rows: whole(Picked(columns, rows)), clusters, draws) if _several(clusters) else None
    if drawn is None:
        return None
    n, groups = len(clusters), len(np.unique(clusters))
    if drawn.still:
        if share and drawn.value in BITS:
            return Share(drawn.value, n, groups, groups, math.inf)
        return Still(drawn.value, n, groups, 0.0)
    return Resampled(drawn.value, n, groups, drawn)


def compare(
    before: Columns,
    after: Columns,
    clusters: np.ndarray,
    reduce: Reduce | None = None,
    *,
    share: bool = True,
    draws: int = DRAWS,
) -> Compared | None:
    """The paired difference after - before; row i of both is the same case. None as for `interval`."""
    if not _several(clusters):
        return None
    among, still_among = averaged(before, reduce), averaged(after, reduce)
    if among is not None and still_among is not None and np.array_equal(among, still_among):
        kept = clusters[among]
        return _compare_means(before["value"][among], after["value"][among], kept, share) if _several(kept) else None
    whole: Reduce = reduce or _plain_mean

    def difference(rows: np.ndarray) -> float:
        return whole(Picked(after, rows)) - whole(Picked(before, rows))

    drawn = bootstrap(difference, clusters, draws)
    if drawn is None:
        return None
    n, groups = len(clusters), len(np.unique(clusters))
    estimate: Estimate = Resampled(drawn.value, n, groups, drawn)
    if drawn.still:
        alone = bootstrap(lambda rows: whole(Picked(before, rows)), clusters) if drawn.value == 0 else None
        estimate = Still(drawn.value, n, groups, alone.spread if alone else 0.0)
    return Compared(estimate, _swap_columns(before, after, clusters, whole), "permutation")


def _plain_mean(columns: Columns) -> float:
    return float(columns["value"].mean())


def _several(clusters: np.ndarray) -> bool:
    return len(np.unique(clusters)) > 1


def averaged(columns: Columns, reduce: Reduce | None) -> np.ndarray | None:
    """The rows (n,) of bool whose plain mean of "value" a probe reads; None if it reads anything else.

    Found by putting other values in and looking whether each counts either not at all or as much as the rest.
    """
    n = len(next(iter(columns.values())))
    if reduce is None:
        return np.ones(n, dtype=bool)
    if "value" not in columns:
        return None

    def read(values: np.ndarray) -> float:
        return float(reduce({**columns, "value": values}))

    with np.errstate(all="ignore"):
        trials = np.random.default_rng(0).normal(size=(2, n))
        one, two, both = read(trials[0]), read(trials[1]), read(trials.sum(0))
        if one == two or not math.isclose(one + two, both, rel_tol=1e-9, abs_tol=1e-12):
            return None
        unit, weights = np.zeros(n), np.zeros(n)
        for i in range(n):
            unit[i] = 1
            weights[i] = read(unit)
            unit[i] = 0
    among = weights != 0
    plain = np.allclose(weights[among] * among.sum(), 1, rtol=1e-9) and math.isclose(
        one, trials[0][among].mean(), rel_tol=1e-6
    )
    return among if plain else None


def _mean(values: np.ndarray, clusters: np.ndarray, share: bool) -> Estimate:
    """The estimate of a mean of `values` (n,)."""
    n, groups, kinds = len(values), len(np.unique(clusters)), set(np.unique(values))
    counted = share or len(kinds) > 1
    if counted and kinds <= BITS:
        value = float(values.mean())
        if groups == n:
            return Share(value, n, groups, n, math.inf)
        effective = _effective(value * (1 - value), values, clusters, DEPENDENCE)
        return Share(value, n, groups, effective, groups - 1.0)
    if counted and kinds <= SIGNS:
        return _signed(values, clusters)
    pulls = _pulls(values, clusters)
    inside = bool(values.min() >= 0 and values.max() <= 1)
    return _from_pulls(values, groups, pulls, (0.0, 1.0) if inside else (-math.inf, math.inf))


def _compare_means(before: np.ndarray, after: np.ndarray, clusters: np.ndarray, share: bool) -> Compared:
    moved = after - before
    n, groups = len(moved), len(np.unique(clusters))
    kinds = set(np.unique([before, after]))
    binary = kinds <= BITS and (share or len(kinds) > 1)
    estimate: Estimate
    if binary:
        estimate = _signed(moved, clusters)
    elif not moved.any():
        estimate = Still(0.0, n, groups, math.sqrt(groups) * _standard_error(_pulls(before, clusters)))
    else:
        estimate = _from_pulls(moved, groups, _pulls(moved, clusters), (-math.inf, math.inf))
    if binary and groups == n:
        return Compared(estimate, stats.mcnemar_exact(int((moved > 0).sum()), int((moved < 0).sum())), "mcnemar")
    sums = np.array([moved[rows].sum() for rows in rows_by_cluster(clusters)])
    sums = sums[sums != 0]
    return Compared(estimate, swap_test(lambda swaps: (1 - 2.0 * swaps) @ sums, len(sums)), "permutation")


def _signed(values: np.ndarray, clusters: np.ndarray) -> Signed:
    n, groups = len(values), len(np.unique(clusters))
    up, down = float((values > 0).mean()), float((values < 0).mean())
    if groups == n:
        return Signed(up - down, n, groups, up, down, n, math.inf)
    effective = _effective(up + down - (up - down) ** 2, values, clusters, 0.0)
    return Signed(up - down, n, groups, up, down, effective, groups - 1.0)


def _from_pulls(values: np.ndarray, groups: int, pulls: np.ndarray, inside: tuple[float, float]) -> Estimate:
    """A mean from the pulls (G,) of its clusters; a constant if they do not differ."""
    value, se = float(values.mean()), _standard_error(pulls)
    if se <= 1e-12 * abs(value):
        return Still(value, len(values), groups, 0.0)
    around = pulls - pulls.mean()
    skew = float((around**3).mean() / (around**2).mean() ** 1.5) / math.sqrt(groups)
    return Mean(value, len(values), groups, se, skew, kurtosis_df(around), *inside)


def _pulls(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """How far each cluster (G,) pulls the mean of `values`, over the root of 1 - leverage (Bell & McCaffrey's CR2)."""
    members = rows_by_cluster(clusters)
    sizes = np.array([len(rows) for rows in members])
    sums = np.array([values[rows].sum() for rows in members])
    share = sizes / sizes.sum()
    return (sums / sizes.sum() - values.mean() * share) / np.sqrt(1 - share)


def _standard_error(pulls: np.ndarray) -> float:
    return math.sqrt(float((pulls**2).sum()))


def _effective(variance: float, values: np.ndarray, clusters: np.ndarray, prior: float) -> float:
    """How many independent cases the clustered `values` are worth: at least as if each cluster went one way.

    `variance` is that of one case; `prior` clusters' worth of full dependence is mixed into what the clusters show.
    """
    _, sizes = np.unique(clusters, return_counts=True)
    n, groups = sizes.sum(), len(sizes)
    fewest = float(n**2 / (sizes**2).sum())
    seen = _standard_error(_pulls(values, clusters)) ** 2
    mixed = (seen * (groups - 1) + prior * variance / fewest) / (groups - 1 + prior)
    return float(np.clip(variance / mixed, fewest, n)) if variance > 0 and mixed > 0 else fewest


def _swap_columns(before: Columns, after: Columns, clusters: np.ndarray, reduce: Reduce) -> float:
    """The swap test of a difference of numbers that only `reduce` can compute."""
    shared = [name for name in before if name in after]
    both = {name: np.concatenate([before[name], after[name]]) for name in shared}
    changed = np.any([before[name] != after[name] for name in shared], axis=0)
    _, codes = np.unique(clusters, return_inverse=True)
    moving = np.unique(codes[changed])
    place = np.full(codes.max() + 1, -1)
    place[moving] = np.arange(len(moving))
    rows, n = place[codes], len(codes)  # (n,) which swap each row follows, -1 for none

    def statistic(swaps: np.ndarray) -> np.ndarray:
        found = []
        for swap in swaps:
            turned = np.where(rows >= 0, swap[rows], False)
            first = np.arange(n) + n * turned
            last = np.arange(n) + n * ~turned
            found.append(reduce(Picked(both, last)) - reduce(Picked(both, first)))
        return np.array(found)

    with np.errstate(all="ignore"):
        return swap_test(statistic, len(moving))
