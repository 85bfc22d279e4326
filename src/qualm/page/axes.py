"""Round ends and round ticks for an axis."""

from collections.abc import Sequence
from math import ceil, floor, log10


def step(span: float, about: int = 4) -> float:
    """1, 2 or 5 times a power of ten, so that `span` holds about so many."""
    rough = (span or 1.0) / about
    power = 10.0 ** floor(log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)


def ends(numbers: Sequence[float], share: bool) -> tuple[float, float]:
    """The ends of an axis that holds the numbers: 0..1 for shares, else round ones, with 0 where that costs little."""
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    if share:
        return min(0.0, floor(10 * low) / 10), max(1.0, ceil(10 * high) / 10)
    if low > 0 and low < 0.6 * high:
        low = 0.0
    if high < 0 and high > 0.6 * low:
        high = 0.0
    by = step(high - low or abs(high), 5)
    low_end, high_end = round(floor(low / by) * by, 12), round(ceil(high / by) * by, 12)
    return (low_end, high_end) if low_end < high_end else (low_end - by, high_end + by)


def reined(core: Sequence[float], wide: Sequence[float]) -> list[float]:
    """The core, and the wide numbers as far as half the core's span beyond it, so that one does not fill the axis."""
    low, high = min(core), max(core)
    room = (high - low) / 2 or abs(high) / 2 or 1.0
    return [*core, *(min(max(x, low - room), high + room) for x in wide)]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """The round numbers from low to high."""
    by = step(high - low, about)
    return [round(i * by, 12) for i in range(ceil(low / by - 1e-9), floor(high / by + 1e-9) + 1)]
