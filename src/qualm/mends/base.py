"""What a mend is: a function from a model to a model. The model it was given stays as it was."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from qualm.cases import Case
from qualm.lm.base import LM


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
