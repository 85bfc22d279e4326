"""From the audits and proofs to one dictionary, schema "qualm.report/1": all that the page and the Markdown show."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from numbers import Real
from sys import modules
from typing import Any

from qualm import __version__
from qualm.auditing.readings import margin
from qualm.auditing.report.content import Report, Subject
from qualm.auditing.report.examples import FEWEST, MOST, examples, turns
from qualm.auditing.report.series import chart
from qualm.auditing.report.words import Words
from qualm.auditing.types import Change, Measurement, Proof, Reading
from qualm.lm.base import PSEUDO, Card
from qualm.page.axes import ends, reined

SCHEMA = "qualm.report/1"
CHANGED = (
    "difference", "low", "high", "method", "p", "p_holm", "test", "detectable", "harmless",
    "fixed", "broken", "unchanged", "n", "groups",
)  # fmt: skip
VERDICTS = ("better", "worse", "cannot tell", "not measured")
CLIP = 700  # characters of a sample answer or a prompt on the page; the rows beside it hold them whole
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

Json = dict[str, Any]


def build(report: Report, files: Iterable[Mapping[str, Any]] = (), language: str = "en") -> Json:
    """The dictionary. `files` lists what was written beside the page: {"path", "lines", "sha256"}."""
    taken: Counter[str] = Counter()
    say = Words(language)
    subjects = [_named(_subject(subject, taken), say) for subject in report.subjects]
    page = {
        "schema": SCHEMA,
        "qualm": __version__,
        "language": language,
        "title": report.title,
        "when": report.when or datetime.now(UTC).isoformat(timespec="seconds"),
        "unfinished": report.unfinished,
        "summary": _summary(subjects),
        "subjects": subjects,
        "unmeasured": [hole for subject in subjects for hole in _holes(subject)],
        "stages": [asdict(stage) for stage in report.stages],
        "machine": dict(report.machine),
        "notes": [*report.notes, *_of_scores(report, say)],
        "command": report.command,
        "files": list(files),
    }
    page["sentence"] = sentence(page, say)
    return plain_json(page)


def _of_scores(report: Report, say: Words) -> list[str]:
    """What to know of scores that are no likelihoods."""
    named = [subject.name for subject in report.subjects if subject.card.scoring == PSEUDO]
    told = say(
        "{name}: its scores are pseudo-likelihoods, each token given all others; its bits per byte are not to be set"
        " against those of a model that reads from left to right.",
        name=", ".join(named),
    )
    return [told] if named else []


def _named(subject: Json, say: Words) -> Json:
    """The titles of limits and mends in the reader's language, where it has words for them."""
    for proof in subject["proofs"]:
        proof["label"] = say(proof["label"]) if proof["mend"] else proof["label"]
    for limit in (*subject["limits"], *(change for proof in subject["proofs"] for change in proof["changes"])):
        limit["title"] = say(limit["title"])
    return subject


def sentence(page: Json, say: Words) -> str:
    """The whole report in one sentence."""
    count = page["summary"]
    limits = say.count(count["limits"], "{n} limit", "{n} limits")
    several = count["subjects"] > 1
    models = say(" of {models}", models=say.count(count["subjects"], "{n} model", "{n} models")) if several else ""
    if not count["proofs"]:
        if not count["limits"]:
            return say("Nothing is measured yet.")
        missing = count["unmeasured"]
        if missing:
            told = "{limits}{models} looked at; {n} could not be measured."
            return say(told, limits=limits, models=models, n=missing)
        return say("{limits}{models} measured.", limits=limits, models=models)
    counts = [say(f"{{n}} {word}", n=count[word]) for word in VERDICTS if count[word] or word in ("better", "worse")]
    mends = say.count(count["mends"], "{n} mend", "{n} mends") if count["mends"] else say("A change")
    return say(
        "{mends} proved on {limits}{models}: {counts}.",
        mends=mends,
        limits=limits,
        models=models,
        counts=say(", ").join(counts),
    )


def _summary(subjects: list[Json]) -> Json:
    changes = [change for subject in subjects for proof in subject["proofs"] for change in proof["changes"]]
    verdicts = Counter(change["verdict"] for change in changes)
    limits = {limit["name"] for subject in subjects for limit in subject["limits"]}
    return {
        "subjects": sum(bool(subject["limits"] or subject["proofs"]) for subject in subjects),
        "limits": len(limits | {change["name"] for change in changes}),
        "unmeasured": sum(limit["reading"] is None for subject in subjects for limit in subject["limits"]),
        "proofs": sum(len(subject["proofs"]) for subject in subjects),
        "mends": len({p["label"] for subject in subjects for p in subject["proofs"] if p["mend"]}),
        "harmless": sum(change["harmless"] is True for change in changes),
        **{word: verdicts[word] for word in VERDICTS},
    }


def _holes(subject: Json) -> Iterable[Json]:
    """Every reading and every verdict that is not there, and why."""
    for limit in subject["limits"]:
        if limit["reading"] is None:
            yield {
                "subject": subject["name"],
                "with": "",
                "name": limit["name"],
                "title": limit["title"],
                "why": limit["why"],
            }
    known = {limit["name"]: limit["why"] for limit in subject["limits"]}
    for proof in subject["proofs"]:
        for change in proof["changes"]:
            if change["verdict"] == "not measured" and change["why"] != known.get(change["name"]):
                named = {key: change[key] for key in ("name", "title", "why")}
                yield {"subject": subject["name"], "with": proof["label"], **named}


def _subject(subject: Subject, taken: Counter[str]) -> Json:
    measured = subject.audit.measurements if subject.audit else ()
    sides = [m for proof in subject.proofs for side in (proof.before, proof.after) for m in side.measurements]
    scales = {m.name: _scale([x for x in (*measured, *sides) if x.name == m.name]) for m in (*measured, *sides)}
    word = unique(f"model-{subject.name}", taken)
    return {
        "name": subject.name,
        "id": word,
        "card": _card(subject.card),
        "audited": subject.audit is not None,
        "seconds": subject.audit.seconds if subject.audit else None,
        "machine": dict(subject.audit.machine) if subject.audit else {},
        "limits": [{"id": f"{word}-{i}", **_limit(m, scales[m.name])} for i, m in enumerate(measured)],
        "proofs": [
            _proof(proof, label, scales, taken)
            for proof, label in zip(subject.proofs, _labels(subject.proofs), strict=True)
        ],
        "answers": [{"prompt": turns(a.prompt, CLIP), "answer": a.text[:CLIP]} for a in subject.answers],
    }


def _card(card: Card) -> Json:
    return {**asdict(card), "hash": card.hash}


def _limit(m: Measurement, scale: tuple[float, float]) -> Json:
    reading = _reading(m.reading)
    why = m.why or ("" if reading else "the reading is not a finite number")
    return {
        **_meaning(m, scale),
        "reading": reading,
        "why": why,
        "chance": m.chance,
        "parts": {part: _reading(r) for part, r in m.parts.items()},
        "figures": dict(m.figures),
        "cases": len(m.cases),
        "unread": m.unread,
        "unread_why": m.unread_why,
        "seconds": m.seconds,
        "probe": repr(m.probe),
        "chart": chart(m),
    }


def _meaning(m: Measurement, scale: tuple[float, float]) -> Json:
    probe = m.probe
    return {
        "name": m.name,
        "title": m.name.replace("_", " ").replace("-", " ").capitalize(),
        "limit": probe.limit,
        "measures": _first_line(type(probe)),
        "better": probe.better,
        "unit": probe.unit,
        "margin": margin(probe, m.reading),
        "scale": list(scale),
    }


def _first_line(kind: type) -> str:
    """What the probe's docstring says first; a dataclass without one carries its signature instead."""
    own = kind.__doc__ or ""
    doc = (getattr(modules[kind.__module__], "__doc__", "") or "") if own.startswith(f"{kind.__name__}(") else own
    paragraph = " ".join(doc.strip().split("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".").replace("`", "")


def _reading(reading: Reading | None) -> Json | None:
    if reading is None or not isfinite(reading.value):
        return None
    return asdict(reading)


def _scale(measurements: list[Measurement]) -> tuple[float, float]:
    """The axis all readings of one probe share: 0..1 for a share, round ends around the readings for other units."""
    readings = [m.reading for m in measurements if m.reading and isfinite(m.reading.value)]
    parts = [r for m in measurements for r in m.parts.values() if isfinite(r.value)]
    core = [x for r in readings for x in (r.value, r.low, r.high)] + [r.value for r in parts]
    core = [float(x) for x in (*core, *(m.chance for m in measurements)) if x is not None and isfinite(x)]
    wide = [x for r in parts for x in (r.low, r.high) if isfinite(x)]
    return ends(reined(core, wide) if core else [], measurements[0].probe.unit == "share")


def _labels(proofs: tuple[Proof, ...]) -> list[str]:
    """The mend's name; where one is proved twice, with the settings that differ from its first proof."""
    labels, first = [], {}
    for proof in proofs:
        if proof.mend is None:
            labels.append(proof.after.subject)
            continue
        name, settings = proof.mend["name"], proof.mend["settings"]
        known = first.setdefault(name, settings)
        other = [f"{key} {value}" for key, value in settings.items() if known.get(key) != value]
        label = name.replace("_", " ").capitalize()
        labels.append(f"{label} ({', '.join(other)})" if other else label)
    return labels


def _proof(proof: Proof, label: str, scales: Mapping[str, tuple[float, float]], taken: Counter[str]) -> Json:
    mend = dict(proof.mend) if proof.mend else None
    name = mend["name"] if mend else proof.after.subject
    claims = set(mend.get("mends", ())) if mend else set()
    word = unique(f"mend-{proof.before.subject}-{name}", taken)
    changes = [{"id": f"{word}-{i}", **_change(c, proof, scales, claims)} for i, c in enumerate(proof.changes)]
    verdicts = Counter(change["verdict"] for change in changes)
    return {
        "name": name,
        "id": word,
        "label": label,
        "mend": mend,
        "before": {"subject": proof.before.subject, "hash": proof.before.card.hash},
        "after": {"subject": proof.after.subject, "hash": proof.after.card.hash, "mends": list(proof.after.card.mends)},
        "seconds": proof.seconds,
        "counts": {word: verdicts[word] for word in VERDICTS},
        "harmless": sum(change["harmless"] is True for change in changes),
        "changes": changes,
    }


def _change(change: Change, proof: Proof, scales: Mapping[str, tuple[float, float]], claims: set[str]) -> Json:
    before, after = proof.before[change.name], proof.after[change.name]
    numbers = asdict(change)
    claimed = bool({before.probe.limit, change.name} & claims)
    missing = change.difference is None or not isfinite(change.difference)
    charts = (chart(before), chart(after)) if claimed else (None, None)
    return {
        **_meaning(before, scales[change.name]),
        **{k: numbers[k] for k in CHANGED},
        "margin": margin(before.probe, change.before),
        "verdict": "not measured" if missing else change.verdict,
        "claimed": claimed,
        "before": _reading(change.before),
        "after": _reading(change.after),
        "why": change.why or ("there is no difference that is a finite number" if missing else ""),
        "parts": {part: {"before": _reading(b), "after": _reading(a)} for part, (b, a) in change.parts.items()},
        "figures": _both(before.figures, after.figures),
        "examples": examples(before, after, MOST if claimed or change.verdict != "cannot tell" else FEWEST),
        "charts": {"before": charts[0], "after": charts[1]} if all(charts) else None,
    }


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "model"


def _both(before: Mapping[str, float], after: Mapping[str, float]) -> Json:
    return {name: {"before": before.get(name), "after": after.get(name)} for name in {**before, **after}}


def unique(name: str, taken: Counter[str]) -> str:
    """A word fit for an id and a file name, given out once."""
    word = slug(name)
    taken[word] += 1
    return word if taken[word] == 1 else unique(f"{word}-{taken[word]}", taken)


def plain_json(value: Any) -> Any:
    """The value in JSON's own terms: numbers finite or null, text without control characters, the rest as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, Real):
        return float(value) if isfinite(value) else None
    if isinstance(value, str):
        return CONTROL.sub("\N{REPLACEMENT CHARACTER}", value.replace("\r\n", "\n"))
    if isinstance(value, Mapping):
        return {plain_json(str(key)): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return plain_json(str(value))
