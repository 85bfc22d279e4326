"""Small pieces that every section of the page is made of."""

from collections.abc import Sequence
from typing import Any

from qualm.auditing.report import telling
from qualm.auditing.report.svg import glyph
from qualm.auditing.report.words import Words
from qualm.page.figures import plain
from qualm.page.markup import Child, Html, h

Json = dict[str, Any]


def section(name: str, title: str, *children: Child) -> Html:
    heading = h("h2", {"id": f"{name}-title"}, title)
    return h("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, children)


def figure_of(value: float | None, text: str) -> Html:
    """A number of the dictionary as it is printed, with the number itself beside it for machines."""
    return Html(text) if value is None else h("data", {"value": repr(float(value))}, text)


def plain_figure(value: float | None) -> Html:
    return figure_of(value, plain(value))


def reading(read: Json, unit: str, say: Words) -> Html:
    """The value with its unit."""
    name = telling.unit_name(unit, say)
    shown = figure_of(read["value"], telling.value(read, unit))
    return h("span", {"class": "value"}, shown, h("small", {}, " ", name) if name else None)


def interval(read: Json, unit: str, say: Words) -> Html:
    ends = {"data-low": read["low"], "data-high": read["high"]}
    return h("span", {"class": "range", **ends}, telling.interval(read, unit, say))


def badge(state: str, word: str) -> Html:
    """Shape, colour and word."""
    kind = state.removesuffix(" harmless").replace(" ", "-")
    return h("span", {"class": f"badge {kind}"}, glyph(state), " ", word)


def verdict(change: Json, say: Words) -> Html:
    return badge(telling.state(change), say(change["verdict"]))


def unseen(text: str) -> Html:
    """For readers who listen."""
    return h("span", {"class": "unseen"}, text)


def table(kind: str, caption: str, heads: Sequence[Child], *bodies: Child) -> Html:
    """A table in a box that scrolls on its own; the caption is for readers who listen."""
    top = h("thead", {}, h("tr", {}, [h("th", {"scope": "col"}, head) for head in heads]))
    wide = {"tabindex": 0, "role": "region", "aria-label": caption} if kind.startswith("matrix") else {}
    return h(
        "div",
        {"class": f"scroll {kind.split()[0]}-box", **wide},
        h("table", {"class": kind}, h("caption", {}, caption), top, bodies),
    )


def facts(pairs: list[tuple[str, Child]]) -> Html:
    """A list of names and what they are."""
    return h("dl", {"class": "facts"}, [h("div", {}, h("dt", {}, name), h("dd", {}, what)) for name, what in pairs])


def quote(text: str, kind: str = "") -> Html:
    """What a model read or wrote: shown as it stands, in its own direction."""
    return h("blockquote", {"class": f"said {kind}".rstrip(), "dir": "auto"}, text or " ")


def prompt(turns: list[Json], say: Words) -> Html:
    """A prompt turn by turn; a single question needs no name of its speaker."""
    if len(turns) == 1:
        return quote(turns[0]["content"], "prompt")
    return h("div", {}, [[h("span", {"class": "role"}, say(t["role"])), quote(t["content"], "prompt")] for t in turns])
