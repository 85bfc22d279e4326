"""Beam search: the few likeliest ways to go on are followed side by side (Sutskever et al. 2014, arXiv 1409.3215)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from qualm.errors import QualmError
from qualm.lm.decode import Step, padded
from qualm.models.base import Causal
from qualm.models.layers import Cache


class Beam(NamedTuple):
    """One way to go on, its end token included, in nats a token; `score` is their sum over length ** penalty."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class Search:
    """Keep `width` beams a prompt; `rooms` are the most tokens of each answer, `ends` the tokens that end one.

    A `penalty` of 1 compares beams by their nats a token, 0 by their sum: above 0 it favours long answers.
    """

    width: int
    rooms: Sequence[int]
    ends: frozenset[int]
    penalty: float = 1.0

    def scored(self, tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> Beam:
        return Beam(tokens, logprobs, sum(logprobs) / max(1, len(tokens)) ** self.penalty)


@torch.inference_mode()
def beams(model: Causal, prompts: Sequence[Sequence[int]], cache: Cache, search: Search) -> list[list[Beam]]:
    """The best finished beams of each prompt, best first, `width` of them unless there are not so many.

    A prompt is done when no running beam, as it is, has a better score than the worst of `width` finished ones: what
    transformers does by default. Prompts must not be empty, nor rooms 0; prompts are read into `cache`.
    """
    device, width = next(model.parameters()).device, search.width
    ids, lengths = padded(prompts, device)
    hidden = model.hidden(ids, cache, lengths)[torch.arange(len(prompts), device=device), lengths - 1]  # (B, D)
    finished: list[list[Beam]] = [[] for _ in prompts]
    running, left = [[search.scored((), ())] for _ in prompts], list(range(len(prompts)))
    never = torch.tensor(model.never, dtype=torch.long, device=device)
    while True:
        logprobs = model.head(hidden).float().log_softmax(-1).index_fill(-1, never, -torch.inf)  # (beams, V)
        if logprobs.isnan().any():
            raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
        places, first = [], 0
        for row in left:
            mine = logprobs[first : first + len(running[row])]  # (W, V)
            sums = torch.tensor([sum(beam.logprobs) for beam in running[row]], device=device)
            most = min(width * (1 + max(1, len(search.ends))), mine.numel())  # so many may end, `width` go on
            best = (sums[:, None] + mine).flatten().topk(most)
            parents, tokens = best.indices // mine.shape[1], best.indices % mine.shape[1]
            chosen = zip(parents.tolist(), tokens.tolist(), mine.flatten()[best.indices].tolist(), strict=True)
            before, running[row] = running[row], []
            for rank, (parent, token, logprob) in enumerate(chosen):
                old = before[parent]
                beam = search.scored((*old.tokens, token), (*old.logprobs, logprob))
                if logprob == -torch.inf or len(running[row]) == width:
                    break
                if token not in search.ends and len(beam.tokens) < search.rooms[row]:
                    running[row].append(beam)
                    places.append((row, first + parent))
                elif rank < width:
                    finished[row].append(beam)
            finished[row] = sorted(finished[row], key=lambda beam: -beam.score)[:width]
            if len(finished[row]) == width and running[row] and running[row][0].score <= finished[row][-1].score:
                running[row] = []
            first += len(before)
        left = [row for row in left if running[row]]
        if not left:
            return finished
        which = torch.tensor([place for row, place in places if running[row]], device=device)
        cache.keep(which)
        last = torch.tensor([[beam.tokens[-1]] for row in left for beam in running[row]], device=device)
        hidden = model.hidden(last, cache)[:, -1]


def best(found: Sequence[Sequence[Beam]], done: set[int]) -> Iterator[list[Step]]:
    """The best beam of each prompt a token at a time, as `decode.steps` gives them."""
    for at in range(max(len(kept[0].tokens) for kept in found)):
        yield [
            Step(row, kept[0].tokens[at], kept[0].logprobs[at])
            for row, kept in enumerate(found)
            if at < len(kept[0].tokens) and row not in done
        ]
