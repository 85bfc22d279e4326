"""The nouns of the audit: what was read, what changed, and what was compared with what."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qualm.cases import WHY, Case, Row, is_read
from qualm.lm.base import Card
from qualm.probes.base import Probe

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Reading:
    """A number with its 95 % interval, how many cases (n) and independent groups it rests on, and the method."""

    value: float
    low: float
    high: float
    n: int
    groups: int
    method: str = ""  # of the interval: "wilson", "wald", "t", "bootstrap" or "exact"


@dataclass(frozen=True)
class Measurement:
    """One probe put to one model. `reading` None means not measurable here, and `why` says why: never 0.

    `cases` and `rows` are aligned; some rows may be of cases that could not be read (`unread` counts them, `unread_why`
    is the reason of most of them).
    `parts` are the readings of the sub-populations the cases name, `figures` the probe's secondary numbers.
    `chance` is the reading of a model that knows nothing, where known.
    """

    name: str
    probe: Probe
    reading: Reading | None
    why: str = ""
    cases: tuple[Case, ...] = ()
    rows: tuple[Row, ...] = ()
    parts: Mapping[str, Reading] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    chance: float | None = None
    seconds: float = 0.0

    @property
    def value(self) -> float | None:
        return None if self.reading is None else self.reading.value

    @property
    def unread(self) -> int:
        return sum(not is_read(row) for row in self.rows)

    @property
    def unread_why(self) -> str:
        found = Counter(str(row[WHY]) for row in self.rows if WHY in row and not is_read(row))
        return found.most_common(1)[0][0] if found else ""


@dataclass(frozen=True)
class Audit:
    """All measurements of one model, and what it was run on."""

    subject: str
    card: Card
    measurements: tuple[Measurement, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)  # versions, threads, processor, seeds
    seconds: float = 0.0

    def __getitem__(self, probe: str) -> Measurement:
        return next(m for m in self.measurements if m.name == probe)


@dataclass(frozen=True)
class Change:
    """One probe on the same cases before and after: the `n` that were read on both sides.

    `low`..`high` is the 95 % interval of `difference` (after - before, in the probe's unit), made by `method`; `p` the
    two-sided p-value of `test` ("mcnemar" or "permutation") and `p_holm` the same corrected over all probes of the
    proof. `detectable` is the smallest true difference that these cases would have shown in 4 of 5 tries at the
    two-sided 5 %; None if they are too few to show any.
    `harmless`: even the unfavourable one-sided 95 % bound is a worsening smaller than the probe's margin.
    `fixed` and `broken` count cases whose "value" got better or worse; `unchanged`: every row is the same on both
    sides, answers included. `why` is set where there is no verdict to give because a side was not measured; the verdict
    then reads "cannot tell".
    `parts` are the same for the sub-populations, for information (their verdicts are not corrected for, so not given).
    """

    name: str
    before: Reading | None
    after: Reading | None
    verdict: Verdict
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    harmless: bool | None = None
    fixed: int = 0
    broken: int = 0
    n: int = 0
    groups: int = 0
    method: str = ""
    test: str = ""
    why: str = ""
    parts: Mapping[str, tuple[Reading, Reading]] = field(default_factory=dict)
    unchanged: bool = False


@dataclass(frozen=True)
class Proof:
    """Two audits on the same cases, and what changed.

    `mend` is {"name", "settings", "mends"}, or None for a comparison.
    """

    before: Audit
    after: Audit
    changes: tuple[Change, ...]
    mend: Mapping[str, Any] | None = None
    seconds: float = 0.0

    def __getitem__(self, probe: str) -> Change:
        return next(c for c in self.changes if c.name == probe)

    @property
    def summary(self) -> dict[str, list[str]]:
        """The names of the probes by verdict; "not measured" has those without one, "harmless" those shown to be so."""
        named: dict[str, list[str]] = {"better": [], "worse": [], "cannot tell": [], "not measured": [], "harmless": []}
        for change in self.changes:
            named["not measured" if change.difference is None else change.verdict].append(change.name)
            if change.harmless:
                named["harmless"].append(change.name)
        return named
