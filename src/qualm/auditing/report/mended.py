"""What mends did: the matrix of mends and limits, and each proof row by row."""

from typing import Any

from qualm.auditing.report import telling
from qualm.auditing.report.bits import badge, table, unseen, verdict
from qualm.auditing.report.limits import chart_figure
from qualm.auditing.report.svg import bar, delta, dumbbell, glyph
from qualm.auditing.report.telling import VERDICTS
from qualm.auditing.report.words import Words
from qualm.page.markup import Html, h

Json = dict[str, Any]


def matrix(subject: Json, say: Words) -> Html:
    """Limits down, mends across; what a mend claims is outlined, so that its side effects stand apart."""
    proofs = subject["proofs"]
    known: dict[str, Json] = {}
    for proof in proofs:
        for change in proof["changes"]:
            known.setdefault(change["name"], change)
    heads = [say("Limit"), *(h("a", {"href": f"#{p['id']}"}, p["label"]) for p in proofs)]
    rows = [_row(change, proofs, say) for change in known.values()]
    caption = say("What each mend did to each limit of {name}", name=subject["name"])
    kind = "matrix few" if len(proofs) < 4 else "matrix many" if len(proofs) > 8 else "matrix"
    return h("div", {}, table(kind, caption, heads, h("tbody", {}, rows)), _legend(say))


def _legend(say: Words) -> Html:
    shapes = [badge(state, say(text)) for state, text in telling.STATES.items()]
    return h(
        "p",
        {"class": "legend"},
        shapes,
        h("span", {"class": "key claim-key"}, say("what the mend is for")),
    )


def _row(limit: Json, proofs: list[Json], say: Words) -> Html:
    unit = telling.change_unit(limit["unit"], say)
    about = say(", ").join(x for x in (unit, telling.direction(limit, say)) if x)
    head = h("th", {"scope": "row"}, h("span", {"class": "title"}, limit["title"]), h("small", {}, about))
    return h("tr", {}, head, [_cell(proof, limit["name"], say) for proof in proofs])


def _cell(proof: Json, name: str, say: Words) -> Html:
    change = next((c for c in proof["changes"] if c["name"] == name), None)
    if change is None:
        return h("td", {"class": "blank"}, unseen(say("not part of this proof")))
    kind = change["verdict"].replace(" ", "-")
    claim = say("what the mend is for") if change["claimed"] else ""
    word = unseen(f" {say(change['verdict'])}{', ' + claim if claim else ''} ")
    shown = [h("b", {}, telling.moved(change, say, unit=False)), h("small", {}, telling.moved_interval(change, say))]
    if change["verdict"] == "not measured":
        shown = [h("small", {}, say("not measured"))]
    said = [x for x in (say(change["verdict"]), claim, telling.beside(change, say)) if x]
    tip = h("span", {"class": "tip"}, h("b", {}, f"{proof['label']} · {change['title']}"), *_tip(change, said, say))
    link = h(
        "a",
        {"href": f"#{change['id']}", "class": "open-case"},
        glyph(telling.state(change)),
        shown,
        word,
        tip,
    )
    return h("td", {"class": f"cell {kind}" + (" claimed" if change["claimed"] else "")}, link)


def _tip(change: Json, said: list[str], say: Words) -> list[Html]:
    lines = [" · ".join(said)]
    if change["verdict"] != "not measured":
        lines += [telling.both(change, say), telling.tested(change, say), telling.cases_moved(change, say)]
    return [h("span", {}, line) for line in lines if line]


def proof_card(proof: Json, say: Words) -> Html:
    """One mend: its claim and its side effects in words, then before and after, limit by limit."""
    settings = proof["mend"]["settings"] if proof["mend"] else {}
    shown = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    loud = [c for c in proof["changes"] if c["claimed"] or c["verdict"] in ("better", "worse")]
    loud.sort(key=lambda c: (not c["claimed"], c["verdict"] != "worse"))
    quiet = [c for c in proof["changes"] if c not in loud]
    counts = telling.tally(proof["counts"], say)
    return h(
        "article",
        {"class": "proof", "id": proof["id"], "aria-labelledby": f"{proof['id']}-title"},
        h(
            "header",
            {},
            h("h4", {"id": f"{proof['id']}-title"}, proof["label"]),
            h("code", {"class": "settings"}, shown) if shown else None,
            [h("p", {"class": "aim"}, aim) for aim in telling.aims(proof, say)],
            h("p", {"class": "effects"}, telling.side_effects(proof, say)),
            bar(proof["counts"], VERDICTS, counts),
            h("p", {"class": "counts", "aria-hidden": "true"}, counts),
        ),
        _changes(loud, proof, say) if loud else None,
        _quiet(quiet, proof, say) if quiet else None,
        _charts(proof, say),
    )


def _quiet(changes: list[Json], proof: Json, say: Words) -> Html:
    words = " / ".join(
        say(word) for word in ("cannot tell", "not measured") if any(c["verdict"] == word for c in changes)
    )
    title = say.count(len(changes), "{n} other limit", "{n} other limits")
    return h("details", {}, h("summary", {}, f"{title}: {words}"), _changes(changes, proof, say))


def _charts(proof: Json, say: Words) -> Html | None:
    drawn = [
        chart_figure([c["charts"]["before"], c["charts"]["after"]], c["title"], say)
        for c in proof["changes"]
        if c["charts"]
    ]
    return h("div", {"class": "figures"}, drawn) if drawn else None


def _changes(changes: list[Json], proof: Json, say: Words) -> Html:
    heads = [say("Limit"), say("Before → after"), say("Difference"), _sides(say), say("Verdict")]
    caption = say("{mend}: before and after", mend=proof["label"])
    return table("changes", caption, heads, h("tbody", {}, [_change(c, proof, say) for c in changes]))


def _sides(say: Words) -> Html:
    return h("span", {"class": "sides"}, h("span", {}, "← ", say("worse")), h("span", {}, say("better"), " →"))


def _change(change: Json, proof: Json, say: Words) -> Html:
    claim = h("span", {"class": "tag claim"}, say("claimed")) if change["claimed"] else None
    about = h("span", {"class": "measures"}, telling.direction(change, say))
    head = h("th", {"scope": "row"}, h("span", {"class": "title"}, change["title"]), claim, about)
    beside = telling.beside(change, say)
    link = h("a", {"href": f"#{change['id']}", "class": "open-case"}, _cases_link(change, say))
    told = h("td", {"class": "verdict"}, verdict(change, say), h("span", {"class": "beside"}, beside), link)
    if change["verdict"] == "not measured":
        return h("tr", {"class": "none"}, head, h("td", {"colspan": 3, "class": "why"}), told)
    both, diff = telling.both(change, say), telling.moved(change, say)
    ends = telling.moved_interval(change, say)
    label = f"{change['title']}: {both}"
    bell = dumbbell(change, label) if change["before"] and change["after"] else None
    return h(
        "tr",
        {},
        head,
        h("td", {"class": "bell"}, bell, h("span", {"class": "both"}, *_ends(change, both))),
        h("td", {"class": "moved"}, h("data", {"value": repr(change["difference"])}, diff), h("small", {}, ends)),
        h(
            "td",
            {"class": "delta"},
            delta(change, _reach(change, proof), f"{change['title']}: {diff}, {ends}"),
            _sides(say),
        ),
        told,
    )


def _ends(change: Json, both: str) -> list[Html]:
    old, _, new = both.partition(" → ")
    pairs = ((change["before"], old), (change["after"], new))
    sides = [h("data", {"value": repr(r["value"])}, text) if r else Html("–") for r, text in pairs]
    return [sides[0], Html(" → "), sides[1]]


def _cases_link(change: Json, say: Words) -> str:
    if change["fixed"] or change["broken"]:
        return say("{fixed} fixed, {broken} broken", fixed=change["fixed"], broken=change["broken"])
    return say("details")


def _reach(change: Json, proof: Json) -> float:
    """How far the axis of differences goes: shares of one proof have one axis, every other probe its own."""
    same = [c for c in proof["changes"] if c["unit"] == change["unit"] == "share"] or [change]
    numbers = [abs(c[k]) for c in same for k in ("low", "high", "difference") if c[k] is not None]
    return 1.05 * max((*numbers, change["margin"] * 1.5)) or 1.0
