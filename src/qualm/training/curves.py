"""Curves of a run as static SVG, thinned to what can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from qualm.page.axes import ends, ticks
from qualm.page.figures import plain
from qualm.page.markup import Html, h

MOST = 160  # points of a line; more are averaged over equal stretches
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 26  # room around a plot, in its own units
SMALL, WIDE = (360, 200), (1080, 340)

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points by step, under a name in two languages; with `band`, the spread of what was averaged is shaded."""

    name: tuple[str, str]
    points: Sequence[Point]
    kind: str = "main"
    band: bool = False
    spots: bool = False


def plot(
    title: tuple[str, str], curves: Sequence[Curve], from_zero: bool, marks: Sequence[int] = (), wide: bool = False
) -> Html:
    """A figure with its caption. `marks` are steps whose update was skipped."""
    width, tall = WIDE if wide else SMALL
    curves = [curve for curve in curves if curve.points]
    thin = [thinned(curve.points) for curve in curves]
    steps = [x for points in thin for x, *_ in points] or [0.0, 1.0]
    values = reasonable([y for points in thin for _, y, _, _ in points]) or [0.0, 1.0]
    low, high = ends([*values, 0.0] if from_zero else values, share=False)
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        up = min(1.0, max(0.0, (y - low) / (high - low)))
        across = (x - first) / (last - first)
        return (
            round(LEFT + across * (width - LEFT - RIGHT), 1),
            round(tall - BOTTOM - up * (tall - TOP - BOTTOM), 1),
        )

    inside: list[Html] = []
    for value in ticks(low, high):
        (x1, y), (x2, _) = at(first, value), at(last, value)
        inside.append(h("line", {"class": "grid", "x1": x1, "x2": x2, "y1": y, "y2": y}))
        inside.append(h("text", {"x": LEFT - 7, "y": y + 3.5, "text-anchor": "end"}, _short(value)))
    for step in ticks(first, last, 8 if wide else 4):
        x, y = at(step, low)
        inside.append(h("text", {"x": x, "y": y + 17, "text-anchor": "middle"}, _short(step)))
    inside += [
        h("line", {"class": "skipped", "x1": x, "x2": x, "y1": TOP, "y2": y}) for x, y in (at(m, low) for m in marks)
    ]
    for curve, points in zip(curves, thin, strict=True):
        inside += _drawn(curve, [(*at(x, y), at(x, bottom)[1], at(x, top)[1]) for x, y, bottom, top in points])
    names = [h("span", {"class": f"key {curve.kind}-key"}, _both(curve.name)) for curve in curves if len(curves) > 1]
    if marks:
        names.append(h("span", {"class": "key skipped-key"}, _both(("update skipped", "跳过的更新"))))
    label = (
        f"{title[0]}: {', '.join(f'{c.name[0]} {plain(c.points[-1][1])} at step {c.points[-1][0]}' for c in curves)}"
    )
    box = {"class": "plot", "role": "img", "aria-label": label, "viewBox": f"0 0 {width} {tall}"}
    return h("figure", {}, h("figcaption", {}, h("b", {}, _both(title)), names), h("svg", box, inside))


def thinned(points: Sequence[Point]) -> list[tuple[float, float, float, float]]:
    """(step, mean, least, most) of equal stretches of the points."""
    size = -(-len(points) // MOST)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    ys = [[y for _, y in part] for part in parts]
    return [(part[-1][0], fmean(y), min(y), max(y)) for part, y in zip(parts, ys, strict=True)]


def reasonable(values: Sequence[float]) -> list[float]:
    """The values, without the highest one in fifty where those are far beyond the rest: one spike must not flatten
    a curve.
    """
    ordered = sorted(values)
    kept = ordered[: max(1, round(0.98 * len(ordered)))]
    return ordered if not kept or ordered[-1] <= 3 * abs(kept[-1]) else kept


def _drawn(curve: Curve, places: Sequence[tuple[float, float, float, float]]) -> list[Html]:
    line = "M" + "L".join(f"{x} {y}" for x, y, *_ in places)
    drawn = []
    if curve.band:
        round_ = [*((x, top) for x, _, _, top in places), *((x, bottom) for x, _, bottom, _ in reversed(places))]
        drawn.append(
            h("path", {"class": f"band {curve.kind}", "d": "M" + "L".join(f"{x} {y}" for x, y in round_) + "Z"})
        )
    drawn.append(h("path", {"class": f"curve {curve.kind}", "d": line}))
    if curve.spots:
        drawn += [h("circle", {"class": f"spot {curve.kind}", "cx": x, "cy": y, "r": 3.5}) for x, y, *_ in places]
    return drawn


def _both(text: tuple[str, str]) -> list[Html]:
    return [h("span", {"lang": "en"}, text[0]), h("span", {"lang": "zh"}, text[1])]


def _short(value: float) -> str:
    """A tick: 1.5, 0.0003, 12 k."""
    for bound, size, name in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= bound:
            return f"{value / size:g}\N{NARROW NO-BREAK SPACE}{name}"
    return f"{value:g}"
