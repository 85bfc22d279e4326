"""What a task is: texts in, one result a text out, by a model that can do what it needs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qualm.lm.base import LM

Result = Mapping[str, Any]  # such as JSON can say: the text, and what the model says of it

__all__ = ["Result", "Task"]


@dataclass(frozen=True)
class Task(ABC):
    """Its fields are its settings: `qualm do TASK MODEL TEXT --setting value`."""

    needs: ClassVar[frozenset[str]]  # what the model must be able to do

    @abstractmethod
    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        """One result a text, in order unless the task is to rank. Raises Unsupported if the model cannot do this."""

    @abstractmethod
    def shown(self, result: Result) -> str:
        """A result as a line or two for people."""
