"""Readings, changes and proofs in words and figures: what the page and the Markdown say alike."""

from typing import Any

from qualm.auditing.report.words import Words
from qualm.page.figures import NONE, between, difference, differences, figure, p_value, places

Json = dict[str, Any]

VERDICTS = ("better", "worse", "cannot tell", "not measured")


def unit_name(unit: str, say: Words) -> str:
    """What stands after a reading; shares and bytes bring their own sign."""
    return "" if unit in ("share", "bytes") else say(unit)


def change_unit(unit: str, say: Words) -> str:
    return say("points") if unit == "share" else unit_name(unit, say)


def value(reading: Json | None, unit: str) -> str:
    return NONE if reading is None else figure(reading["value"], unit, places(unit, reading["low"], reading["high"]))


def interval(reading: Json | None, unit: str, say: Words) -> str:
    if reading is None or reading["low"] is None or reading["high"] is None:
        return NONE
    low, high = reading["low"], reading["high"]
    return between(low, high, unit, places(unit, low, high), say("to"))


def cases_of(n: int, say: Words) -> str:
    return say.count(n, "{n} case", "{n} cases")


def rests_on(reading: Json, say: Words) -> str:
    """How many cases, and how many groups if those are fewer."""
    cases = cases_of(reading["n"], say)
    if reading["groups"] == reading["n"]:
        return cases
    return say("{cases} in {groups}", cases=cases, groups=say.count(reading["groups"], "{n} group", "{n} groups"))


def unread(limit: Json, say: Words) -> str:
    """How many cases were not read, and why most of them were not: what follows `rests_on`."""
    if not limit["unread"]:
        return ""
    told = say(", {n} unread", n=limit["unread"])
    return f"{told} ({limit['unread_why']})" if limit["unread_why"] else told


def direction(limit: Json, say: Words) -> str:
    return say("higher is better") if limit["better"] == "high" else say("lower is better")


def _digits(change: Json) -> int:
    ends = change["low"], change["high"]
    low, high = (change["difference"] or 0.0,) * 2 if None in ends else ends
    return places(change["unit"], low, high)


def moved(change: Json, say: Words, unit: bool = True) -> str:
    """The difference: "+43 points", or that no case shows any."""
    if change["unchanged"]:
        return say("unchanged")
    text = difference(change["difference"], change["unit"], _digits(change))
    name = change_unit(change["unit"], say) if unit and text != NONE else ""
    return f"{text} {name}".rstrip()


def moved_interval(change: Json, say: Words) -> str:
    """The interval of the difference; where nothing changed, the cases that show it."""
    if change["unchanged"]:
        return cases_of(change["n"], say)
    return differences(change["low"], change["high"], change["unit"], _digits(change), say("to"))


def moved_columns(change: Json, say: Words) -> tuple[str, str]:
    """The difference and its interval where each has a column: "unchanged (148 cases)" leaves the second empty."""
    shown = moved(change, say), moved_interval(change, say)
    return (f"{shown[0]} ({shown[1]})", "") if change["unchanged"] else shown


def both(change: Json, say: Words) -> str:
    """The two readings: "12% → 81%"."""
    unit = change["unit"]
    digits = max((places(unit, r["low"], r["high"]) for r in (change["before"], change["after"]) if r), default=0)
    old, new = (figure(r["value"], unit, digits) if r else NONE for r in (change["before"], change["after"]))
    return f"{old} → {new} {unit_name(unit, say)}".rstrip()


def state(change: Json) -> str:
    """The verdict, told apart further by whether a worsening that matters is ruled out; it names the shape."""
    small = change["harmless"] and change["verdict"] in ("worse", "cannot tell")
    return f"{change['verdict']} harmless" if small else change["verdict"]


STATES = {
    "better": "better",
    "worse": "worse",
    "worse harmless": "worse, but by less than the margin",
    "cannot tell": "cannot tell",
    "cannot tell harmless": "cannot tell, but no harm beyond the margin",
    "not measured": "not measured",
}


def beside(change: Json, say: Words) -> str:
    """What stands beside the verdict: why there is none, or what this n would have shown, or that no harm is done."""
    if change["verdict"] == "not measured":
        return change["why"]
    said = []
    if change["verdict"] == "cannot tell" and change["detectable"] is not None and not change["unchanged"]:
        least = _amount(change["detectable"], change, say)
        said.append(say("a change of {least} would have shown", least=least))
    if state(change).endswith("harmless"):
        said.append(say("harm beyond the margin of {margin} is ruled out", margin=margin(change, say)))
    return say("; ").join(said)


def _amount(value: float, change: Json, say: Words) -> str:
    digits = int(value < 0.1) if change["unit"] == "share" else _digits(change)
    text = difference(value, change["unit"], digits).lstrip("+")
    return f"{text} {change_unit(change['unit'], say)}".rstrip()


def margin(change: Json, say: Words) -> str:
    """How small a worsening does not matter."""
    number = 100 * change["margin"] if change["unit"] == "share" else change["margin"]
    return f"{number:.3g} {change_unit(change['unit'], say) or change['unit']}".rstrip()


def tested(change: Json, say: Words) -> str:
    """The p-value, corrected for the number of limits looked at where that was done."""
    if change["p_holm"] is not None:
        return say("{p} (corrected)", p=p_value(change["p_holm"]))
    return "" if change["p"] is None else p_value(change["p"])


def cases_moved(change: Json, say: Words) -> str:
    cases = cases_of(change["n"], say)
    return say("{fixed} fixed, {broken} broken of {cases}", fixed=change["fixed"], broken=change["broken"], cases=cases)


def tally(counts: Json, say: Words) -> str:
    """ "1 better, 0 worse, 11 cannot tell" """
    shown = [word for word in VERDICTS if counts[word] or word in ("better", "worse")]
    return say(", ").join(say(f"{{n}} {word}", n=counts[word]) for word in shown)


def aims(proof: Json, say: Words) -> list[str]:
    """A sentence for each limit that the mend claims to shrink."""
    claimed = [change for change in proof["changes"] if change["claimed"]]
    if proof["mend"] and not claimed:
        return [say("None of the limits it is for was measured.")]
    return [_aim(change, say) for change in claimed]


def _aim(change: Json, say: Words) -> str:
    title = change["title"]
    if change["verdict"] == "not measured":
        return say("{title}: not measured, {why}.", title=title, why=change["why"].rstrip("."))
    if change["unchanged"]:
        return say(
            "{title}: unchanged in {cases}, {both}.",
            title=title,
            cases=cases_of(change["n"], say),
            both=both(change, say),
        )
    return say(
        "{title}: {verdict}, {both} ({moved}; 95% interval {interval}).",
        title=title,
        verdict=say(change["verdict"]),
        both=both(change, say),
        moved=moved(change, say),
        interval=moved_interval(change, say),
    )


def side_effects(proof: Json, say: Words) -> str:
    """What else moved."""
    others = [change for change in proof["changes"] if not change["claimed"]]
    if not others:
        return ""
    shown = []
    for word in ("worse", "better"):
        names = [change["title"].lower() for change in others if change["verdict"] == word]
        if names:
            shown.append(say(f"{word}: {{names}}", names=say(", ").join(names)))
    if not shown:
        said = say("No side effect was seen on {n} other limits.", n=len(others))
    else:
        said = say("Side effects: {what}.", what=say("; ").join(shown))
    safe = sum(change["harmless"] is True for change in others)
    ruled_out = say("Harm beyond the margin is ruled out on {n} of {all}.", n=safe, all=len(others))
    return say(" ").join((said, ruled_out))
