"""Translate: a text in another language. By an encoder-decoder taught to, or by a model that is asked to.

Example: "He bought a car." -> "Ele comprou um carro."
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qualm.cases import ask
from qualm.lm.base import LM, Sampling
from qualm.tasks.base import Result, Task


@dataclass(frozen=True)
class Translate(Task):
    """The likeliest text, token by token, after `prefix` and the source.

    A model of one pair of languages needs no prefix, T5 wants "translate English to German: ". With `chat`, prefix and
    source are put as a question, for a model that follows instructions.
    """

    prefix: str = ""
    chat: bool = False
    max_tokens: int = 256

    needs: ClassVar[frozenset[str]] = frozenset({"generate"})

    def __call__(self, lm: LM, texts: Sequence[str]) -> list[Result]:
        sources = [self.prefix + text for text in texts]
        prompts = [ask(source) if self.chat else source for source in sources]
        written = lm.generate(prompts, Sampling(max_tokens=self.max_tokens))
        return [
            {"text": text, "translation": answer.read().text.strip(), "finish": answer.finish}
            for text, answer in zip(texts, written, strict=True)
        ]

    def shown(self, result: Result) -> str:
        return result["translation"]
