"""The limits card of one model: a row a probe, with its parts underneath."""

from typing import Any

from qualm.auditing.report import telling
from qualm.auditing.report.bits import figure_of, interval, plain_figure, reading, table, unseen
from qualm.auditing.report.svg import glyph, plot, whisker
from qualm.auditing.report.words import Words
from qualm.page.figures import duration, figure, many, size
from qualm.page.markup import Html, h

Json = dict[str, Any]


def limits_card(subject: Json, say: Words) -> Html:
    """All that was read off the model as it is."""
    if not subject["audited"]:
        return h("p", {"class": "coming"}, say("Its limits are still to be measured."))
    heads = [say("Limit"), say("Reading"), _axis_head(say), say("Rests on")]
    caption = say("The limits of {name}", name=subject["name"])
    bodies = [_limit(limit, say) for limit in subject["limits"]]
    return h("div", {}, table("limits", caption, heads, bodies), _legend(say), charts(subject["limits"], say))


def card_line(subject: Json, say: Words) -> Html:
    """What kind of model it is, in one line."""
    card = subject["card"]
    said = [card["family"]]
    if card["parameters"]:
        said.append(say("{n} parameters", n=many(card["parameters"])))
    if card["bytes"]:
        said.append(size(card["bytes"]))
    if card["world"] is not None:
        said.append(say("made from a planted world"))
    items = [h("span", {}, text) for text in said if text]
    weights = h("span", {}, say("weights"), " ", h("code", {}, card["weights"][:12])) if card["weights"] else None
    return h("p", {"class": "card-line"}, items, weights)


def _axis_head(say: Words) -> Html:
    marks = [h("span", {}, text) for text in ("0", "25", "50", "75", "100%")]
    return h("span", {"class": "axis-head"}, unseen(say("95% interval")), h("span", {"aria-hidden": "true"}, marks))


def _legend(say: Words) -> Html:
    return h(
        "p",
        {"class": "legend", "aria-hidden": "true"},
        h("span", {"class": "key dot-key"}, say("reading")),
        h("span", {"class": "key interval-key"}, say("95% interval")),
        h("span", {"class": "key chance-key"}, say("a model that knows nothing")),
    )


def _limit(limit: Json, say: Words) -> Html:
    rows = [_part(part, read, limit, say) for part, read in limit["parts"].items() if read]
    rows += [_extra(name, value) for name, value in limit["figures"].items()]
    fold = h(
        "button",
        {"type": "button", "class": "fold", "aria-expanded": "true", "aria-controls": f"{limit['id']}-parts"},
        say.count(len(rows), "{n} more figure", "{n} more figures"),
    )
    return Html(
        h("tbody", {"class": "limit"}, _head_row(limit, fold if rows else None, say))
        + (h("tbody", {"class": "parts", "id": f"{limit['id']}-parts", "data-rows": len(rows)}, rows) if rows else "")
    )


def _head_row(limit: Json, fold: Html | None, say: Words) -> Html:
    tag = h("span", {"class": "tag"}, say(limit["limit"])) if limit["limit"] != limit["name"] else None
    title = h("span", {"class": "title"}, limit["title"])
    head = h("th", {"scope": "row"}, title, tag, h("span", {"class": "measures"}, limit["measures"]), fold)
    read = limit["reading"]
    if read is None:
        missing = h("span", {"class": "missing"}, glyph("not measured"), " ", say("not measured"))
        why = h("td", {"class": "why", "colspan": 2}, limit["why"])
        return h("tr", {"class": "none"}, head, h("td", {"class": "reading"}, missing), why)
    unread = telling.unread(limit, say)
    return h(
        "tr",
        {},
        head,
        h("td", {"class": "reading"}, reading(read, limit["unit"], say), interval(read, limit["unit"], say)),
        h("td", {"class": "chart"}, _whisker(limit, read, limit["title"], say), _ends(limit)),
        h("td", {"class": "rests"}, telling.rests_on(read, say), unread, h("span", {}, telling.direction(limit, say))),
    )


def _whisker(limit: Json, read: Json, name: str, say: Words) -> Html:
    unit, chance = limit["unit"], limit["chance"]
    label = say(
        "{name}: {value}, 95% interval {interval}",
        name=name,
        value=f"{telling.value(read, unit)} {telling.unit_name(unit, say)}".rstrip(),
        interval=telling.interval(read, unit, say),
    )
    if chance is not None:
        label += say(", chance {value}", value=figure(chance, unit, 1))
    return whisker(read, limit["scale"], unit, label, chance)


def _ends(limit: Json) -> Html | None:
    """The ends of an axis that is not 0 to 100%."""
    if limit["unit"] == "share" and limit["scale"] == [0, 1]:
        return None
    digits = 0 if limit["unit"] == "share" or all(x == int(x) for x in limit["scale"]) else 2
    ends = [h("span", {}, figure(x, limit["unit"], digits)) for x in limit["scale"]]
    return h("span", {"class": "ends", "aria-hidden": "true"}, ends)


def _part(part: str, read: Json, limit: Json, say: Words) -> Html:
    unit = limit["unit"]
    value = [figure_of(read["value"], telling.value(read, unit)), interval(read, unit, say)]
    return h(
        "tr",
        {},
        h("th", {"scope": "row"}, part),
        h("td", {"class": "reading"}, value),
        h("td", {"class": "chart"}, _whisker(limit, read, part, say)),
        h("td", {"class": "rests"}, telling.rests_on(read, say)),
    )


def _extra(name: str, value: float) -> Html:
    """A secondary number: it has no interval and gets no verdict."""
    head, number = h("th", {"scope": "row"}, name), h("td", {"class": "reading"}, plain_figure(value))
    return h("tr", {"class": "extra"}, head, number, h("td", {"colspan": 2}))


def charts(limits: list[Json], say: Words) -> Html | None:
    """The charts of the probes that have one."""
    drawn = [chart_figure([limit["chart"]], limit["title"], say) for limit in limits if limit["chart"]]
    return h("div", {"class": "figures"}, drawn) if drawn else None


CAPTIONS = {
    "dose": "{y}, by {x}",
    "scatter": "{y}, against {x}",
    "reliability": "How often it is right at each confidence; a model that knows itself follows the diagonal",
}


def chart_figure(series: list[Json], title: str, say: Words) -> Html:
    """A chart, its caption, and its numbers for those who would rather read them."""
    kind = series[0]["kind"]
    named = [{**one, "x": say(one["x"]), "y": say(one["y"])} for one in series]
    about = say(CAPTIONS[kind], x=named[0]["x"], y=named[0]["y"].capitalize())
    for name, key in (("r", "r"), (say("slope"), "slope")):
        shown = [f"{one[key]:.2f}" for one in series if one.get(key) is not None]
        about += f"; {name} {' → '.join(shown)}" if shown else ""
    sides = [say("before"), say("after")] if len(series) == 2 else [""]
    keys = [h("span", {"class": f"key {kind_}-key"}, say(kind_)) for kind_ in ("before", "after")] if sides[1:] else []
    tables = [_numbers(one, side, say) for one, side in zip(named, sides, strict=True)]
    return h(
        "figure",
        {},
        h("figcaption", {}, h("b", {}, title), h("span", {}, about), keys),
        plot(named, f"{title}: {about}"),
        h("details", {"class": "numbers"}, h("summary", {}, say("Numbers")), tables),
    )


def _numbers(one: Json, side: str, say: Words) -> Html:
    rows = [
        h("tr", {}, [h("td", {}, figure_of(p[k], f"{p[k]:.4g}")) for k in ("x", "y")], h("td", {}, str(p["n"])))
        for p in one["points"]
    ]
    return table("small", side or one["kind"], [one["x"], one["y"], say("cases")], h("tbody", {}, rows))


def took(subject: Json) -> str:
    return duration(subject["seconds"])
