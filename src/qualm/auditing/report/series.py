"""What a probe shows beside its reading, read off its rows: secondary numbers, and the points of its own chart.

A probe asks for a chart by a class attribute, the kind and then the names of its axes:

- `chart = "dose:copies"`: mean "value" at each numeric "dose";
- `chart = "scatter:planted,measured"`: column "planted" against column "measured" (or "value"), with the correlation
  and slope over all rows; a third name is a column that must not be 0;
- `chart = "reliability"`: "confidence" (0..1) against the share of "right" in bins of equal mass.
"""

from collections import defaultdict
from collections.abc import Iterable
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from qualm.auditing.types import Measurement
from qualm.errors import UsageError
from qualm.probes.base import Columns

BINS = 10
MOST = 60  # points of a scatter; more are averaged by equal mass

Json = dict[str, Any]
Pairs = list[tuple[float, float]]


def columns(measurement: Measurement) -> Columns:
    """One array a number that every row has, over the rows that were read."""
    rows = [row for row in measurement.rows if row]
    names = [name for name in (rows[0] if rows else ()) if all(isinstance(row.get(name), Real) for row in rows)]
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def figures(measurement: Measurement) -> dict[str, float]:
    """The probe's secondary numbers, where it was measured and its rows are at hand."""
    if measurement.reading is None or not any(measurement.rows):
        return {}
    return {name: float(x) for name, x in measurement.probe.figures(columns(measurement)).items() if isfinite(x)}


def chart(measurement: Measurement) -> Json | None:
    """{"kind", "x", "y", "points": [{"x", "y", "n"}], ...}, or None if the probe has none or no row can be drawn."""
    kind, _, names = measurement.probe.chart.partition(":")
    if not kind:
        return None
    if kind not in KINDS:
        raise UsageError(f"no chart is named {kind!r}", where=measurement.name, then=f"there are: {', '.join(KINDS)}")
    return KINDS[kind](measurement, [name.strip() for name in names.split(",") if name.strip()])


def _dose(measurement: Measurement, names: list[str]) -> Json | None:
    pairs = _pairs(measurement, ("dose",), ("value",))
    if not pairs:
        return None
    unit = measurement.probe.unit
    x, y = (*names, *("dose", "value" if unit == "share" else unit)[len(names) :])
    return {"kind": "dose", "x": x, "y": y, "unit": unit, "points": _by_x(pairs)}


def _scatter(measurement: Measurement, names: list[str]) -> Json | None:
    x, y, *where = names
    pairs = _pairs(measurement, (x,), (y, "value"), where)
    points = _by_x(pairs)
    if len(points) < 2:
        return None
    xs, ys = np.array(pairs).T  # (n,), (n,)
    told = xs.std() > 0 and ys.std() > 0
    r = float(np.corrcoef(xs, ys)[0, 1]) if told else None
    slope = float(np.polyfit(xs, ys, 1)[0]) if told else None
    return {"kind": "scatter", "x": x, "y": y, "r": r, "slope": slope, "points": points}


def _reliability(measurement: Measurement, names: list[str]) -> Json | None:
    pairs = _pairs(measurement, ("confidence",), ("right", "value"))
    if not pairs:
        return None
    return {"kind": "reliability", "x": "confidence", "y": "right", "points": _bins(pairs, BINS)}


KINDS = {"dose": _dose, "scatter": _scatter, "reliability": _reliability}


def _pairs(measurement: Measurement, xs: Iterable[str], ys: Iterable[str], where: Iterable[str] = ()) -> Pairs:
    """The finite pairs of the rows that have both columns, each the first of its names that a row has."""
    found = ((_number(row, xs), _number(row, ys)) for row in measurement.rows if _number(row, where) != 0)
    return [(x, y) for x, y in found if x is not None and y is not None]


def _number(row: Any, names: Iterable[str]) -> float | None:
    value = next((row[name] for name in names if name in row), None)
    return float(value) if isinstance(value, Real) and isfinite(value) else None


def _by_x(pairs: Pairs) -> list[Json]:
    """The mean y at each x; too many different x are binned."""
    at: defaultdict[float, list[float]] = defaultdict(list)
    for x, y in pairs:
        at[x].append(y)
    if len(at) > MOST:
        return _bins(pairs, MOST)
    return [{"x": x, "y": float(np.mean(ys)), "n": len(ys)} for x, ys in sorted(at.items())]


def _bins(pairs: Pairs, bins: int) -> list[Json]:
    """Means over bins of equal mass in order of x; equal x never part."""
    x, y = np.array(pairs).T  # (n,), (n,)
    edges = np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, x, side="right")
    inside = [bin_of == b for b in np.unique(bin_of)]
    return [{"x": float(x[i].mean()), "y": float(y[i].mean()), "n": int(i.sum())} for i in inside]
