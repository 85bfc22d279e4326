"""Resampling of whole clusters for numbers of which nothing is known but how to compute them.

Bootstrap: BCa (Efron 1987), its percentiles widened for few clusters (Hesterberg, arXiv 1411.5279) with the degrees
of freedom that the kurtosis of the jackknife leaves to the variance. Test: before and after swapped within clusters,
which is exact if the two are exchangeable; drawn until the answer is clear (Besag & Clifford 1991).
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qualm.auditing.stats import LEVEL, NORMAL, t_quantile
from qualm.probes.base import Columns

Estimate = Callable[[np.ndarray], float]  # (rows,) indices of rows, with repeats -> the number read off them

SEED = 0
DRAWS = 2_000
FEWEST_DRAWS = 0.8  # the share of resamples on which a number has to be defined
ENUMERATED = 12  # clusters up to which every swap is tried
SWAPS, CLEAR = 4_000, 100  # random swaps otherwise, and how many as extreme as the data make the answer clear
BATCH = 250


class Picked(Mapping[str, np.ndarray]):
    """Columns seen through row indices; a column is copied when it is asked for."""

    def __init__(self, columns: Columns, rows: np.ndarray):
        self.columns, self.rows = columns, rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name][self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True)
class Drawn:
    """A number on all rows, on resamples (sorted, only those on which it is defined) and without each cluster.

    `complete` is the share of resamples on which it is defined.
    """

    value: float
    draws: np.ndarray
    without: np.ndarray
    complete: float

    @property
    def se(self) -> float:
        groups = len(self.without)
        return float(self.draws.std(ddof=1)) * math.sqrt(groups / (groups - 1))

    @property
    def still(self) -> bool:
        """No resample gives anything else."""
        return float(np.ptp(self.draws)) <= 1e-12 * max(1.0, abs(self.value))

    @property
    def spread(self) -> float:
        """How far single clusters pull: the standard deviation of the jackknife's pseudo-values."""
        return float(self.without.std(ddof=1)) * (len(self.without) - 1)

    @property
    def df(self) -> float:
        return kurtosis_df(self.without - self.without.mean())

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        """BCa with widened percentiles."""
        groups, least = len(self.without), 1 / len(self.draws)
        pull = self.without.mean() - self.without
        size = float((pull**2).sum()) ** 1.5
        acceleration = float((pull**3).sum()) / (6 * size) if size else 0.0
        below = float((self.draws < self.value).mean() + (self.draws == self.value).mean() / 2)
        bias = NORMAL.inv_cdf(min(max(below, least), 1 - least))
        z = math.sqrt(groups / (groups - 1)) * t_quantile((1 + level) / 2, self.df)
        shares = [NORMAL.cdf(bias + (bias + side) / max(1 - acceleration * (bias + side), 0.1)) for side in (-z, z)]
        low, high = np.quantile(self.draws, shares)
        return min(float(low), self.value), max(float(high), self.value)


def kurtosis_df(pulls: np.ndarray) -> float:
    """Degrees of freedom of a variance estimated from `pulls` (G,), fewer where a few of them make most of it."""
    groups, square = len(pulls), float((pulls**2).mean())
    if square == 0:
        return groups - 1.0
    kurtosis = float((pulls**4).mean()) / square**2
    return min(groups - 1.0, 2 * groups / max(kurtosis - 1, 1e-9))


def rows_by_cluster(clusters: np.ndarray) -> list[np.ndarray]:
    """The row indices of each cluster, clusters in order of their names."""
    _, codes = np.unique(clusters, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def bootstrap(estimate: Estimate, clusters: np.ndarray, draws: int = DRAWS, seed: int = SEED) -> Drawn | None:
    """Resample clusters with replacement; None where the number is undefined on too many resamples."""
    members = rows_by_cluster(clusters)
    groups, every = len(members), np.concatenate(members)
    ends = np.cumsum([0, *map(len, members)])
    rng, drawn = np.random.default_rng(seed), []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 on an unlucky resample is dropped below
        value = float(estimate(every))
        without = [estimate(np.concatenate([every[:i], every[j:]])) for i, j in pairwise(ends)]
        for _ in range(draws):
            pick = rng.integers(groups, size=groups)
            alone = len(every) == groups
            drawn.append(estimate(every[pick] if alone else np.concatenate([members[i] for i in pick])))
    kept, left = _finite(drawn), _finite(without)
    complete = len(kept) / draws
    if complete < FEWEST_DRAWS or len(left) < FEWEST_DRAWS * groups or not math.isfinite(value):
        return None
    return Drawn(value, np.sort(kept), left, complete)


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.array(values, dtype=float)
    return array[np.isfinite(array)]


def swap_test(statistic: Callable[[np.ndarray], np.ndarray], groups: int, seed: int = SEED) -> float:
    """Two-sided p of a difference if before and after are exchangeable within each of `groups` clusters.

    `statistic` maps swaps (B, groups) of bool to the B differences they give; clusters in which nothing changed
    need not be counted, since swapping them does nothing.
    """
    if groups == 0:
        return 1.0
    observed = abs(float(statistic(np.zeros((1, groups), dtype=bool))[0]))
    least = observed - (1e-12 + 1e-9 * observed)

    def extreme(swaps: np.ndarray) -> np.ndarray:
        return ~(np.abs(statistic(swaps)) < least)  # an undefined difference counts against the finding

    if groups <= ENUMERATED:
        half = np.arange(2 ** (groups - 1))[:, None]  # the other half gives the same differences with the sign turned
        return float(extreme((half >> np.arange(groups)) % 2 == 1).mean())
    rng, hits = np.random.default_rng(seed), np.zeros(0, dtype=bool)
    while len(hits) < SWAPS:
        hits = np.concatenate([hits, extreme(rng.random((BATCH, groups)) < 0.5)])
        if hits.sum() >= CLEAR:
            return CLEAR / float(np.searchsorted(np.cumsum(hits), CLEAR) + 1)
    return (1 + float(hits.sum())) / (1 + len(hits))
