"""The proof: two audits on the same cases, and a verdict on each limit.

Better (or worse) is said only if the 95 % interval of the paired difference excludes 0 on that side and the p-value,
corrected by Holm over all probes of the proof, is below 0.05. Everything else is "cannot tell", beside which stands
the smallest difference that would have shown.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from qualm.auditing import record
from qualm.auditing.intervals import Compared
from qualm.auditing.intervals import compare as compare_columns
from qualm.auditing.readings import at_odds, is_share, lacking, measurement, name_of, reduce_of, table, unmeasured
from qualm.auditing.run import Progress, audit, choose, kept, measure, test_cases
from qualm.auditing.stats import ALPHA, holm, noninferior
from qualm.auditing.types import Audit, Change, Measurement, Proof, Verdict
from qualm.cases import Case, Row, is_read
from qualm.config import to_dict
from qualm.errors import InputError, QualmError, Stopped, Unsupported, UsageError
from qualm.lm.base import LM
from qualm.mends.apply import apply
from qualm.mends.base import Mend
from qualm.probes.base import Probe

APART = "the two were not timed by turns; a proof does that"
BOTH_TAILS = 1 - 2 * ALPHA  # the two-sided level whose bounds are one-sided 95 % bounds


class Manner(TypedDict, total=False):
    """How a proof is made: see `qualm.auditing.run.audit`."""

    cache: Path | None
    quick: bool
    on_progress: Progress | None


def prove(
    lm: LM,
    mend: Mend,
    probes: Sequence[Probe | str] | None = None,
    *,
    before: Audit | None = None,
    **manner: Unpack[Manner],
) -> Proof:
    """Mend a model and put every probe to it before and after, on the same cases.

    The mend learns from the "tune" cases of the probes it is for, and is judged on the "test" cases of all. `before`
    is an audit of `lm`, if there is one: what it holds is not measured again, except by probes that read the machine;
    those are put to both models by turns. Raises Unsupported if the mend needs what the model cannot do.
    """
    return prove_and_keep(lm, mend, probes, before=before, **manner)[0]


def prove_and_keep(
    lm: LM,
    mend: Mend,
    probes: Sequence[Probe | str] | None = None,
    *,
    before: Audit | None = None,
    **manner: Unpack[Manner],
) -> tuple[Proof, LM]:
    """`prove`, and the mended model."""
    started = time.perf_counter()
    if why := lacking(mend.needs, lm.can, lm.name):
        raise Unsupported(f"the mend {name_of(mend)} {why}")
    if before is not None and before.card.hash != lm.card.hash:
        raise InputError(f"the audit given is of {before.subject}, another model than {lm.name}", then="audit it again")
    if probes is None and before is not None:
        probes = [m.probe for m in before.measurements]
    chosen = choose(probes, lm.card, manner.get("quick", False))
    tune = tune_cases(mend, chosen)
    known = lm if "weights" in mend.needs else kept(lm, manner.get("cache"))  # what is passed on is not asked anew
    fitted = mend.fit(known, tune)
    mended = apply(lm, fitted)
    first = _audit_before(lm, chosen, before, manner)
    second = _audit(mended if known is lm else apply(known, fitted), [p for p in chosen if not p.live], manner)
    live = {name_of(p): by_turns(lm, mended, p) for p in chosen if p.live}
    first, second = _with(first, chosen, live, 0), _with(second, chosen, live, 1)
    about = {"name": name_of(mend), "settings": to_dict(fitted), "mends": sorted(mend.mends), "tuned_on": len(tune)}
    seconds = time.perf_counter() - started
    return Proof(first, second, changes(first, second), about, seconds), mended


def compare(a: Audit | Path | str, b: Audit | Path | str) -> Proof:
    """Two audits, or the records of two, on the cases that both have.

    Probes that read the machine get no verdict: what two audits timed one after the other, or on two machines, tells
    nothing of the models. Raises InputError if one is no audit, or if an id stands for two different questions.
    """
    started = time.perf_counter()
    before, after = _audit_of(a), _audit_of(b)
    names = list(dict.fromkeys(m.name for each in (before, after) for m in each.measurements))
    before, after = _complete(before, after, names), _complete(after, before, names)
    found = changes(before, after, apart=True)
    return Proof(before, after, found, None, time.perf_counter() - started)


def tune_cases(mend: Mend, probes: Sequence[Probe]) -> list[Case]:
    """The "tune" cases of the probes whose limit the mend is for."""
    found: list[Case] = []
    for probe in probes:
        if probe.limit in mend.mends:
            try:
                found += [case for case in probe.cases() if case.split == "tune"]
            except Unsupported:
                continue  # the audit records why there are none
    return found


def by_turns(lm: LM, mended: LM, probe: Probe) -> tuple[Measurement, Measurement]:
    """A probe that reads the machine, put to both models case by case, who goes first by turns as well."""
    both = (lm, mended)
    if any(lacking(probe.needs, each.can, each.name) for each in both):
        return measure(lm, probe), measure(mended, probe)
    started = time.perf_counter()
    rows: tuple[list[Row], list[Row]] = ([], [])
    try:
        probe = probe.fitted(*both)
        cases = test_cases(probe)
        for i, case in enumerate(cases):
            for side in (0, 1) if i % 2 == 0 else (1, 0):
                rows[side].extend(probe.observe(both[side], [case]))
    except (UsageError, Stopped):
        raise
    except QualmError as error:
        return unmeasured(probe, str(error)), unmeasured(probe, str(error))
    seconds = (time.perf_counter() - started) / 2
    first, second = (replace(measurement(probe, cases, each), seconds=seconds) for each in rows)
    return first, second


@dataclass(frozen=True)
class Pair:
    """A probe's measurements before and after on the cases that were read on both sides."""

    before: Measurement
    after: Measurement
    why: str = ""

    @property
    def probe(self) -> Probe:
        return self.before.probe


def changes(before: Audit, after: Audit, *, apart: bool = False) -> tuple[Change, ...]:
    """What changed, by probe, in the order of `before`; both audits hold the same probes.

    `apart`: the two were not made by turns, so that readings of the machine cannot be compared.
    """
    pairs = [paired(measured, after[measured.name]) for measured in before.measurements]
    pairs = [replace(pair, why=pair.why or at_odds(pair.probe, before.card, after.card)) for pair in pairs]
    pairs = [replace(pair, why=pair.why or APART) if apart and pair.probe.live else pair for pair in pairs]
    found = [None if pair.why else _compared(pair) for pair in pairs]
    corrected = iter(holm([each.p for each in found if each]))
    return tuple(
        _change(pair, each, next(corrected)) if each else _no_verdict(pair)
        for pair, each in zip(pairs, found, strict=True)
    )


def paired(before: Measurement, after: Measurement) -> Pair:
    """Both measurements cut down to the cases read on both sides. Raises InputError if an id has two meanings."""
    sides = [(name, m.why) for name, m in (("before", before), ("after", after)) if m.reading is None]
    if sides:
        same = len({why for _, why in sides}) == 1 and len(sides) == 2
        return Pair(before, after, sides[0][1] if same else "; ".join(f"{name}: {why}" for name, why in sides))
    others = {case.id: (case, row) for case, row in zip(after.cases, after.rows, strict=True)}
    both: list[tuple[Case, Row, Row]] = []
    for case, row in zip(before.cases, before.rows, strict=True):
        other, later = others.get(case.id, (case, {}))
        if _question(other) != _question(case):
            raise InputError(
                f"case {case.id!r} of {before.name} asks different things in the two audits",
                then="audit both models with the same settings",
            )
        if is_read(row) and is_read(later):
            both.append((case, row, later))
    if not both:
        return Pair(before, after, "the two audits have no case in common that was read on both sides")
    cases = [case for case, _, _ in both]
    first = _cut(before, cases, [row for _, row, _ in both])
    second = _cut(after, cases, [row for _, _, row in both])
    return Pair(first, second, first.why or second.why)


def _question(case: Case) -> tuple[object, ...]:
    prompt = case.prompt if isinstance(case.prompt, str) else tuple(tuple(sorted(m.items())) for m in case.prompt)
    return prompt, case.target, tuple(case.choices)


def _cut(whole: Measurement, cases: Sequence[Case], rows: Sequence[Row]) -> Measurement:
    """The measurement of these cases alone; nothing is computed anew if they are all."""
    if len(cases) == len(whole.cases) - whole.unread:
        return replace(whole, cases=tuple(cases), rows=tuple(rows))
    return measurement(whole.probe, cases, rows, whole.name)


def _compared(pair: Pair) -> Compared | None:
    before, after = (table(side.cases, side.rows) for side in (pair.before, pair.after))
    probe = pair.probe
    return compare_columns(before.columns, after.columns, before.clusters, reduce_of(probe), share=is_share(probe))


def _change(pair: Pair, found: Compared, p_holm: float) -> Change:
    probe, estimate = pair.probe, found.estimate
    low, high = estimate.bounds()
    before_value = pair.before.value or 0.0
    fixed, broken = _moved(pair)
    both = pair.before.parts.keys() & pair.after.parts.keys()
    return Change(
        name=pair.before.name,
        before=pair.before.reading,
        after=pair.after.reading,
        verdict=_verdict(probe.better, low, high, p_holm),
        difference=estimate.value,
        low=low,
        high=high,
        p=found.p,
        p_holm=p_holm,
        detectable=estimate.detectable(),
        harmless=noninferior(*estimate.bounds(BOTH_TAILS), probe.better, probe.margin_at(before_value)),
        fixed=fixed,
        broken=broken,
        unchanged=pair.before.rows == pair.after.rows,
        n=estimate.n,
        groups=estimate.groups,
        method=estimate.method,
        test=found.test,
        parts={name: (part, pair.after.parts[name]) for name, part in pair.before.parts.items() if name in both},
    )


def _no_verdict(pair: Pair) -> Change:
    why = pair.why or "the difference is not defined on these cases"
    return Change(pair.before.name, pair.before.reading, pair.after.reading, "cannot tell", why=why)


def _verdict(better: str, low: float, high: float, p_holm: float) -> Verdict:
    if p_holm >= ALPHA or low <= 0 <= high:
        return "cannot tell"
    return "better" if (low > 0) == (better == "high") else "worse"


def _moved(pair: Pair) -> tuple[int, int]:
    """How many cases got better and worse, by their "value"."""
    before, after = (table(side.cases, side.rows).columns.get("value") for side in (pair.before, pair.after))
    if before is None or after is None:
        return 0, 0
    gain = np.sign(after - before) * (1 if pair.probe.better == "high" else -1)
    return int((gain > 0).sum()), int((gain < 0).sum())


def _audit(lm: LM, probes: Sequence[Probe], manner: Manner) -> Audit:
    return audit(lm, probes, cache=manner.get("cache"), on_progress=manner.get("on_progress"))


def _audit_before(lm: LM, chosen: Sequence[Probe], known: Audit | None, manner: Manner) -> Audit:
    """An audit by the probes that do not read the machine, measuring only what is not known."""
    wanted = [probe for probe in chosen if not probe.live]
    held = {m.name: m for m in known.measurements if m.probe in wanted} if known else {}
    missing = [probe for probe in wanted if name_of(probe) not in held]
    if known and not missing:
        return replace(known, measurements=tuple(held.values()))
    made = _audit(lm, missing, manner)
    if known is None:
        return made
    return replace(known, measurements=(*held.values(), *made.measurements), seconds=known.seconds + made.seconds)


def _with(made: Audit, chosen: Sequence[Probe], live: dict[str, tuple[Measurement, Measurement]], side: int) -> Audit:
    """The audit with one side of what was measured by turns, probes in the order chosen."""
    known = {m.name: m for m in made.measurements} | {name: both[side] for name, both in live.items()}
    return replace(made, measurements=tuple(known[name_of(probe)] for probe in chosen))


def _audit_of(given: Audit | Path | str) -> Audit:
    return given if isinstance(given, Audit) else record.read_audit(given)


def _complete(audit: Audit, other: Audit, names: Sequence[str]) -> Audit:
    """The audit with a place, and the reason, for what only the other measured."""
    own = {m.name: m for m in audit.measurements}
    missing = f"not among the probes of {audit.subject}"

    def found() -> Iterator[Measurement]:
        for name in names:
            yield own[name] if name in own else replace(other[name], **_nothing(missing))

    return replace(audit, measurements=tuple(found()))


def _nothing(why: str) -> dict[str, Any]:
    return {"reading": None, "why": why, "cases": (), "rows": (), "parts": {}, "figures": {}, "seconds": 0.0}
