"""Similar: which texts are nearest in meaning to a query? By the cosine of an encoder's vectors.

Example: --query "a dog runs" -> "the hound sprints" before "taxes rose".
Misses: it is as good as the encoder. One that was not taught to put like meanings side by side orders by words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Similar(Task):
    """The texts by their cosine with the `query`, nearest first."""

    query: str

    needs: ClassVar[frozenset[str]] = frozenset({"embed"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        asked, *vectors = lm.embed([self.query, *texts])
        found = [{"text": text, "cosine": float(row @ asked)} for text, row in zip(texts, vectors, strict=True)]
        return sorted(found, key=lambda each: -each["cosine"])

    def shown(self, result: Result) -> str:
        return f"{result['cosine']:.3f}  {result['text']}"
