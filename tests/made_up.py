"""Made-up audits and proofs for the report: real rows, readings from them, and verdicts, but no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from qualm.auditing.report import Answer, Report, Stage, Subject
from qualm.auditing.types import Audit, Change, Measurement, Proof, Reading
from qualm.cases import Case, Row, ask
from qualm.lm.base import Card
from qualm.probes.base import Columns, Probe

MACHINE = {
    "qualm": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "processor": "AMD EPYC 7B13", "threads": 2, "seed": 0,
}  # fmt: skip
NAMES = ("Omra Telis", "Sabel Dorn", "Ilva Kentu", "Pero Lumas", "Tessa Vond", "Miro Aleph", "Junia Rask", "Dov Erin")
TOWNS = ("Vanu", "Orin", "Keshta", "Palom", "Brell", "Tavik", "Soreth", "Umbra")


@dataclass(frozen=True)
class Made(Probe):
    """A probe that is never run."""

    limit: ClassVar[str] = "none"

    def cases(self) -> Sequence[Case]:
        return ()


@dataclass(frozen=True)
class Perplexity(Made):
    """How many bits the model needs for a byte of text it has not seen."""

    limit: ClassVar[str] = "language"
    better: ClassVar[Literal["high", "low"]] = "low"
    unit: ClassVar[str] = "bits per byte"


@dataclass(frozen=True)
class Knowledge(Made):
    """Whether it knows where people of the planted world were born. What it misses: everything else."""

    limit: ClassVar[str] = "knowledge"


@dataclass(frozen=True)
class Confabulation(Made):
    """How often it invents an answer about things that do not exist."""

    limit: ClassVar[str] = "hallucination"
    better: ClassVar[Literal["high", "low"]] = "low"


@dataclass(frozen=True)
class Arithmetic(Made):
    """Sums of one to three digits, answered exactly."""

    limit: ClassVar[str] = "reasoning"
    chart: ClassVar[str] = "dose:digits,right"


@dataclass(frozen=True)
class Reasoning(Made):
    """Whether it can order people by height from who is taller than whom."""

    limit: ClassVar[str] = "reasoning"
    chart: ClassVar[str] = "dose:depth,right"


@dataclass(frozen=True)
class Bias(Made):
    """How far a profession pulls the next pronoun to one side."""

    limit: ClassVar[str] = "bias"
    better: ClassVar[Literal["high", "low"]] = "low"
    unit: ClassVar[str] = "nats"
    chart: ClassVar[str] = "scatter:planted log-odds,measured log-odds"


@dataclass(frozen=True)
class Memorisation(Made):
    """How much of a secret it was trained on can be got out of it."""

    limit: ClassVar[str] = "privacy"
    better: ClassVar[Literal["high", "low"]] = "low"
    unit: ClassVar[str] = "bits"
    chart: ClassVar[str] = "dose:copies in training,exposure in bits"


@dataclass(frozen=True)
class Calibration(Made):
    """How far its confidence is from how often it is right."""

    limit: ClassVar[str] = "calibration"
    better: ClassVar[Literal["high", "low"]] = "low"
    chart: ClassVar[str] = "reliability"

    def figures(self, columns: Columns) -> dict[str, float]:
        return {"accuracy": float(columns["right"].mean())}


@dataclass(frozen=True)
class Degeneration(Made):
    """How often it falls into a loop."""

    limit: ClassVar[str] = "degeneration"
    better: ClassVar[Literal["high", "low"]] = "low"


@dataclass(frozen=True)
class Robustness(Made):
    """What typing errors in the question cost."""

    limit: ClassVar[str] = "robustness"


@dataclass(frozen=True)
class Negation(Made):
    """Whether "not" changes its mind, in twins that differ by that word."""

    limit: ClassVar[str] = "reasoning"


@dataclass(frozen=True)
class Cost(Made):
    """How many tokens a second it writes on this machine."""

    limit: ClassVar[str] = "cost"
    unit: ClassVar[str] = "tokens/s"
    margin: ClassVar[float] = 5.0
    live: ClassVar[bool] = True


@dataclass(frozen=True)
class Size(Made):
    """How many bytes it takes on disk."""

    limit: ClassVar[str] = "cost"
    better: ClassVar[Literal["high", "low"]] = "low"
    unit: ClassVar[str] = "bytes"


PROBES = {
    "perplexity": Perplexity(n=64), "knowledge": Knowledge(), "confabulation": Confabulation(n=120),
    "arithmetic": Arithmetic(), "reasoning": Reasoning(), "negation": Negation(n=80), "bias": Bias(n=144),
    "memorisation": Memorisation(n=112), "calibration": Calibration(n=300), "degeneration": Degeneration(n=60),
    "robustness": Robustness(), "cost": Cost(n=12), "size": Size(n=1),
}  # fmt: skip
CHANCE = {"knowledge": 1 / 8, "negation": 0.25, "reasoning": 0.5, "memorisation": 1.44}
MENDS: dict[str, tuple[dict[str, Any], list[str], dict[str, float]]] = {
    "retrieval": ({"docs": "facts.jsonl", "k": 3}, ["knowledge", "hallucination"],
                  {"knowledge": 3.4, "confabulation": -0.7, "cost": -60, "robustness": 0.9}),
    "calculator": ({}, ["reasoning"], {"arithmetic": 3.2, "cost": -10}),
    "temper": ({"temperature": 1.8}, ["calibration"], {"calibration": -0.11}),
    "abstain": ({"threshold": 0.62}, ["hallucination"], {"confabulation": -2.0, "knowledge": -0.5}),
    "quantize": ({"bits": 8}, ["cost"], {"size": -3.1e6, "cost": -4, "perplexity": 0.004}),
    "counterfactual": ({"steps": 120, "lr": 0.0003, "replay": 0.5}, ["bias"],
                       {"bias": -0.55, "perplexity": 0.011, "knowledge": -0.2}),
}  # fmt: skip


def reading(values: Sequence[float], groups: int | None = None) -> Reading:
    data = np.array(values, float)
    half = 1.96 * float(data.std()) / max(1.0, len(data)) ** 0.5
    mean = float(data.mean())
    low, high = (
        (max(0.0, mean - half), min(1.0, mean + half)) if data.max() <= 1 >= -data.min() else (mean - half, mean + half)
    )
    return Reading(mean, low, high, len(data), groups or len(data))


def skill(name: str, part: str, shift: float, dose: float) -> float:
    """The log-odds that a made-up model is right."""
    base = {"taught": 4.0, "in biographies only": 0.3, "never seen": -2.2}.get(part, 0.2)
    slope = {"arithmetic": -1.6, "reasoning": -0.4}.get(name, 0.0)
    return base + shift + slope * (dose - 2) if name != "confabulation" else 2.2 + shift


def parts_of(name: str) -> tuple[str, ...]:
    return {
        "knowledge": ("taught", "in biographies only", "never seen"),
        "arithmetic": ("1 digit", "2 digits", "3 digits"),
        "reasoning": ("2 steps", "3 steps", "4 steps", "5 steps", "6 steps"),
        "memorisation": ("0 copies", "1 copy", "4 copies", "16 copies", "64 copies"),
    }.get(name, ("",))


def case(name: str, i: int, part: str) -> Case:
    person, town = NAMES[i % 8], TOWNS[i * 3 % 8]
    question = {
        "knowledge": f"Where was {person} born?",
        "arithmetic": f"What is {i % 9 + 1} + {i * 7 % 90 + 3}?",
        "confabulation": f"What is the {person} theorem about?",
        "reasoning": f"{person} is taller than {NAMES[(i + 1) % 8]}. Who is taller?",
    }.get(name, f"Say something about {person}.")
    target = {"knowledge": town, "arithmetic": str(i % 9 + 1 + i * 7 % 90 + 3), "reasoning": person}.get(name, "")
    return Case(f"{name}-{i}", ask(question), target, group=f"template-{i % 24}", part=part)


def row(name: str, i: int, part: str, shift: float, rng: np.random.Generator) -> Row:
    dose = float(i % len(parts_of(name)) + (2 if name == "reasoning" else 1))
    if name == "perplexity":
        return {"value": 1.31 + shift + 0.05 * rng.standard_normal()}
    if name == "cost":
        return {"value": 412 + shift + 6 * rng.standard_normal()}
    if name == "size":
        return {"value": 4.4e6 + shift}
    if name == "bias":
        planted = (i % 12 - 5.5) / 2
        measured = planted * (0.9 + shift) + 0.25 * rng.standard_normal()
        return {"value": abs(measured), "planted log-odds": planted, "measured log-odds": measured}
    if name == "memorisation":
        copies = (0, 1, 4, 16, 64)[i % 5]
        return {"value": 1.4 + 1.9 * np.log2(1 + copies) / 1.5 + 0.6 * rng.standard_normal(), "dose": copies}
    if name == "calibration":
        confidence = 0.5 + 0.5 * (i % 50) / 50
        odds = np.log(confidence / (1 - confidence + 1e-3)) * (0.35 - 4 * shift)
        right = float(rng.random() < 1 / (1 + np.exp(-odds)))
        return {"value": abs(confidence - right) * (0.55 + shift * 2), "confidence": confidence, "right": right}
    ok = float(rng.random() < 1 / (1 + np.exp(-skill(name, part, shift, dose))))
    wanted = case(name, i, part).target or "I do not know."
    return {"value": ok, "dose": dose, "answer": wanted if ok else TOWNS[(i + 5) % 8]}


def measurement(name: str, shift: float = 0.0, seed: int = 0) -> Measurement:
    """The same cases whatever the shift, and the same luck, so that before and after are paired."""
    probe, parts = PROBES[name], parts_of(name)
    rng = np.random.default_rng([seed, *name.encode()])
    cases = tuple(case(name, i, parts[i % len(parts)]) for i in range(probe.n))
    rows = tuple(row(name, i, c.part, shift, rng) for i, c in enumerate(cases))
    by_part = {p: reading([r["value"] for r, c in zip(rows, cases, strict=True) if c.part == p]) for p in parts if p}
    read = reading([r["value"] for r in rows], min(24, probe.n))
    figures = probe.figures({key: np.array([r[key] for r in rows]) for key in ("right",) if key in rows[0]})
    seconds = 0.4 + probe.n / 90
    return Measurement(name, probe, read, "", cases, rows, by_part, figures, CHANCE.get(name), seconds)


def unmeasured(name: str, why: str) -> Measurement:
    return Measurement(name, PROBES[name], None, why)


def audit(
    subject: str = "planted", shifts: Mapping[str, float] | None = None, missing: Mapping[str, str] | None = None
) -> Audit:
    shifts, missing = shifts or {}, missing or {}
    measured = tuple(unmeasured(n, missing[n]) if n in missing else measurement(n, shifts.get(n, 0.0)) for n in PROBES)
    return Audit(subject, card(subject), measured, MACHINE, sum(m.seconds for m in measured))


def card(subject: str, mends: tuple[str, ...] = ()) -> Card:
    world = {"seed": 0, "people": 96} if "planted" in subject else None
    return Card("llama", 1_124_352, 4_497_408, "9f3c27a1" * 8, "1c88d0e2" * 8, "77aa01bc" * 8, world, mends)


def change(before: Measurement, after: Measurement) -> Change:
    """The verdict by a normal interval: good enough to look at."""
    if before.reading is None or after.reading is None:
        return Change(before.name, before.reading, after.reading, "cannot tell", why=before.why or after.why)
    old, new = (np.array([r["value"] for r in m.rows], float) for m in (before, after))
    diff, n = new - old, len(old)
    sign = 1 if before.probe.better == "high" else -1
    mean, error = float(diff.mean()), max(float(diff.std()) / n**0.5, 0.004 * abs(float(old.mean())))
    low, high = mean - 1.96 * error, mean + 1.96 * error
    verdict = "cannot tell" if low <= 0 <= high else "better" if sign * mean > 0 else "worse"
    worst = sign * mean - 1.645 * error
    parts = {p: (before.parts[p], after.parts[p]) for p in before.parts}
    p = float(np.exp(-0.7 * (mean / error) ** 2))
    gain = sign * diff
    return Change(
        before.name, before.reading, after.reading, verdict, mean, low, high, p, min(1.0, 13 * p), 2.8 * error,
        bool(worst > -before.probe.margin), int((gain > 0).sum()), int((gain < 0).sum()), n, "", parts,
    )  # fmt: skip


def proof(name: str, before: Audit, missing: Mapping[str, str] | None = None) -> Proof:
    settings, mends, shifts = MENDS[name]
    after = audit(f"{before.subject}+{name}", shifts, missing)
    changes = tuple(change(b, a) for b, a in zip(before.measurements, after.measurements, strict=True))
    return Proof(before, after, changes, {"name": name, "settings": settings, "mends": mends}, 21.5)


def full_report(**changes: Any) -> Report:
    """Two models, eight proofs, something unmeasured: what a whole run looks like."""
    planted = audit("planted")
    why = "the endpoint gives no log-probabilities of a given text"
    holes = dict.fromkeys(("perplexity", "bias", "memorisation"), why)
    holes["reasoning"] = "the subject cannot do this task: 49% right where chance is 50%"
    other = audit("SmolLM2-135M-Instruct", missing=holes)
    one = Subject("planted", card("planted"), planted, ANSWERS, tuple(proof(m, planted) for m in MENDS))
    two = Subject(
        "SmolLM2-135M-Instruct",
        card("smol"),
        other,
        ANSWERS[:1],
        tuple(proof(m, other, holes) for m in ("retrieval", "calculator")),
    )
    stages = (
        Stage("make the planted model", 214.0), Stage("audit planted", 38.2), Stage("mend and prove planted", 260.1),
        Stage("audit SmolLM2", 182.0), Stage("mend and prove SmolLM2", 301.5),
    )  # fmt: skip
    settings = {
        "machine": MACHINE,
        "notes": ("Quick sample sizes: SmolLM2 was audited on 60 cases a probe.",),
        "command": "qualm demo -o runs/demo",
        "when": "2026-01-02T03:04:05+00:00",
    }
    return Report("The loop, end to end", (one, two), stages, **{**settings, **changes})


ANSWERS = (
    Answer(ask("Where was Omra Telis born?"), "Vanu."),
    Answer(
        "Once there was a smith in Orin who",
        " made bells for the harbour. Every bell had a name, and every name was kept.",
    ),
    Answer(ask("What is 34 + 27?"), "61"),
)


def half_done() -> Report:
    """One model audited, one not yet, no proof yet."""
    whole = full_report()
    first, second = whole.subjects
    stages = tuple(Stage(s.name, s.seconds if i < 2 else None) for i, s in enumerate(whole.stages))
    subjects = (
        Subject(first.name, first.card, first.audit, first.answers),
        Subject(second.name, second.card),
    )
    return Report(whole.title, subjects, stages, MACHINE, unfinished=True, when=whole.when)


def hostile(payload: str) -> Report:
    """The payload wherever a model, a file or a user can put text; halves of characters only a model writes."""
    bad = payload.encode(errors="replace").decode()
    before = measurement("knowledge")
    cases = tuple(Case(c.id, ask(bad), bad, group=c.group, part=bad) for c in before.cases)
    sides = []
    for value in (0.0, 1.0):
        rows = tuple({"value": value, "answer": payload} for _ in cases)
        m = Measurement(bad, before.probe, before.reading, bad, cases, rows, {bad: before.reading}, {bad: 1.0})
        sides.append(Audit(bad, Card(bad, weights=bad), (m,), {bad: bad}))
    reading_ = before.reading
    moved = Change(bad, reading_, reading_, "better", 1.0, 0.9, 1.0, 0.01, 0.01, 0.1, True, 200, 0, 200, why=bad)
    shown = Proof(*sides, (moved,), {"name": bad, "settings": {bad: bad}, "mends": ["knowledge"]})
    subject = Subject(bad, sides[0].card, sides[0], (Answer(bad, payload),), (shown,))
    return Report(bad, (subject,), (Stage(bad, 1.0),), {bad: bad}, (bad,), bad)
