"""Statistics of proportions, tests and small samples, in closed form. Knows no probe and no model.

Sources: Wilson 1927; McNemar 1947 (exact, conditional); Holm 1979; Miller, arXiv 2411.00640 (cluster, pair, power);
Bowyer et al., arXiv 2503.01747 (why not the normal approximation).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

NORMAL = NormalDist()
LEVEL = 0.95
ALPHA, POWER = 0.05, 0.8
FEWEST_FLIPS = 6  # the fewest changes, all one way, that a two-sided sign test shows at 5 %: 2 / 2**6 < 0.05


def wilson(k: float, n: float, level: float = LEVEL, df: float = math.inf) -> tuple[float, float]:
    """The score interval of a proportion k / n; `n` may be an effective number, then with `df` of its variance."""
    z, p = t_quantile((1 + level) / 2, df), k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (0.0 if k == 0 else max(0.0, middle - half)), (1.0 if k == n else min(1.0, middle + half))


def zero_bound(n: float, level: float = LEVEL) -> float:
    """The largest share that n cases without one hit leave possible: one-sided and exact, 1 - (1 - level)**(1/n)."""
    return 1 - (1 - level) ** (1 / n)


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided p of `fixed` against `broken` if both were equally likely."""
    n = fixed + broken
    tail = sum(math.comb(n, i) for i in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in their own order (step-down, monotone)."""
    corrected, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = worst
    return corrected


def noninferior(low: float, high: float, better: str, margin: float) -> bool:
    """Whether a difference with the one-sided 95 % bounds `low` and `high` is no worsening by `margin` or more."""
    return low > -margin if better == "high" else high < margin


def detectable(se: float, df: float = math.inf) -> float:
    """The smallest true difference that is shown with 80 % power at the two-sided 5 %, given its standard error."""
    return (t_quantile(1 - ALPHA / 2, df) + t_quantile(POWER, df)) * se


@lru_cache
def detectable_flips(n: int) -> float | None:
    """The smallest share of n cases whose change, all one way, is shown with 80 % power; None if n is too small."""
    if n < FEWEST_FLIPS:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        q = (low + high) / 2
        missed = sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(FEWEST_FLIPS))
        low, high = (q, high) if 1 - missed < POWER else (low, q)
    return high


@lru_cache(4096)
def t_quantile(p: float, df: float = math.inf) -> float:
    """The p-quantile (0 < p < 1) of Student's t with `df` > 0 degrees of freedom, to 1e-9 of its size."""
    if math.isinf(df):
        return NORMAL.inv_cdf(p)
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 2.0
    while _t_cdf(high, df) < p:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, df: float) -> float:
    """P(T <= t) for t >= 0."""
    return 1 - 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (DLMF 8.17.22)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    value, c, d = 1.0, 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + step * d), 1 + step / c
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value
