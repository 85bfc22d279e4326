"""Audits and proofs as folders, and back: record.json for the figures, rows.jsonl for what they were computed from.

The shapes are described in docs/formats.md.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from qualm import __version__, registry
from qualm.auditing import lm_eval
from qualm.auditing.lm_eval import read_lines
from qualm.auditing.readings import margin, plain
from qualm.auditing.types import Audit, Change, Measurement, Proof, Reading
from qualm.cases import Case, Prompt, Row
from qualm.config import build, to_dict
from qualm.errors import InputError, UsageError
from qualm.files import read_json, write_json, writing
from qualm.lm.base import Card
from qualm.probes.base import Probe

AUDIT, PROOF = "qualm.audit/1", "qualm.proof/1"
RECORD, ROWS = "record.json", "rows.jsonl"
SIDES = ("before", "after")
QUALM, LM_EVAL = "qualm", "lm-eval"  # where a probe comes from, so that it can be built again

T = TypeVar("T")
Json = dict[str, Any]
Asked = tuple[list[Case], list[Row]]


def save(thing: Audit | Proof, folder: Path | str) -> None:
    """Write an audit or a proof. The rows come first, so that a record.json is never without them."""
    folder = Path(folder)
    if isinstance(thing, Proof):
        for side in SIDES:
            save(getattr(thing, side), folder / side)
    else:
        with writing(folder / ROWS) as file:
            file.writelines(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in _lines(thing))
    write_json(folder / RECORD, document(thing))


def read(folder: Path | str) -> Audit | Proof:
    """What `save` wrote. Raises InputError naming the file, and the line, if it cannot be used."""
    folder = Path(folder)
    where = str(folder / RECORD)
    found = read_json(folder / RECORD)
    schema = found.get("schema") if isinstance(found, dict) else None
    try:
        if schema == AUDIT:
            return _audit(found, folder / ROWS)
        if schema == PROOF:
            before, after = (read_audit(folder / side) for side in SIDES)
            return Proof(before, after, tuple(map(_change, found["changes"])), found["mend"], found["seconds"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"is damaged: {error}", where=where, then="make the record again") from error
    except UsageError as error:
        raise InputError(f"cannot be read with this version: {error}", where=where) from error
    raise InputError(f"its schema is {schema!r}, not {AUDIT} or {PROOF}", where=where)


def read_audit(path: Path | str) -> Audit:
    """The audit in a folder, or in the samples_*.jsonl files of lm-eval's --log_samples."""
    path = Path(path)
    if path.suffix == ".jsonl" or (path.is_dir() and not (path / RECORD).exists() and lm_eval.samples(path)):
        return lm_eval.read(path)
    if not path.is_dir():
        raise InputError(
            "is no audit's folder", where=str(path), then="name a folder that an audit wrote, or a samples_*.jsonl file"
        )
    found = read(path)
    if isinstance(found, Proof):
        raise InputError(
            "holds a proof, not an audit", where=str(path), then=f"name {path / SIDES[0]} or {path / SIDES[1]}"
        )
    return found


def document(thing: Audit | Proof) -> Json:
    """What record.json holds."""
    if isinstance(thing, Proof):
        sides = {side: {"subject": (a := getattr(thing, side)).subject, "card": _card(a.card)} for side in SIDES}
        return {
            "schema": PROOF,
            "qualm": __version__,
            "mend": dict(thing.mend) if thing.mend else None,
            **sides,
            "seconds": thing.seconds,
            "summary": thing.summary,
            "changes": [_change_document(change, thing.before[change.name].probe) for change in thing.changes],
        }
    return {
        "schema": AUDIT,
        "qualm": __version__,
        "subject": thing.subject,
        "card": _card(thing.card),
        "machine": dict(thing.machine),
        "seconds": thing.seconds,
        "measurements": [_measurement_document(m) for m in thing.measurements],
    }


def _card(card: Card) -> Json:
    return {**asdict(card), "mends": list(card.mends), "hash": card.hash}


def _meaning(name: str, probe: Probe, before: Reading | None) -> Json:
    """`before` is the reading that the margin stands beside."""
    kept = {key: getattr(probe, key) for key in ("limit", "better", "unit")}
    return {"name": name, **kept, "margin": margin(probe, before), "live": probe.live}


def _measurement_document(m: Measurement) -> Json:
    return {
        **_meaning(m.name, m.probe, m.reading),
        "from": LM_EVAL if isinstance(m.probe, lm_eval.Logged) else QUALM,
        "settings": to_dict(m.probe),
        "reading": asdict(m.reading) if m.reading else None,
        "why": m.why,
        "chance": m.chance,
        "parts": {part: asdict(each) for part, each in m.parts.items()},
        "figures": dict(m.figures),
        "cases": len(m.cases),
        "unread": m.unread,
        "unread_why": m.unread_why,
        "seconds": m.seconds,
    }


def _change_document(change: Change, probe: Probe) -> Json:
    parts = {part: dict(zip(SIDES, map(asdict, pair), strict=True)) for part, pair in change.parts.items()}
    return {**_meaning(change.name, probe, change.before), **asdict(change), "parts": parts}


def _lines(audit: Audit) -> Iterator[Json]:
    for m in audit.measurements:
        for case, row in zip(m.cases, m.rows, strict=True):
            yield {
                "probe": m.name,
                **{key: getattr(case, key) for key in ("id", "group", "part", "split")},
                "prompt": case.prompt if isinstance(case.prompt, str) else [dict(turn) for turn in case.prompt],
                "target": case.target,
                "choices": list(case.choices),
                "row": plain(row, f"{m.name}, case {case.id}"),
            }


def _rows(path: Path) -> Mapping[str, Asked]:
    """The cases and rows of each probe."""
    found: defaultdict[str, Asked] = defaultdict(lambda: ([], []))
    for number, line in enumerate(read_lines(path), 1):
        try:
            each = json.loads(line)
            cases, rows = found[each["probe"]]
            cases.append(_case(each))
            rows.append(dict(each["row"]))
        except (ValueError, KeyError, TypeError) as error:
            where = f"{path}:{number}"
            raise InputError(f"a damaged line ({error})", where=where, then="make the record again") from error
    return found


def _case(line: Json) -> Case:
    prompt: Prompt = line["prompt"] if isinstance(line["prompt"], str) else tuple(line["prompt"])
    choices = tuple(line["choices"])
    return Case(line["id"], prompt, line["target"], choices, group=line["group"], part=line["part"])


def _audit(found: Json, path: Path) -> Audit:
    rows = _rows(path)
    made = [_measurement(each, *rows.get(each["name"], ([], []))) for each in found["measurements"]]
    for m, each in zip(made, found["measurements"], strict=True):
        if len(m.cases) != each["cases"]:
            raise InputError(f"has {len(m.cases)} rows of {m.name}, not {each['cases']}", where=str(path))
    return Audit(found["subject"], _known(Card, found["card"]), tuple(made), found["machine"], found["seconds"])


def _measurement(found: Json, cases: list[Case], rows: list[Row]) -> Measurement:
    return Measurement(
        found["name"],
        _probe(found),
        _reading(found["reading"]),
        found["why"],
        tuple(cases),
        tuple(rows),
        {part: _known(Reading, each) for part, each in found["parts"].items()},
        found["figures"],
        found["chance"],
        found["seconds"],
    )


def _probe(found: Json) -> Probe:
    if found["from"] == LM_EVAL:
        return lm_eval.rebuild(found["settings"])
    probe: Probe = build(registry.find("probes", found["name"]), found["settings"])
    return probe


def _change(found: Json) -> Change:
    before, after = (_reading(found[side]) for side in SIDES)
    parts = {
        name: (_known(Reading, pair["before"]), _known(Reading, pair["after"])) for name, pair in found["parts"].items()
    }
    bare = {key: value for key, value in found.items() if key not in (*SIDES, "parts")}
    return replace(_known(Change, {**bare, "before": None, "after": None}), before=before, after=after, parts=parts)


def _reading(found: Json | None) -> Reading | None:
    return _known(Reading, found) if found else None


def _known(kind: type[T], found: Json) -> T:
    """Built from the fields this version knows: a later one may have added some."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return build(kind, {key: value for key, value in found.items() if key in names})
