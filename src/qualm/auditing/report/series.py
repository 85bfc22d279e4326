"""The points of a probe's own chart, read off its rows.

A probe asks for a chart by a class attribute, the kind and then the names of its axes:

- `chart = "dose:copies"`: mean "value" at each "dose";
- `chart = "scatter:planted,measured"`: one column against another, with the correlation and slope over all rows;
  a third name is a column that must not be 0;
- `chart = "reliability"`: "confidence" (0..1) against the share of "right" in bins of equal mass.
"""

from typing import Any

import numpy as np

from qualm.auditing.intervals import interval
from qualm.auditing.readings import Table, table
from qualm.auditing.types import Measurement
from qualm.errors import UsageError

BINS = 10
MOST = 60  # points of a chart; more are averaged by equal mass

Json = dict[str, Any]


def chart(measurement: Measurement) -> Json | None:
    """{"kind", "x", "y", "points": [{"x", "y", "low", "high", "n"}], ...}, or None if there is nothing to draw."""
    kind, _, names = measurement.probe.chart.partition(":")
    if not kind:
        return None
    if kind not in KINDS:
        raise UsageError(f"no chart is named {kind!r}", where=measurement.name, then=f"there are: {', '.join(KINDS)}")
    read = table(measurement.cases, measurement.rows)
    return KINDS[kind](read, [name.strip() for name in names.split(",") if name.strip()], measurement.probe.unit)


def _dose(read: Table, names: list[str], unit: str) -> Json | None:
    if not {"dose", "value"} <= set(read.columns):
        return None
    x, y = (*names, *("dose", "value" if unit == "share" else unit)[len(names) :])
    return {"kind": "dose", "x": x, "y": y, "unit": unit, "points": _points(read, "dose", "value")}


def _scatter(read: Table, names: list[str], unit: str) -> Json | None:
    if not set(names) <= set(read.columns):
        return None
    x, y, *where = names
    kept = read.where(np.all([read.columns[name] != 0 for name in where], axis=0)) if where else read
    points = _points(kept, x, y)
    if len(points) < 2:
        return None
    xs, ys = kept.columns[x], kept.columns[y]
    told = xs.std() > 0 and ys.std() > 0
    r = float(np.corrcoef(xs, ys)[0, 1]) if told else None
    slope = float(np.polyfit(xs, ys, 1)[0]) if told else None
    return {"kind": "scatter", "x": x, "y": y, "r": r, "slope": slope, "points": points}


def _reliability(read: Table, names: list[str], unit: str) -> Json | None:
    if not {"confidence", "right"} <= set(read.columns):
        return None
    points = _points(read, "confidence", "right", BINS)
    return {"kind": "reliability", "x": "confidence", "y": "right", "points": points}


KINDS = {"dose": _dose, "scatter": _scatter, "reliability": _reliability}


def _points(read: Table, x: str, y: str, bins: int = 0) -> list[Json]:
    """The mean y at each x, or in bins of equal mass if asked for or if the x are too many; equal x never part."""
    values = read.columns[x]  # (n,)
    places = np.unique(values)
    if bins or len(places) > MOST:
        edges = np.quantile(values, np.linspace(0, 1, (bins or MOST) + 1)[1:-1])
        which = np.searchsorted(edges, values, side="right")
    else:
        which = np.searchsorted(places, values)
    return [_point(read.where(which == one), x, y) for one in np.unique(which)]


def _point(read: Table, x: str, y: str) -> Json:
    found = interval({"value": read.columns[y]}, read.clusters)
    low, high = found.bounds() if found else (None, None)
    n = len(read.clusters)
    return {"x": float(read.columns[x].mean()), "y": float(read.columns[y].mean()), "low": low, "high": high, "n": n}
