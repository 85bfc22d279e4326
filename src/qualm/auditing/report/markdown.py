"""The same dictionary as Markdown, for a terminal or a pull request."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from qualm.auditing.report import evidence, telling
from qualm.auditing.report.words import Words
from qualm.page.figures import duration, figure, plain

Json = dict[str, Any]

SIGNS = {"better": "✔", "worse": "✘", "cannot tell": "○", "not measured": "–"}
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~$&])")


def markdown(page: Json) -> str:
    """The whole report of a "qualm.report/1" dictionary."""
    return "\n".join(_lines(page, Words(page["language"]))).rstrip() + "\n"


def inline(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def fenced(text: str) -> str:
    """Text as it stands, in a fence longer than any it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _lines(page: Json, say: Words) -> Iterator[str]:
    yield from (f"# {inline(page['title'])}", "", f"**{page['sentence']}**", "")
    if page["unfinished"]:
        coming = [inline(stage["name"]) for stage in page["stages"] if stage["seconds"] is None]
        yield say("This run goes on. What is here is final; the rest is still to come.")
        yield f"{say('still to come')}: {', '.join(coming)}" if coming else ""
        yield ""
    yield from (f"- {inline(note)}" for note in page["notes"])
    yield ""
    for subject in page["subjects"]:
        yield from _subject(subject, say)
    yield from _unmeasured(page, say)
    yield from _evidence(page, say)


def _subject(subject: Json, say: Words) -> Iterator[str]:
    yield from (f"## {inline(subject['name'])}", "")
    yield from _limits(subject, say)
    if subject["proofs"]:
        yield from _matrix(subject["proofs"], say)
    for proof in subject["proofs"]:
        yield from _proof(proof, say)
    if subject["answers"]:
        yield from (f"### {say('What it says')}", "")
    for answer in subject["answers"]:
        yield from (*_prompt(answer["prompt"]), "", fenced(answer["answer"]), "")


def _limits(subject: Json, say: Words) -> Iterator[str]:
    if not subject["audited"]:
        yield from (say("Its limits are still to be measured."), "")
        return
    heads = (say("Limit"), say("Reading"), say("95% interval"), say("Chance"), say("Rests on"), say("Direction"))
    yield from (f"### {say('Its limits')}", "")
    yield from table(heads, (row for limit in subject["limits"] for row in _limit(limit, say)))


def _limit(limit: Json, say: Words) -> Iterator[list[str]]:
    title = f"**{inline(limit['title'])}**: {inline(limit['measures'])}"
    read, unit = limit["reading"], limit["unit"]
    if read is None:
        yield [title, f"**{say('not measured')}**", inline(limit["why"]), "", "", ""]
        return
    chance = "" if limit["chance"] is None else figure(limit["chance"], unit, 1)
    value = f"**{telling.value(read, unit)}** {telling.unit_name(unit, say)}".rstrip()
    ends = telling.interval(read, unit, say)
    rests = telling.rests_on(read, say) + inline(telling.unread(limit, say))
    yield [title, value, ends, chance, rests, telling.direction(limit, say)]
    for part, r in limit["parts"].items():
        if r:
            ends = telling.interval(r, unit, say)
            yield [f"· {inline(part)}", telling.value(r, unit), ends, "", telling.rests_on(r, say), ""]
    yield from ([f"· {inline(name)}", plain(value), "", "", "", ""] for name, value in limit["figures"].items())


def _matrix(proofs: list[Json], say: Words) -> Iterator[str]:
    known = {change["name"]: change for proof in proofs for change in proof["changes"]}
    yield from (f"### {say('What each mend did to each limit')}", "")
    rows = ([_row_head(one, say), *(_cell(proof, name, say) for proof in proofs)] for name, one in known.items())
    yield from table([say("Limit"), *(inline(proof["label"]) for proof in proofs)], rows)
    yield " · ".join(f"{sign} {say(word)}" for word, sign in SIGNS.items()) + f" · **{say('what the mend is for')}**"
    yield ""


def _row_head(change: Json, say: Words) -> str:
    about = (telling.change_unit(change["unit"], say), telling.direction(change, say))
    return f"{inline(change['title'])} ({say(', ').join(x for x in about if x)})"


def _cell(proof: Json, name: str, say: Words) -> str:
    change = next((change for change in proof["changes"] if change["name"] == name), None)
    if change is None:
        return ""
    text = SIGNS[change["verdict"]]
    if change["verdict"] != "not measured":
        text = f"{text} {telling.moved(change, say, unit=False)}"
    return f"**{text}**" if change["claimed"] else text


def _proof(proof: Json, say: Words) -> Iterator[str]:
    yield from (f"### {inline(proof['label'])}", "", telling.tally(proof["counts"], say), "")
    yield from (f"- {inline(aim)}" for aim in telling.aims(proof, say))
    effects = telling.side_effects(proof, say)
    yield from (f"- {inline(effects)}" if effects else "", "")
    heads = ("Limit", "Before → after", "Difference", "95% interval", "Verdict", "Cases", "Note")
    yield from table(map(say, heads), (_change(change, say) for change in proof["changes"]))
    for change in proof["changes"]:
        if change["claimed"] or change["verdict"] == "worse":
            yield from _examples(change, say)


def _change(change: Json, say: Words) -> list[str]:
    title = f"**{inline(change['title'])}**" if change["claimed"] else inline(change["title"])
    verdict = f"{SIGNS[change['verdict']]} {say(change['verdict'])}"
    note = "; ".join(x for x in (telling.tested(change, say), inline(telling.beside(change, say))) if x)
    if change["verdict"] == "not measured":
        return [title, "", "", "", verdict, "", note]
    both, (moved, ends) = telling.both(change, say), telling.moved_columns(change, say)
    return [title, inline(both), moved, ends, verdict, telling.cases_moved(change, say), inline(note)]


def _examples(change: Json, say: Words) -> Iterator[str]:
    for kind in ("fixed", "broken"):
        for example in change["examples"][kind]:
            yield from (f"#### {inline(change['title'])}: {say(kind)}", "", *_prompt(example["prompt"]), "")
            if example["target"]:
                yield from (f"{say('expected')}: {inline(example['target'])}", "")
            for side in ("before", "after"):
                said = example[side]
                yield from (
                    f"{say(side)}:",
                    "",
                    fenced(_said(said)),
                    "",
                )


def _said(side: Json) -> str:
    return plain(side["value"]) if side["answer"] is None else side["answer"]


def _prompt(turns: list[Json]) -> list[str]:
    return [
        f"> {inline(turn['content'])}" if len(turns) == 1 else f"> {inline(turn['role'])}: {inline(turn['content'])}"
        for turn in turns
    ]


def _unmeasured(page: Json, say: Words) -> Iterator[str]:
    yield from (f"## {say('What could not be measured')}", "")
    if not page["unmeasured"]:
        yield from (say("So far nothing was left out.") if page["unfinished"] else say("Nothing was left out."), "")
        return
    rows = (
        [h["title"], f"{h['subject']} + {h['with']}" if h["with"] else h["subject"], h["why"]]
        for h in page["unmeasured"]
    )
    yield from table(map(say, ("Limit", "Model", "Why")), (map(inline, row) for row in rows))


def _evidence(page: Json, say: Words) -> Iterator[str]:
    yield from (f"## {say('What was run on what')}", "")
    if page["command"]:
        yield from (fenced(page["command"]), "")
    if page["stages"]:
        rows = ([inline(stage["name"]), evidence.took(stage, say)] for stage in page["stages"])
        yield from table((say("Stage"), say("took")), rows)
    machine = {**page["machine"], "qualm": page["qualm"], "schema": page["schema"], "when": page["when"]}
    yield from table((say("Machine"), ""), ([inline(str(k)), inline(evidence.text_of(v))] for k, v in machine.items()))
    for subject in page["subjects"]:
        card = {k: v for k, v in subject["card"].items() if v}
        yield from table((inline(subject["name"]), ""), ([k, inline(evidence.text_of(v))] for k, v in card.items()))
        probes = ([inline(m["title"]), f"`` {m['probe']} ``", duration(m["seconds"])] for m in subject["limits"])
        yield from table((say("Limit"), say("Probe"), say("took")), probes)
    if page["files"]:
        rows = ([f["path"], f"{f['lines']:,}", f["sha256"]] for f in page["files"])
        yield from table((say("File"), say("cases"), "SHA-256"), rows)
