"""Contrastive search: of the likeliest tokens, the one that is least like what was said (Su et al. 2022, arXiv
2202.06417).

Its worth is (1 - alpha) * p - alpha * the largest cosine between its hidden state and one before it; each candidate is
read to know its state, so the rows are the candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.lm.policies import Past, Policy
from qualm.lm.search import Move, Picked, Search, told_of


@dataclass
class Contrast(Search):
    """`alpha` from 0, greedy, to 1; `count` candidates."""

    alpha: float
    count: int
    past: Past
    policies: Sequence[Policy] = ()
    alternatives: int = 0

    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.width = self.count
        self.states: Tensor | None = None  # (T, D), of length 1
        self.candidates: list[Picked] = []
        self.odds = torch.zeros(0)

    def take(self, logits: Tensor, hidden: Tensor) -> Move:
        new = F.normalize(hidden.float(), dim=-1)
        if self.states is None:
            self.states = new
            return Move((), self._ask(logits[-1:]), [0] * len(self.candidates))
        likeness = (new @ self.states.T).amax(-1)  # (candidates,)
        worth = (1 - self.alpha) * self.odds - self.alpha * likeness
        best = int(worth.argmax())
        picked = self.candidates[best]
        self.past.ids.append(picked.token)
        self.states = torch.cat((self.states, new[best : best + 1]))
        return Move([picked], self._ask(logits[best : best + 1]), [best] * len(self.candidates))

    def _ask(self, logits: Tensor) -> list[list[int]]:
        """The candidates after logits (1, V)."""
        told = logits
        for weigh in self.policies:
            told = weigh(told, [self.past])
        top = told.softmax(-1)[0].topk(min(self.count, logits.shape[-1]))
        self.odds = top.values
        self.candidates = told_of(logits.expand(len(top.indices), -1), top.indices, self.alternatives)
        return [[int(token)] for token in top.indices]
