"""Perplexity: how many bits does the model need for a byte of text it has not seen?

Limit: fluency, and the guard that every mend has to pass. Bits per byte = total nats / ln 2 / total bytes of UTF-8, so
models with different tokenizers compare; per-token perplexity would not.
With a planted world: fresh documents of the plants that no mend is aimed at. Any other model: paragraphs of the Python
language reference that every installation carries, or the user's own `text`.
Misses: a public text may have been trained on; as a paired guard that does not matter.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qualm.cases import Case, Row
from qualm.corpus.documents import read
from qualm.lm.base import LM, Scored
from qualm.probes.base import Columns, Probe, unread
from qualm.text import prose
from qualm.world.base import World, Written

AIMED_AT = {"professions", "canaries"}  # a mend that works changes how likely these are


@dataclass(frozen=True)
class Perplexity(Probe):
    """Bits per byte of held-out text; lower is better."""

    n: int = 200
    world: World | None = None
    text: Path | None = None  # a file or folder of your own held-out text

    limit = "fluency"
    needs = frozenset({"score"})
    better = "low"
    unit = "bits per byte"
    quick = 24
    margin = 0.02

    def cases(self) -> list[Case]:
        """The continuation to score is the one choice."""
        if self.text:
            texts = [document.text for document in read(self.text)]
        elif self.world:
            rows = self.world.write_documents(seed=2_000 + self.seed, count=3 * self.n)
            kept = [row for row in rows if row["source"] not in AIMED_AT][: self.n]
            return [_planted(i, row) for i, row in enumerate(kept)]
        else:
            texts = list(prose.paragraphs())
        texts = random.Random(self.seed).sample(texts, min(self.n, len(texts)))
        return [Case(f"text/{i}", "", choices=(text,)) for i, text in enumerate(texts)]

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        scored = lm.score([(case.prompt, case.choices[0]) for case in cases])
        return [_row(s, case.choices[0]) for case, s in zip(cases, scored, strict=True)]

    def reduce(self, columns: Columns) -> float:
        return float(columns["nats"].sum() / columns["bytes"].sum() / math.log(2))


def _planted(i: int, row: Written) -> Case:
    if "text" in row:
        return Case(f"text/{i}", "", choices=(row["text"],), part="statements")
    *asked, answer = row["messages"]
    return Case(f"text/{i}", tuple(asked), choices=(answer["content"],), part="answers")


def _row(scored: Scored, text: str) -> Row:
    size, nats = len(text.encode()), -scored.total
    return unread(scored) or {"value": nats / size / math.log(2), "nats": nats, "bytes": float(size)}
