"""Embed: a text as a vector, for search and for classifiers of your own. By an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Embed(Task):
    """A vector of length 1 a text."""

    needs: ClassVar[frozenset[str]] = frozenset({"embed"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        return [{"text": text, "vector": row.tolist()} for text, row in zip(texts, lm.embed(texts), strict=True)]

    def shown(self, result: Result) -> str:
        return " ".join(f"{value:.4f}" for value in result["vector"])
