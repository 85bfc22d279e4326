"""The page: one file that loads nothing, runs one known script, and shows one dictionary."""

import re
from typing import Any

from qualm.auditing.report import evidence, limits, mended
from qualm.auditing.report.bits import section
from qualm.auditing.report.cases import cases
from qualm.auditing.report.svg import bar, glyph, glyphs
from qualm.auditing.report.telling import VERDICTS
from qualm.auditing.report.words import Words
from qualm.page.markup import Html, h
from qualm.page.sheet import THEME, Sheet, document

Json = dict[str, Any]


def html(page: Json) -> str:
    """The whole page of a "qualm.report/1" dictionary."""
    say = Words(page["language"])
    own = str(__package__)
    style, script = (THEME, (own, "page.css")), ((own, "page.js"),)
    return document(Sheet(page["title"], f"qualm {page['qualm']}", style, script, page["language"]), _body(page, say))


def _body(page: Json, say: Words) -> list[Html]:
    several = len(page["subjects"]) > 1
    subjects = [_subject(subject, page, several, say) for subject in page["subjects"]]
    closing = [
        section(
            "unmeasured",
            say("What could not be measured"),
            evidence.unmeasured(page["unmeasured"], page["unfinished"], say),
        ),
        section("evidence", say("What was run on what"), evidence.provenance(page, say)),
    ]
    return [
        h("a", {"class": "skip", "href": "#main"}, say("Skip to the figures")),
        glyphs(),
        _bar(page, several, say),
        h("main", {"id": "main"}, _header(page, say), subjects, closing),
        h("footer", {}, h("p", {}, f"Qualm {page['qualm']} · {page['schema']}")),
        h(
            "dialog",
            {"id": "case", "aria-label": say("Details")},
            h("button", {"type": "button", "class": "close"}, say("Close")),
            h("div", {}),
        ),
    ]


def _bar(page: Json, several: bool, say: Words) -> Html:
    if several:
        links = [(subject["id"], subject["name"]) for subject in page["subjects"]]
    else:
        links = [(f"{s['id']}-{name}", say(title)) for s in page["subjects"] for name, title in _parts_of(s)]
    links += [("unmeasured", say("Not measured")), ("evidence", say("Evidence"))]
    return h(
        "nav",
        {"aria-label": say("Contents")},
        h("a", {"class": "brand", "href": "#main"}, "Qualm"),
        h("ul", {}, [h("li", {}, h("a", {"href": f"#{target}"}, text)) for target, text in links]),
        h(
            "button",
            {"type": "button", "class": "theme", "hidden": True, "aria-label": say("Light or dark")},
            h("span", {}),
        ),
    )


def _header(page: Json, say: Words) -> Html:
    count = page["summary"]
    told = bar(count, VERDICTS, page["sentence"]) if count["proofs"] else None
    keys = [
        h("span", {"class": word.replace(" ", "-")}, glyph(word), f" {count[word]} ", say(word))
        for word in VERDICTS
        if count[word]
    ]
    when = page["when"].replace("T", " ").removesuffix("+00:00") + (" UTC" if page["when"].endswith("+00:00") else "")
    return h(
        "header",
        {"class": "top"},
        h("p", {"class": "over"}, h("time", {"datetime": page["when"]}, when)),
        h("h1", {}, page["title"]),
        h("p", {"class": "sentence"}, re.sub(r"(?<=\d) ", "\N{NO-BREAK SPACE}", page["sentence"])),
        told,
        h("p", {"class": "keys"}, keys) if told else None,
        _coming(page, say) if page["unfinished"] else None,
        h("ul", {"class": "notes"}, [h("li", {}, note) for note in page["notes"]]) if page["notes"] else None,
    )


def _coming(page: Json, say: Words) -> Html:
    steps = [
        h(
            "li",
            {"class": "coming" if stage["seconds"] is None else "done"},
            h("span", {}, stage["name"]),
            h("small", {}, evidence.took(stage, say)),
        )
        for stage in page["stages"]
    ]
    said = say("This run goes on. What is here is final; the rest is still to come.")
    return h("div", {"class": "running", "role": "status"}, h("p", {}, said), h("ol", {}, steps))


def _parts_of(subject: Json) -> list[tuple[str, str]]:
    """The sections a model has, by id and title."""
    parts = [("limits", "Limits")]
    if subject["proofs"]:
        parts += [("effects", "Side effects")] if len(subject["proofs"]) > 1 else []
        parts += [("mends", "Before and after"), ("cases", "Cases")]
    return [*parts, ("answers", "Answers")] if subject["answers"] else parts


def _subject(subject: Json, page: Json, several: bool, say: Words) -> Html:
    name = subject["id"]
    inside = [_sub(f"{name}-limits", say("Its limits"), limits.limits_card(subject, say))]
    proofs = subject["proofs"]
    if proofs:
        title = say("What each mend did to each limit")
        if len(proofs) > 1:
            inside.append(_sub(f"{name}-effects", title, mended.matrix(subject, say)))
        inside += [
            _sub(f"{name}-mends", say("Before and after"), *(mended.proof_card(proof, say) for proof in proofs)),
            _sub(f"{name}-cases", say("Cases fixed and broken"), *(cases(proof, say) for proof in proofs)),
        ]
    elif page["unfinished"]:
        inside.append(h("p", {"class": "coming"}, say("No mend is proved on it yet.")))
    if subject["answers"]:
        inside.append(_sub(f"{name}-answers", say("What it says"), evidence.answers(subject, say)))
    return section(name, subject["name"], limits.card_line(subject, say), *inside)


def _sub(name: str, title: str, *children: Html) -> Html:
    return h(
        "section", {"id": name, "aria-labelledby": f"{name}-title"}, h("h3", {"id": f"{name}-title"}, title), children
    )
