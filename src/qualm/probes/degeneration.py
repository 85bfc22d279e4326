"""Degeneration: left to write on, does the model fall into a loop?

Limit: degeneration. Greedy text after the opening of a document; a loop is a stretch of at most 20 words that ends the
text three times over. rep-4 (share of repeated 4-grams) and distinct-2 stand beside it; the target is the human value,
not zero (Holtzman et al., arXiv 1904.09751; Welleck et al., arXiv 1908.04319).
Misses: fluent nonsense.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qualm.cases import Case, Row
from qualm.lm.base import Sampling
from qualm.probes.base import Columns, Probe
from qualm.text import prose
from qualm.world.base import World

OPENING = 8  # words of a document that are given


@dataclass(frozen=True)
class Degeneration(Probe):
    """The share of greedy continuations that end in a loop."""

    n: int = 80
    world: World | None = None

    limit = "degeneration"
    better = "low"
    quick = 20
    sampling = Sampling(max_tokens=96)

    def cases(self) -> list[Case]:
        openings = [" ".join(text.split()[:OPENING]) for text in self._texts()]
        return [Case(f"opening/{i}", opening) for i, opening in enumerate(dict.fromkeys(openings))][: self.n]

    def _texts(self) -> Sequence[str]:
        if self.world:
            rows = self.world.write_documents(seed=1_000 + self.seed, count=4 * self.n)
            return [row["text"] for row in rows if "text" in row]
        texts = prose.paragraphs()
        return random.Random(self.seed).sample(texts, min(self.n, len(texts)))

    def grade(self, case: Case, answer: str) -> Row:
        words = answer.split() if " " in answer.strip() else list(answer.strip())
        return {"value": float(loops(words)), "rep-4": repeated(words, 4), "distinct-2": 1 - repeated(words, 2)}

    def figures(self, columns: Columns) -> dict[str, float]:
        return {name: float(columns[name].mean()) for name in ("rep-4", "distinct-2")}


def loops(words: Sequence[str], longest: int = 20, times: int = 3) -> bool:
    """The text ends in the same stretch of at most `longest` words, `times` times over."""
    return any(
        len(words) >= times * k and all(words[-k:] == words[-(i + 1) * k : -i * k] for i in range(1, times))
        for k in range(1, longest + 1)
    )


def repeated(words: Sequence[str], n: int) -> float:
    """The share of n-grams that stood before in the same text; 0 for a text with none."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
