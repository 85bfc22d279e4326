"""What the figures rest on: what could not be measured, what was run on what, and how to run it again."""

from typing import Any

from qualm.auditing.report.bits import facts, prompt, quote, table
from qualm.auditing.report.svg import glyph
from qualm.auditing.report.words import Words
from qualm.page.figures import duration, many, size
from qualm.page.markup import Child, Html, h

Json = dict[str, Any]


def unmeasured(holes: list[Json], unfinished: bool, say: Words) -> Html:
    if not holes:
        said = say("So far nothing was left out.") if unfinished else say("Nothing was left out.")
        return h("p", {}, said)
    rows = [
        h(
            "tr",
            {},
            h("th", {"scope": "row"}, glyph("not measured"), " ", hole["title"]),
            h("td", {}, f"{hole['subject']} + {hole['with']}" if hole["with"] else hole["subject"]),
            h("td", {}, hole["why"]),
        )
        for hole in holes
    ]
    return table(
        "holes", say("What could not be measured"), [say("Limit"), say("Model"), say("Why")], h("tbody", {}, rows)
    )


def provenance(page: Json, say: Words) -> Html:
    """Time, machine, hashes, settings, files, and the command."""
    return h(
        "div",
        {"class": "provenance"},
        _command(page, say) if page["command"] else None,
        _stages(page["stages"], say) if page["stages"] else None,
        h("h3", {}, say("Machine")) if page["machine"] else None,
        facts([(key, text_of(value)) for key, value in page["machine"].items()]) if page["machine"] else None,
        [_model(subject, page["machine"], say) for subject in page["subjects"]],
        _files(page["files"], say) if page["files"] else None,
    )


def _command(page: Json, say: Words) -> Html:
    return h("div", {}, h("h3", {}, say("The same figures again")), h("pre", {"class": "command"}, page["command"]))


def _stages(stages: list[Json], say: Words) -> Html:
    rows = [
        h(
            "tr",
            {"class": None if s["seconds"] is not None else "coming"},
            h("th", {"scope": "row"}, s["name"]),
            h("td", {}, took(s, say)),
        )
        for s in stages
    ]
    total = sum(s["seconds"] or 0 for s in stages)
    rows.append(h("tr", {"class": "total"}, h("th", {"scope": "row"}, say("together")), h("td", {}, duration(total))))
    return h(
        "div",
        {},
        h("h3", {}, say("Time")),
        table("small", say("Time"), [say("Stage"), say("took")], h("tbody", {}, rows)),
    )


def took(stage: Json, say: Words) -> str:
    return say("still to come") if stage["seconds"] is None else duration(stage["seconds"])


def _model(subject: Json, machine: Json, say: Words) -> Html:
    card = subject["card"]
    known: list[tuple[str, Child]] = [
        (say("family"), card["family"]),
        (say("parameters"), many(card["parameters"]) if card["parameters"] else ""),
        (say("size"), size(card["bytes"]) if card["bytes"] else ""),
        (say("weights"), _code(card["weights"])),
        (say("tokenizer"), _code(card["tokenizer"])),
        (say("template"), _code(card["template"])),
        (say("what its scores are"), say(card["scoring"])),
        (say("planted world"), text_of(card["world"]) if card["world"] is not None else ""),
        (say("mends"), "; ".join(card["mends"])),
        (say("audit took"), duration(subject["seconds"]) if subject["seconds"] is not None else ""),
        *((key, text_of(value)) for key, value in subject["machine"].items() if machine.get(key) != value),
    ]
    probes = [
        h(
            "tr",
            {},
            h("th", {"scope": "row"}, m["title"]),
            h("td", {}, h("code", {}, m["probe"])),
            h("td", {}, duration(m["seconds"])),
        )
        for m in subject["limits"]
    ]
    settings = table("small", say("Probes"), [say("Limit"), say("Probe"), say("took")], h("tbody", {}, probes))
    return h(
        "div",
        {},
        h("h3", {}, subject["name"]),
        facts([(name, what) for name, what in known if what]),
        h("details", {}, h("summary", {}, say("Probes and their settings")), settings) if probes else None,
        _mends(subject["proofs"], say) if subject["proofs"] else None,
    )


def _mends(proofs: list[Json], say: Words) -> Html:
    rows = [
        h(
            "tr",
            {},
            h("th", {"scope": "row"}, p["label"]),
            h(
                "td",
                {},
                [h("code", {}, m) for m in p["after"]["mends"]] or text_of(p["mend"] and p["mend"]["settings"]),
            ),
            h("td", {}, _code(p["before"]["hash"]), " → ", _code(p["after"]["hash"])),
            h("td", {}, duration(p["seconds"])),
        )
        for p in proofs
    ]
    heads = [say("Mend"), say("Settings"), say("Model"), say("took")]
    return h(
        "details",
        {},
        h("summary", {}, say("Mends and their settings")),
        table("small", say("Mends"), heads, h("tbody", {}, rows)),
    )


def _files(files: list[Json], say: Words) -> Html:
    rows = [
        h(
            "tr",
            {},
            h("th", {"scope": "row"}, h("code", {}, f["path"])),
            h("td", {}, f"{f['lines']:,}"),
            h("td", {}, _code(f["sha256"])),
        )
        for f in files
    ]
    heads = [say("File"), say("cases"), "SHA-256"]
    inside = table("small", say("Rows"), heads, h("tbody", {}, rows))
    return h(
        "div",
        {},
        h("h3", {}, say("Rows")),
        h("p", {}, say("Every case, from which each figure can be recomputed.")),
        inside,
    )


def _code(text: str) -> Html | None:
    return h("code", {"class": "hash", "title": text}, text[:16] + ("…" if len(text) > 16 else "")) if text else None


def text_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {text_of(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    return str(value)


def answers(subject: Json, say: Words) -> Html:
    """What the model says, unchosen; nothing is measured on it."""
    pairs = [
        h("div", {"class": "answer"}, prompt(a["prompt"], say), quote(a["answer"], "after")) for a in subject["answers"]
    ]
    return h("div", {"class": "answers"}, pairs)
