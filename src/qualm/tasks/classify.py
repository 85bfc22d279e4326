"""Classify: which label does a text have? By an encoder with a head for labels.

Example: "I like it" -> positive, 0.98.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Classify(Task):
    """The probability of each label, and the likeliest of them."""

    needs: ClassVar[frozenset[str]] = frozenset({"classify"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        found = lm.classify(texts)
        best = [max(labels, key=labels.__getitem__) for labels in found]
        return [
            {"text": text, "label": label, "p": labels[label], "labels": labels}
            for text, label, labels in zip(texts, best, found, strict=True)
        ]

    def shown(self, result: Result) -> str:
        ordered = sorted(result["labels"].items(), key=lambda pair: -pair[1])
        return "  ".join(f"{label} {p:.3f}" for label, p in ordered)
