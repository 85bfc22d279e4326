"""Cases fixed and broken, and all the figures of one change: what a cell of the matrix opens."""

from typing import Any

from qualm.auditing.report import telling
from qualm.auditing.report.bits import badge, facts, figure_of, interval, plain_figure, prompt, quote, table, verdict
from qualm.auditing.report.words import Words
from qualm.page.figures import plain
from qualm.page.markup import Child, Html, h

Json = dict[str, Any]
LONG = 50  # characters of an answer that does not fit beside the other


def cases(proof: Json, say: Words) -> Html:
    """The panels of one mend: what it claims lies open if there is something to see, the rest folded."""
    loud = [c for c in proof["changes"] if c["claimed"] and (c["examples"]["fixed"] or c["examples"]["broken"])]
    quiet = [change for change in proof["changes"] if change not in loud]
    n = len(quiet)
    rest = say.count(n, "{n} other limit", "{n} other limits") if loud else say.count(n, "{n} limit", "{n} limits")
    folded = h("details", {"class": "rest"}, h("summary", {}, rest), [_panel(c, proof, say) for c in quiet])
    shown = [_panel(change, proof, say) for change in loud]
    return h("div", {"class": "cases"}, h("h4", {}, proof["label"]), shown, folded if quiet else None)


def _panel(change: Json, proof: Json, say: Words) -> Html:
    examples = change["examples"]
    shown = [_example(e, kind, change, say) for kind in ("fixed", "broken") for e in examples[kind]]
    counts = h("span", {"class": "counts"}, telling.cases_moved(change, say)) if change["n"] else None
    mend = h("span", {"class": "mend"}, f"{proof['label']} · ")
    figures = h(
        "details",
        {"class": "in-figures"},
        h("summary", {}, say("In figures")),
        _figures(change, say),
        _parts(change, say),
    )
    return h(
        "section",
        {"class": "panel", "id": change["id"]},
        h("h5", {}, mend, change["title"], " ", verdict(change, say), counts),
        figures,
        h("div", {"class": "examples"}, shown) if shown else h("p", {"class": "counts"}, say("No example is kept.")),
    )


def _figures(change: Json, say: Words) -> Html:
    unit = change["unit"]
    if change["verdict"] == "not measured":
        return facts([(say("verdict"), verdict(change, say)), (say("why"), change["why"])])
    sides: list[tuple[str, Child]] = [
        (say(side), [telling.value(change[side], unit), " ", interval(change[side], unit, say)])
        for side in ("before", "after")
        if change[side]
    ]
    moved = [telling.moved(change, say), " (", telling.moved_interval(change, say), ")"]
    pairs: list[tuple[str, Child]] = [
        (say("verdict"), verdict(change, say)),
        *sides,
        (say("difference"), moved),
        (say("test"), telling.tested(change, say)),
        (say("cases"), telling.cases_moved(change, say)),
        (say("margin"), telling.margin(change, say)),
        (say("note"), telling.beside(change, say)),
    ]
    return facts([(name, what) for name, what in pairs if what])


def _parts(change: Json, say: Words) -> Html | None:
    """The parts and the secondary numbers, before and after."""
    unit = change["unit"]
    if not change["parts"] and not change["figures"]:
        return None

    def cell(read: Json | None) -> Child:
        return [figure_of(read["value"], telling.value(read, unit)), " ", interval(read, unit, say)] if read else "–"

    rows = [
        h("tr", {}, h("th", {"scope": "row"}, part), [h("td", {}, cell(sides[s])) for s in ("before", "after")])
        for part, sides in change["parts"].items()
    ]
    rows += [
        h("tr", {}, h("th", {"scope": "row"}, name), [h("td", {}, plain_figure(sides[s])) for s in ("before", "after")])
        for name, sides in change["figures"].items()
    ]
    return table("small", say("parts"), [say("Part"), say("before"), say("after")], h("tbody", {}, rows))


def _example(example: Json, kind: str, change: Json, say: Words) -> Html:
    mark = badge("better" if kind == "fixed" else "worse", say(kind))
    return h(
        "article",
        {"class": f"example {kind}"},
        h("p", {"class": "example-head"}, mark, example["part"]),
        h("div", {"class": "asked"}, prompt(example["prompt"], say)),
        h("p", {"class": "target"}, say("expected"), " ", h("q", {"dir": "auto"}, example["target"]))
        if example["target"]
        else None,
        h(
            "div",
            {"class": "pair long" if _is_long(example) else "pair"},
            [_side(side, example, change, say) for side in ("before", "after")],
        ),
    )


def _is_long(example: Json) -> bool:
    return any(len(example[side]["answer"] or "") > LONG for side in ("before", "after"))


def _side(side: str, example: Json, change: Json, say: Words) -> Html:
    """The answer; the number that was read off it where there is no answer, or the same one on both sides."""
    said, unit = example[side], change["unit"]
    number = [figure_of(said["value"], plain(said["value"])), " ", telling.unit_name(unit, say)]
    same = example["before"]["answer"] == example["after"]["answer"]
    shown = None if said["answer"] is None else quote(said["answer"], side)
    return h(
        "div", {}, h("span", {"class": "role"}, say(side)), shown, h("p", {"class": "number"}, number) if same else None
    )
