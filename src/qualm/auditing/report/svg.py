"""Charts as static SVG. Strips stretch with their column (x in percent); plots have a fixed shape."""

from collections.abc import Callable
from math import log2
from typing import Any

from qualm.page.axes import ends, reined, ticks
from qualm.page.figures import figure
from qualm.page.markup import Html, h

Json = dict[str, Any]

HEIGHT = 26  # pixels of a strip
WIDTH, TALL = 360, 250  # of a plot, in its own units
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 30, 40


def glyph(state: str) -> Html:
    """The shape of a verdict: tick in a disc, cross in a square, empty ring, dash; dotted or hollow if harmless."""
    kind, name = state.removesuffix(" harmless").replace(" ", "-"), state.replace(" ", "-")
    use = h("use", {"href": f"#glyph-{name}"})
    return h("svg", {"class": f"glyph {kind}", "aria-hidden": "true", "viewBox": "0 0 16 16"}, use)


def glyphs() -> Html:
    """The shapes themselves, once a page."""
    shapes = {
        "better": (
            h("circle", {"cx": 8, "cy": 8, "r": 7}),
            h("path", {"class": "mark", "d": "M4.6 8.3l2.4 2.4 4.4-5"}),
        ),
        "worse": (
            h("rect", {"x": 1.5, "y": 1.5, "width": 13, "height": 13, "rx": 2}),
            h("path", {"class": "mark", "d": "M5.2 5.2l5.6 5.6m0-5.6l-5.6 5.6"}),
        ),
        "worse-harmless": (
            h("rect", {"class": "open", "x": 2, "y": 2, "width": 12, "height": 12, "rx": 2}),
            h("path", {"class": "open", "d": "M5.6 5.6l4.8 4.8m0-4.8l-4.8 4.8"}),
        ),
        "cannot-tell": (h("circle", {"class": "open", "cx": 8, "cy": 8, "r": 6}),),
        "cannot-tell-harmless": (
            h("circle", {"class": "open", "cx": 8, "cy": 8, "r": 6}),
            h("circle", {"cx": 8, "cy": 8, "r": 2.5}),
        ),
        "not-measured": (h("path", {"class": "open", "d": "M3 8h10"}),),
    }
    symbols = [h("symbol", {"id": f"glyph-{name}", "viewBox": "0 0 16 16"}, *shape) for name, shape in shapes.items()]
    return h("svg", {"class": "glyphs", "aria-hidden": "true", "width": 0, "height": 0}, symbols)


def _strip(label: str, *children: Html | None, height: int = HEIGHT) -> Html:
    return h("svg", {"class": "strip", "role": "img", "aria-label": label, "height": height, "width": "100%"}, children)


def _place(low: float, high: float) -> Callable[[float], str]:
    """From a value to an x in percent, kept within the strip."""
    return lambda value: f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"


def _line(kind: str, x1: str, x2: str, y1: float, y2: float) -> Html:
    return h("line", {"class": kind, "x1": x1, "x2": x2, "y1": y1, "y2": y2})


def _grid(scale: list[float], share: bool, height: int) -> list[Html]:
    at = _place(*scale)
    marks = [0, 0.25, 0.5, 0.75, 1] if share and scale == [0, 1] else scale
    upright = [_line("grid", at(x), at(x), 2, height - 2) for x in marks]
    return [_line("grid", "0%", "100%", height / 2, height / 2), *upright]


def whisker(reading: Json, scale: list[float], unit: str, label: str, chance: float | None = None) -> Html:
    """A reading on its axis: a dot in its interval, and a broken mark where a model that knows nothing would be."""
    at, middle = _place(*scale), HEIGHT / 2
    low, high = reading["low"], reading["high"]
    return _strip(
        label,
        *_grid(scale, unit == "share", HEIGHT),
        None if chance is None else _line("chance", at(chance), at(chance), 1, HEIGHT - 1),
        None if low is None or high is None else _line("interval", at(low), at(high), middle, middle),
        h("circle", {"class": "dot", "cx": at(reading["value"]), "cy": middle, "r": 5}),
    )


def dumbbell(change: Json, label: str) -> Html:
    """Before as a ring, after as a disc, both with their intervals, on the axis of the probe."""
    at, kind = _place(*change["scale"]), change["verdict"].replace(" ", "-")
    before, after = change["before"], change["after"]
    old, new = at(before["value"]), at(after["value"])
    whiskers = [
        _line(f"thin {kind_}", at(r["low"]), at(r["high"]), y, y)
        for r, y, kind_ in ((before, 7, "before"), (after, 23, kind))
        if r["low"] is not None and r["high"] is not None
    ]
    return _strip(
        label,
        *_grid(change["scale"], change["unit"] == "share", 30),
        *whiskers,
        _line(f"bar {kind}", old, new, 7, 23),
        h("circle", {"class": "ring", "cx": old, "cy": 7, "r": 4.5}),
        h("circle", {"class": f"dot {kind}", "cx": new, "cy": 23, "r": 5}),
        height=30,
    )


def delta(change: Json, reach: float, label: str) -> Html:
    """The difference and its interval around 0, the good side always to the right; the margin shaded."""
    sign = 1 if change["better"] == "high" else -1
    at, kind, middle = _place(-reach, reach), change["verdict"].replace(" ", "-"), 15
    known = change["low"] is not None and change["high"] is not None
    low, high = sorted((sign * change["low"], sign * change["high"])) if known else (0.0, 0.0)
    left, right = max(-reach, -change["margin"]), min(reach, change["margin"])
    band = {"x": at(left), "width": f"{50 * (right - left) / reach:.2f}%", "y": 3, "height": 24, "class": "margin"}
    return _strip(
        label,
        h("rect", band),
        _line("grid", "0%", "100%", middle, middle),
        _line("zero", at(0), at(0), 0, 30),
        _line(f"interval {kind}", at(low), at(high), middle, middle) if known else None,
        h("circle", {"class": f"dot {kind}", "cx": at(sign * change["difference"]), "cy": middle, "r": 5}),
        height=30,
    )


def bar(counts: Json, words: tuple[str, ...], label: str) -> Html:
    """Counts as one bar of shares, in the order of the words."""
    total, x, pieces = sum(counts[word] for word in words) or 1, 0.0, []
    for word in words:
        width = 100 * counts[word] / total
        kind = word.replace(" ", "-")
        pieces.append(h("rect", {"class": f"piece {kind}", "x": f"{x:.2f}%", "width": f"{width:.2f}%", "height": 10}))
        x += width
    return _strip(label, *pieces, height=10)


def plot(series: list[Json], label: str) -> Html:
    """A dose, scatter or reliability chart; of two series the first is before, the second after."""
    first, points = series[0], [point for one in series for point in one["points"]]
    xs, ys = [p["x"] for p in points], [p["y"] for p in points]
    if first["kind"] != "scatter":
        ys = reined(ys, [p[k] for p in points for k in ("low", "high") if p[k] is not None])
    if first["kind"] == "reliability":
        x_axis, y_axis = _axis([0, 1], True), _axis([0, 1], True)
    else:
        x_axis = _doses(xs) if first["kind"] == "dose" else _axis(xs, False)
        y_axis = _axis(ys, first.get("unit") == "share")
    across, up = x_axis[0], y_axis[0]
    inside = [_frame(x_axis, y_axis, first)]
    if first["kind"] == "reliability":
        inside.append(_segment("ideal", (across(0), up(0)), (across(1), up(1))))
    for i, one in enumerate(series):
        kind = "before" if len(series) == 2 and i == 0 else "after"
        inside.append(_marks(one, kind, across, up))
    return h("svg", {"class": "plot", "role": "img", "aria-label": label, "viewBox": f"0 0 {WIDTH} {TALL}"}, inside)


Axis = tuple[Callable[[float], float], list[tuple[float, str]]]  # value -> 0..1, and the ticks with their text


def _axis(values: list[float], share: bool) -> Axis:
    low, high = ends(values, share)
    marks = ticks(low, high)
    texts = [figure(mark, "share" if share else "", _decimals(marks, share)) for mark in marks]
    return (lambda v: (v - low) / (high - low)), list(zip(marks, texts, strict=True))


def _decimals(marks: list[float], share: bool) -> int:
    if share:
        return 0
    return next(d for d in range(7) if d == 6 or all(abs(round(m, d) - m) < 1e-9 for m in marks))


def _doses(values: list[float]) -> Axis:
    """The doses themselves as ticks. Where they double, doublings are a step apart, and none at all is a step below."""
    distinct = sorted(set(values))
    positive = [v for v in distinct if v > 0]
    doubling = distinct[0] >= 0 and bool(positive) and positive[-1] >= 8 * positive[0]
    none_at = log2(positive[0]) - 1 if doubling else 0.0
    steps = [(log2(v) if v > 0 else none_at) if doubling else v for v in distinct]
    room = 0.06 * (steps[-1] - steps[0]) or 1.0
    low, high = steps[0] - room, steps[-1] + room
    at = {v: (step - low) / (high - low) for v, step in zip(distinct, steps, strict=True)}
    shown = distinct[:: -(-len(distinct) // 8)]
    return at.__getitem__, [(v, figure(v, "", 0 if v == int(v) else 2)) for v in shown]


def _x(fraction: float) -> float:
    return round(LEFT + fraction * (WIDTH - LEFT - RIGHT), 1)


def _y(fraction: float) -> float:
    return round(TALL - BOTTOM - min(1.0, max(0.0, fraction)) * (TALL - TOP - BOTTOM), 1)


def _segment(kind: str, start: tuple[float, float], end: tuple[float, float]) -> Html:
    (x1, y1), (x2, y2) = start, end
    return h("line", {"class": kind, "x1": _x(x1), "y1": _y(y1), "x2": _x(x2), "y2": _y(y2)})


def _frame(x_axis: Axis, y_axis: Axis, names: Json) -> Html:
    (across, x_marks), (up, y_marks) = x_axis, y_axis
    parts = []
    for value, text in x_marks:
        parts.append(_segment("grid", (across(value), 0), (across(value), 1)))
        parts.append(h("text", {"x": _x(across(value)), "y": TALL - BOTTOM + 16, "text-anchor": "middle"}, text))
    for value, text in y_marks:
        parts.append(_segment("grid", (0, up(value)), (1, up(value))))
        parts.append(h("text", {"x": LEFT - 7, "y": _y(up(value)) + 3.5, "text-anchor": "end"}, text))
    parts.append(h("text", {"class": "axis", "text-anchor": "end", "x": _x(1), "y": TALL - 6}, f"{names['x']} →"))
    parts.append(h("text", {"class": "axis", "x": 0, "y": 12}, f"↑ {names['y']}"))
    return h("g", {}, parts)


def _marks(one: Json, kind: str, across: Callable[[float], float], up: Callable[[float], float]) -> Html:
    spots = [(_x(across(p["x"])), _y(up(p["y"]))) for p in one["points"]]
    joined = "M" + "L".join(f"{x} {y}" for x, y in spots)
    path = None if one["kind"] == "scatter" else h("path", {"class": f"curve {kind}", "d": joined})
    dots = [h("circle", {"class": f"spot {kind}", "cx": x, "cy": y, "r": 4}) for x, y in spots]
    spans = [
        _segment(f"span {kind}", (across(p["x"]), up(p["low"])), (across(p["x"]), up(p["high"])))
        for p in one["points"]
        if one["kind"] != "scatter" and p["low"] is not None
    ]
    return h("g", {}, spans, path, dots)
