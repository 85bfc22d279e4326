"""From the rows of a probe to its measurement. Every number of a record is computed here, from rows alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qualm import registry
from qualm.auditing.intervals import Estimate, Reduce, interval
from qualm.auditing.types import Measurement, Reading
from qualm.cases import Case, Row, is_read
from qualm.lm.base import PSEUDO, Card
from qualm.probes.base import Columns, Probe

FEWEST = 2  # groups below which nothing is said


@dataclass(frozen=True)
class Table:
    """The rows that were read: their numbers in columns, and the part and cluster of each."""

    columns: Columns
    parts: np.ndarray  # (n,) of str
    clusters: np.ndarray  # (n,) of int, numbered in order of their names

    def where(self, among: np.ndarray) -> "Table":
        columns = {name: column[among] for name, column in self.columns.items()}
        return Table(columns, self.parts[among], self.clusters[among])

    @property
    def groups(self) -> int:
        return len(np.unique(self.clusters))


def table(cases: Sequence[Case], rows: Sequence[Row]) -> Table:
    """The cases that were read. A column is a number that each of their rows has."""
    read = [(case, row) for case, row in zip(cases, rows, strict=True) if is_read(row)]
    names = [n for n in (read[0][1] if read else ()) if all(isinstance(row.get(n), int | float) for _, row in read)]
    columns = {name: np.array([float(row[name]) for _, row in read]) for name in names}
    number = {cluster: i for i, cluster in enumerate(sorted({case.cluster for case, _ in read}))}
    clusters = np.array([number[case.cluster] for case, _ in read], dtype=int)
    return Table(columns, np.array([case.part for case, _ in read], dtype=str), clusters)


def measurement(probe: Probe, cases: Sequence[Case], rows: Sequence[Row], name: str = "") -> Measurement:
    """What `rows`, aligned with `cases`, say of the model they were read off; `is_read` tells which could be read.

    Raises ValueError for a number that is none (NaN, infinite): that is an error of the probe.
    """
    name = name or name_of(probe)
    rows = [plain(row, f"{name}, case {case.id}") for case, row in zip(cases, rows, strict=True)]
    made = Measurement(name, probe, None, "", tuple(cases), tuple(rows), chance=probe.chance())
    read = table(cases, rows)
    if read.groups < FEWEST:
        return replace(made, why=_too_few(made, read.groups))
    if why := probe.competence(read.columns):
        return replace(made, why=f"the subject cannot do this task: {why}")
    found = interval(read.columns, read.clusters, reduce_of(probe), share=is_share(probe))
    if found is None:
        return replace(made, why="the number is not defined on the cases that were read, or on too few of them")
    figures = {key: float(value) for key, value in probe.figures(read.columns).items() if math.isfinite(value)}
    return replace(made, reading=reading(found), parts=parts(probe, read), figures=figures)


def _too_few(made: Measurement, groups: int) -> str:
    """Why there is no reading: how few cases were read, and what most of the others lacked."""
    n = len(made.cases)
    if n and made.unread == n:
        return f"none of {n} cases could be read" + (f": {made.unread_why}" if made.unread_why else "")
    few = f"{n - made.unread} of {n} cases could be read, {groups} of them independent: too few"
    return few + (f" (the others: {made.unread_why})" if made.unread_why else "")


def reading(found: Estimate) -> Reading:
    low, high = found.bounds()
    return Reading(found.value, low, high, found.n, found.groups, found.method)


def parts(probe: Probe, read: Table) -> dict[str, Reading]:
    """The readings of the sub-populations, in the order in which they come; those too small for one are left out."""
    found = {part: _part(probe, read.where(read.parts == part)) for part in dict.fromkeys(read.parts.tolist()) if part}
    return {part: each for part, each in found.items() if each}


def _part(probe: Probe, read: Table) -> Reading | None:
    if read.groups < FEWEST:
        return None
    found = interval(read.columns, read.clusters, reduce_of(probe), share=is_share(probe))
    return reading(found) if found else None


def reduce_of(probe: Probe) -> Reduce | None:
    """What makes one number of a probe's rows; None for the plain mean of "value", which has shorter ways."""
    return None if type(probe).reduce is Probe.reduce else probe.reduce


def is_share(probe: Probe) -> bool:
    """Whether its readings are shares, or may be (of an unknown unit)."""
    return probe.unit in ("share", "")


def plain(row: Row, where: str) -> dict[str, Any]:
    """A row in JSON's terms: its numbers checked, its texts such as UTF-8 can hold."""
    return {key: _plain(value, f"{where}: {key}") for key, value in row.items()}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which is no number")
    return value


def name_of(thing: object) -> str:
    """The registry's name of a probe or a mend; for a class that is not in it, its own name in small letters."""
    word = type(thing).__name__.lower()
    for kind in ("probes", "mends"):
        for name in registry.names(kind):
            if name.replace("_", "") == word and registry.find(kind, name) is type(thing):
                return name
    return word


def lacking(needs: frozenset[str], can: frozenset[str], who: str) -> str:
    """Why a model cannot be asked, "" if it can."""
    missing = sorted(needs - can)
    return f"needs {' and '.join(missing)}, which {who} does not give" if missing else ""


def at_odds(probe: Probe, before: Card, after: Card) -> str:
    """Why the readings of two models cannot be set against each other, "" if they can.

    A pseudo-likelihood is no probability of a text, and hangs on how the tokenizer cuts words: it is only compared
    with one by the same tokenizer. Shares count decisions, which compare whatever made them.
    """
    kinds = before.scoring, after.scoring
    if "score" not in probe.needs or is_share(probe) or PSEUDO not in kinds:
        return ""
    if kinds[0] != kinds[1]:
        return f"the scores are of two kinds that do not compare: {kinds[0]} and {kinds[1]}"
    return "" if before.tokenizer == after.tokenizer else f"a {PSEUDO} hangs on the tokenizer, and there are two"


def margin(probe: Probe, before: Reading | None) -> float | None:
    """How small a worsening does not matter, in the probe's unit; None if that hangs on a reading that is not there."""
    if before is not None:
        return probe.margin_at(before.value)
    return probe.margin if type(probe).margin_at is Probe.margin_at else None


def unmeasured(probe: Probe, why: str, seconds: float = 0.0) -> Measurement:
    return Measurement(name_of(probe), probe, None, why, chance=probe.chance(), seconds=seconds)
