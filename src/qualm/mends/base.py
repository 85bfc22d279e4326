"""What a mend is: a function from a model to a model. The model it was given stays as it was."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from qualm.cases import Case, Message
from qualm.lm.base import LM, Prompt
from qualm.lm.wrapped import Wrapped


@dataclass(frozen=True)
class Mend(ABC):
    """Its fields are its settings: `mends.json` holds them, and building it from them again gives the same model."""

    mends: ClassVar[frozenset[str]]  # the limits it claims to shrink
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})  # what the model must be able to do

    def fit(self, lm: LM, cases: Sequence[Case]) -> Self:
        """Learn settings from "tune" cases of the probes whose limit is in `mends`; by default learn nothing."""
        return self

    @abstractmethod
    def __call__(self, lm: LM) -> LM:
        """The mended model; `lm` is left as it was."""

    def pack(self, folder: Path) -> Self:
        """Copy the files this mend reads into `folder` and point at them there (relative), so a save is whole."""
        return self

    def unpack(self, folder: Path) -> Self:
        """The inverse of pack: resolve relative files against `folder`."""
        return self


class Mended(Wrapped):
    """A model with a mend around it; `mend` is kept so that the model can be saved (None: it cannot).

    `by` is the mend's repr unless its settings name files: what those hold belongs in it then.
    """

    def __init__(self, inner: LM, mend: Mend | None, by: str = ""):
        super().__init__(inner, by or repr(mend))
        self.mend = mend


def question_of(prompt: Prompt) -> str:
    """The last thing the user said in a conversation; "" for a text to continue, which asks nothing."""
    if isinstance(prompt, str):
        return ""
    return next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "")


def with_question(conversation: Prompt, question: str) -> list[Message]:
    """The conversation with another last question."""
    messages = [] if isinstance(conversation, str) else conversation
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    return [*messages[:last], {**messages[last], "content": question}, *messages[last + 1 :]]
