"""A model with something around it: same in, same out, so that wrappers stack like a for loop."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qualm.lm.base import LM, Answer, Completion, Prompt, Sampling, Scored, Span

if TYPE_CHECKING:
    import numpy as np


class Passing(LM):
    """Passes what an encoder's head gives on from `inner`."""

    inner: LM

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        return self.inner.embed(texts)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        return self.inner.classify(texts)

    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        return self.inner.tag(texts)

    def answer(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        return self.inner.answer(pairs)

    def fill(self, texts: Sequence[str], top: int = 5) -> list[list[dict[str, float]]]:
        return self.inner.fill(texts, top)


class Wrapped(Passing):
    """Passes everything on to `inner`; a subclass changes what it is for.

    `by` is the repr of what was put around it: it enters the card and so the hash, so that answers of the
    wrapped model are never taken for those of the bare one.
    """

    def __init__(self, inner: LM, by: str):
        self.inner, self.by = inner, by
        self.name = f"{inner.name}+{by.split('(')[0].lower()}"
        self.card = replace(inner.card, mends=(*inner.card.mends, by))
        self.can = inner.can - {"weights"}
        self.loaded = inner.loaded

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        return self.inner.generate(prompts, sampling)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        return self.inner.score(pairs)

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """A wrapper that rewrites answers cannot let them out early: whole answers unless a subclass can do better."""
        yield self.generate([prompt], sampling)[0].read().text
