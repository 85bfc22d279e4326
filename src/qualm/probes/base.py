"""What a probe is: cases to put to a model, a row of numbers read off each, and one number from the rows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from qualm.cases import WHY, Case, Row
from qualm.lm.base import LM, Completion, Sampling, Scored

Columns = Mapping[str, np.ndarray]  # one array a number of the rows, aligned, over the cases that were read

__all__ = ["Case", "Columns", "Probe", "Row", "unread"]
NO_ANSWER = "the model gave no answer"


@dataclass(frozen=True)
class Probe(ABC):
    """Its fields are its settings, so a probe can be built, printed, compared and repeated.

    A probe with a field `world` is given the planted world that the model's card names.
    """

    n: int = 200
    seed: int = 0

    limit: ClassVar[str]  # the weakness it measures: "reasoning", "bias", ...
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})
    better: ClassVar[Literal["high", "low"]] = "high"
    unit: ClassVar[str] = "share"  # "share" (0..1, printed as %), "bits per byte", "nats", "tokens/s", ...
    margin: ClassVar[float] = 0.02  # a worsening smaller than this does not matter (non-inferiority)
    quick: ClassVar[int] = 60  # n for a quick audit
    live: ClassVar[bool] = False  # reads the machine, not the answer: never cached, both sides interleaved
    sampling: ClassVar[Sampling] = Sampling(max_tokens=32)
    chart: ClassVar[str] = ""  # a picture of the rows: "dose", "reliability" or "scatter:COLUMN,COLUMN"

    @abstractmethod
    def cases(self) -> Sequence[Case]:
        """Seeded: the same settings give the same cases. Raises Unsupported if there is nothing to put."""

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        """One row a case, in order; that of `unread` for a case that could not be read. By default: generate, grade."""
        answers = lm.generate([case.prompt for case in cases], self.sampling)
        return [
            unread(answer) or {**self.grade(case, answer.text), "answer": answer.text}
            for case, answer in zip(cases, answers, strict=True)
        ]

    def grade(self, case: Case, answer: str) -> Row:
        """The one method most probes write: {"value": number, ...} for one answer."""
        raise NotImplementedError(f"{type(self).__name__} must write grade or observe")

    def fitted(self, *subjects: LM) -> "Probe":
        """The probe as it is put to these models, all alike. Raises Unsupported if it can be put to one of them not."""
        return self

    def margin_at(self, value: float) -> float:
        """How small a worsening of a reading `value` does not matter, in the probe's unit."""
        return self.margin

    def reduce(self, columns: Columns) -> float:
        """One number from the rows. Called thousands of times by the bootstrap: arrays in, a number out."""
        return float(columns["value"].mean())

    def figures(self, columns: Columns) -> Mapping[str, float]:
        """Secondary numbers read off the same rows, by the name they are shown under; they carry no verdict."""
        return {}

    def chance(self) -> float | None:
        """What a model that knows nothing would read, where that is known."""
        return None

    def competence(self, columns: Columns) -> str:
        """Why this subject cannot do the task at all, so that the reading would mean nothing; "" if it can."""
        return ""


def unread(*answers: Completion | Scored) -> Row | None:
    """The row of a case that rests on these if one of them could not be read, with its reason; None if all were."""
    lost = next((answer for answer in answers if answer.unread), None)
    return None if lost is None else {WHY: lost.why or NO_ANSWER}
