"""Tidy: what a model answers, made fit to be used: its Markdown in order, only its JSON, only its whole sentences.

Example: "Name a colour as JSON." -> {"colour": "red"}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from qualm.cases import ask
from qualm.lm.base import LM, Sampling
from qualm.tasks.base import Result, Task
from qualm.text.tidy import tidied


@dataclass(frozen=True)
class Tidy(Task):
    """The model's likeliest answer to each text, tidied as `form` says: "markdown", "json" or "sentences".

    With `chat`, a text is put as a question, for a model that follows instructions. "" where there is no whole JSON.
    """

    form: Literal["markdown", "json", "sentences"] = "sentences"
    chat: bool = False
    max_tokens: int = 256

    needs: ClassVar[frozenset[str]] = frozenset({"generate"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        prompts = [ask(text) if self.chat else text for text in texts]
        answers = [answer.read() for answer in lm.generate(prompts, Sampling(max_tokens=self.max_tokens))]
        return [
            {"text": text, "answer": answer.text, "tidied": tidied(answer.text, self.form), "finish": answer.finish}
            for text, answer in zip(texts, answers, strict=True)
        ]

    def shown(self, result: Result) -> str:
        return result["tidied"]
