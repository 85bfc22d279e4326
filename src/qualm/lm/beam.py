"""Beam search: the few likeliest ways to go on are followed side by side (Sutskever et al. 2014, arXiv 1409.3215).

In groups they are held off from each other (diverse beam search: Vijayakumar et al. 2016, arXiv 1610.02424).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qualm.errors import QualmError
from qualm.lm.policies import Past, Policy
from qualm.lm.search import Move, Picked, Search


class Beam(NamedTuple):
    """One way to go on, its end token included, in nats a token.

    `total` is their sum after all policies, `score` that over length ** penalty.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: float
    score: float


@dataclass(frozen=True)
class Plan:
    """Keep `width` beams, for answers of at most `room` tokens, ended by one of `ends`.

    A `penalty` of 1 compares beams by their nats a token, 0 by their sum: above 0 it favours long answers. `early`
    stops at `width` finished ones; else a search goes on while a running beam, as it is, has a better score than the
    worst of them: what transformers does by default. Each of `groups` is charged `diversity` nats for a token as often
    as groups before it said it in the same step.
    """

    width: int
    room: int
    ends: frozenset[int]
    penalty: float = 1.0
    early: bool = False
    groups: int = 1
    diversity: float = 0.0
    policies: Sequence[Policy] = ()


@dataclass
class Group:
    """Beams that compete with each other: those that run, and the best that are finished, best first."""

    running: list[Beam]
    finished: list[Beam] = field(default_factory=list)


@dataclass
class Beams(Search):
    """The rows are the running beams of all groups, one group behind the other. `before` are the ids that were read."""

    plan: Plan
    before: Sequence[int] = ()
    others: Callable[[Sequence[Beam]], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.width = self.plan.width
        self.groups = [Group([Beam((), (), 0.0, 0.0)]) for _ in range(self.plan.groups)]
        self.begun = False

    def longer(self, beam: Beam, token: int, logprob: float, odds: float) -> Beam:
        """A beam with a token more, which is worth `odds` after all policies."""
        tokens, total = (*beam.tokens, token), beam.total + odds
        return Beam(tokens, (*beam.logprobs, logprob), total, total / len(tokens) ** self.plan.penalty)

    @property
    def best(self) -> list[Beam]:
        """Of all groups, best first; of equal ones the first group's."""
        found = [beam for group in self.groups for beam in group.finished]
        return sorted(found, key=lambda beam: -beam.score)[: self.plan.width]

    @property
    def notes(self) -> Mapping[str, Any]:
        return self.others(self.best[1:]) if self.others else {}

    def take(self, logits: Tensor, hidden: Tensor) -> Move:
        logprobs = logits[-1:] if not self.begun else logits
        logprobs = logprobs.log_softmax(-1)  # (beams, V)
        if logprobs.isnan().any():
            raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
        rows: list[int] = []
        first, said = 0, list[int]()
        for group in self.groups:
            count = len(group.running)
            mine = logprobs[first : first + count] if self.begun else logprobs
            parents = self._go_on(group, mine, said) if count else []
            rows += [first * self.begun + parent for parent in parents]
            said += [beam.tokens[-1] for beam in group.running]
            first += count
        self.begun = True
        feeds = [[beam.tokens[-1]] for group in self.groups for beam in group.running]
        if feeds:
            return Move((), feeds, rows)
        best = self.best[0]
        return Move([Picked(*pair) for pair in zip(best.tokens, best.logprobs, strict=True)])

    def _go_on(self, group: Group, logprobs: Tensor, said: Sequence[int]) -> list[int]:
        """One step of a group: which of its beams the new ones come from."""
        plan, width = self.plan, self.plan.width // self.plan.groups
        odds = logprobs
        if said and plan.diversity:
            odds = odds - plan.diversity * torch.bincount(torch.tensor(said).to(odds.device), minlength=odds.shape[1])
        if plan.policies:
            pasts = [Past([*self.before, *beam.tokens], len(self.before)) for beam in group.running]
            for weigh in plan.policies:
                odds = weigh(odds, pasts)
        totals = torch.tensor([beam.total for beam in group.running], device=odds.device)
        most = min(width * (1 + max(1, len(plan.ends))), odds.numel())  # so many may end, `width` go on
        best = (totals[:, None] + odds).flatten().topk(most).indices
        told = [logprobs.flatten()[best].tolist(), odds.flatten()[best].tolist()]
        before, group.running, kept = group.running, [], list[int]()
        for rank, (place, logprob, worth) in enumerate(zip(best.tolist(), *told, strict=True)):
            if worth == -torch.inf or len(kept) == width:
                break
            parent, token = divmod(place, odds.shape[1])
            beam = self.longer(before[parent], token, logprob, worth)
            if token not in plan.ends and len(beam.tokens) < plan.room:
                group.running.append(beam)
                kept.append(parent)
            elif rank < width:
                group.finished.append(beam)
        group.finished = sorted(group.finished, key=lambda beam: -beam.score)[:width]
        full = len(group.finished) == width
        if full and group.running and (plan.early or group.running[0].score <= group.finished[-1].score):
            group.running, kept = [], []
        return kept
