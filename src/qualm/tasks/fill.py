"""Fill: which word stands at the mask? By an encoder with a masked head.

Example: "The capital of France is [MASK]." -> paris, 0.41.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qualm.errors import UsageError
from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Fill(Task):
    """The `top` likeliest tokens at each mask of a text, each mask read while the others stay masked.

    The mask is spelled as the model's tokenizer has it: [MASK], or <mask>.
    """

    top: int = 5

    needs: ClassVar[frozenset[str]] = frozenset({"fill"})

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"must be at least 1, not {self.top}", where="Fill.top")

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        return [{"text": text, "masks": masks} for text, masks in zip(texts, lm.fill(texts, self.top), strict=True)]

    def shown(self, result: Result) -> str:
        return "\n".join("  ".join(f"{word.strip()} {p:.3f}" for word, p in mask.items()) for mask in result["masks"])
