"""Answer: where in a passage does the answer to a question stand? By an encoder with a head for spans.

Example: "Where does Ana live?", --passage "Ana lives in Bonn." -> Bonn, 0.93.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from qualm.lm.base import LM
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Answer(Task):
    """The part of the `passage` that answers each question; "" where no answer is likelier than the best one."""

    passage: str

    needs: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        found = lm.answer([(question, self.passage) for question in texts])
        return [
            {"question": question, **asdict(answer), "answer": answer.text if answer.p > answer.none else ""}
            for question, answer in zip(texts, found, strict=True)
        ]

    def shown(self, result: Result) -> str:
        return result["answer"] or f"(no answer here, {result['none']:.3f})"
