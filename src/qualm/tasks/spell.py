"""Spell: misspelt English words mended, each in its place, by what the model holds for likely.

Example: "I recieve teh books." -> I receive the books.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task
from qualm.text.spell import Spelling, apply, correct


@dataclass(frozen=True)
class Spell(Task):
    """Candidates by SymSpell compete with what stands there; a change must gain `margin` nats, less `edit` an edit.

    With `real_words`, words of the dictionary are weighed too, at `real_margin`: slower by far. Names, code, numbers,
    addresses, abbreviations and Chinese are left alone.
    """

    margin: float = Spelling.margin
    edit: float = Spelling.edit
    real_words: bool = False
    real_margin: float = Spelling.real_margin

    needs: ClassVar[frozenset[str]] = frozenset({"score"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        spelling = Spelling(self.margin, self.edit, self.real_words, self.real_margin)
        found = correct(texts, lambda pairs: [scored.total for scored in lm.score(pairs)], spelling)
        return [
            {"text": text, "corrected": apply(text, changes), "changes": [asdict(change) for change in changes]}
            for text, changes in zip(texts, found, strict=True)
        ]

    def shown(self, result: Result) -> str:
        return result["corrected"]
