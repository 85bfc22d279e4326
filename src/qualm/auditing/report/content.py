"""What a report is made from: models, what was read off them, what mends did to them, and how the run went."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qualm.auditing.types import Audit, Proof
from qualm.cases import Prompt
from qualm.lm.base import Card


@dataclass(frozen=True)
class Answer:
    """A sample of what a model writes, for the reader; nothing is measured on it."""

    prompt: Prompt
    text: str


@dataclass(frozen=True)
class Stage:
    """A step of the run; `seconds` None while it is still to come."""

    name: str
    seconds: float | None = None


@dataclass(frozen=True)
class Subject:
    """One model of the report. `audit` None means not audited yet."""

    name: str
    card: Card
    audit: Audit | None = None
    answers: tuple[Answer, ...] = ()
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything one page tells.

    `command` is what to type to get the same figures again, `when` an ISO 8601 time (now, if empty).
    `unfinished`: the run goes on, and the page says what is still to come.
    """

    title: str
    subjects: tuple[Subject, ...] = ()
    stages: tuple[Stage, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    command: str = ""
    when: str = ""
    unfinished: bool = False


def report_of(thing: Report | Audit | Proof) -> Report:
    """The report of a single audit or a single proof; a report is its own."""
    if isinstance(thing, Report):
        return thing
    if isinstance(thing, Audit):
        subject = Subject(thing.subject, thing.card, thing)
        return Report(thing.subject, (subject,), (Stage("audit", thing.seconds),), thing.machine)
    before = thing.before
    with_ = thing.mend["name"] if thing.mend else thing.after.subject
    subject = Subject(before.subject, before.card, before, proofs=(thing,))
    title = f"{before.subject} + {with_}" if thing.mend else f"{before.subject} → {with_}"
    return Report(title, (subject,), (Stage("proof", thing.seconds),), before.machine)
