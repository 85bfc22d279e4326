"""Tag: which parts of a text are names, dates, parts of speech? By an encoder with a head for labels of words.

Example: "Ana lives in Bonn" -> Ana PERSON, Bonn PLACE.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Tag(Task):
    """The labelled spans of each text, with their characters and probabilities."""

    needs: ClassVar[frozenset[str]] = frozenset({"tag"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        return [
            {"text": text, "spans": [{"text": text[span.start : span.end], **asdict(span)} for span in spans]}
            for text, spans in zip(texts, lm.tag(texts), strict=True)
        ]

    def shown(self, result: Result) -> str:
        return "  ".join(f"{span['text']} {span['label']} {span['p']:.3f}" for span in result["spans"])
