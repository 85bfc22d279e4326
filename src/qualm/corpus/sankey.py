"""What went where, as one drawing: a stream of documents through the steps, and what left it at each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qualm.page.markup import Html, h

WIDTH, HIGH = 1080, 150  # of the drawing; of the stream where it is widest, in its own units
TOP, LEFT, RIGHT, NODE = 34, 2, 110, 8
_ROW, _GAP = 19, 26  # of a reason; between the stream and the first of them

Words = Mapping[str, str]  # English -> Chinese


@dataclass(frozen=True)
class _Scale:
    most: int

    def high(self, documents: int) -> float:
        return max(HIGH * documents / self.most, 1.5) if documents else 0.0


def sankey(rows: Sequence[Mapping[str, Any]], words: Words) -> Html | None:
    """The drawing of the steps that counted documents, in order; None if there is none."""
    steps = [row for row in rows if "read" in row]
    if not steps:
        return None
    scale = _Scale(max(max(step["read"], step["written"]) for step in steps) or 1)
    wide = (WIDTH - LEFT - RIGHT) / len(steps)
    inside: list[Html] = [*_node(LEFT, scale.high(steps[0]["read"]), steps[0]["read"], ("read", "读入"))]
    lowest = TOP + scale.high(steps[0]["read"])
    for number, step in enumerate(steps):
        left, right = LEFT + NODE + number * wide, LEFT + (number + 1) * wide
        before, after = scale.high(step["read"]), scale.high(step["written"])
        inside.append(_band("stream", (left, TOP, before), (right, TOP, after)))
        at = TOP + after
        below = TOP + HIGH + _GAP
        for reason, documents in sorted(step["dropped"].items(), key=lambda item: -item[1]):
            high = scale.high(documents)
            inside += _leaves((left, at, left + 0.4 * wide, below, high), reason, documents, words)
            at += high
            below += max(high + 5, _ROW)
        lowest = max(lowest, below, TOP + before)
        name = step["step"]
        middle = (left + right) / 2
        inside += _both(middle, TOP - 14, (name, words.get(name, name)), "middle", "step")
        last = number == len(steps) - 1
        label = ("kept", "保留") if last else ("", "")
        inside += _node(right, after, step["written"], label)
    told = "; ".join(
        f"{s['step']}: {s['read']} in, {s['written']} out" + "".join(f", {n} {r}" for r, n in s["dropped"].items())
        for s in steps
    )
    box = {"class": "sankey plot", "role": "img", "aria-label": told, "viewBox": f"0 0 {WIDTH} {lowest + 8:.0f}"}
    return h("svg", box, inside)


def _node(x: float, high: float, documents: int, label: tuple[str, str]) -> list[Html]:
    drawn = [h("rect", {"class": "node", "x": round(x, 1), "y": TOP, "width": NODE, "height": round(high, 1), "rx": 2})]
    if label[0]:
        beside = x + NODE + 7
        drawn.append(h("text", {"class": "many", "x": round(beside, 1), "y": TOP + 16}, f"{documents:,}"))
        drawn += _both(beside, TOP + 31, label, "start", "")
    return drawn


def _leaves(place: tuple[float, float, float, float, float], reason: str, documents: int, words: Words) -> list[Html]:
    """What leaves the stream at one step for one reason: a band down to its name."""
    x, y, end, below, high = place
    band = _band("gone", (x, y, high), (end, below, high))
    label = (f"{documents:,} {reason}", f"{documents:,} {words.get(reason, reason)}")
    return [band, *_both(end + 6, below + high / 2 + 4, label, "start", "")]


def _band(name: str, left: tuple[float, float, float], right: tuple[float, float, float]) -> Html:
    """A ribbon from (x, y, height) to another."""
    (x1, y1, h1), (x2, y2, h2) = left, right
    middle = (x1 + x2) / 2
    top = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    low = f"L{x2:.1f} {y2 + h2:.1f}C{middle:.1f} {y2 + h2:.1f} {middle:.1f} {y1 + h1:.1f} {x1:.1f} {y1 + h1:.1f}Z"
    return h("path", {"class": name, "d": top + low})


def _both(x: float, y: float, label: tuple[str, str], anchor: str, name: str) -> list[Html]:
    place = {"x": round(x, 1), "y": round(y, 1), "text-anchor": anchor, "class": name or None}
    return [h("text", {**place, "lang": lang}, text) for lang, text in zip(("en", "zh"), label, strict=True)]
