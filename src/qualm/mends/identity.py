"""The null mend: nothing is changed, so a proof of it must not say better or worse of anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from qualm.lm.base import LM, Prompt, Sampling
from qualm.mends.base import Mend, Mended


@dataclass(frozen=True)
class Identity(Mend):
    """A wrapper that passes everything on; its answers are computed anew, not taken from the bare model's."""

    mends: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, lm: LM) -> LM:
        return Same(lm, self)


class Same(Mended):
    """Streams as its model does, piece by piece."""

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        return self.inner.stream(prompt, sampling)
