"""Ids from a model: searches ask for ids to be read, and take what the model makes of them. Knows no text."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from qualm.lm.search import Move, Search
from qualm.models._caches import Cache
from qualm.models.base import Causal


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor (B, T) with zeros on the right, and how many of each row count (B,)."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return ids, torch.tensor([len(row) for row in rows], device=device)


def heard(model: Causal, feeds: Sequence[Sequence[int]], cache: Cache) -> Tensor:
    """The hidden states (N, D) of all ids of these feeds, one for each row of the cache, row behind row."""
    device = cache.lengths.device
    longest = max(map(len, feeds))
    if min(map(len, feeds)) == longest:
        return model.hidden(torch.tensor(feeds, device=device), cache).flatten(0, 1)
    ids, lengths = padded(feeds, device)
    hidden = model.hidden(ids, cache, lengths)
    return hidden[torch.arange(longest, device=device) < lengths[:, None]]


@torch.inference_mode()
def steps(
    model: Causal, prompts: Sequence[Sequence[int]], cache: Cache, searches: Sequence[Search]
) -> Iterator[list[Move]]:
    """What each search does, step by step, until none goes on: nobody joins, and nobody leaves before the end.

    Prompts must not be empty; they are read into `cache`. A search that has come to its end makes empty moves.
    """
    sizes = [len(prompt) for prompt in prompts]
    hidden = heard(model, prompts, cache).split(sizes)
    logits = model.head(torch.cat([states[-1:] for states in hidden])).float().split(1)
    held = [1] * len(searches)
    moves = [search.take(*both) for search, *both in zip(searches, logits, hidden, strict=True)]
    while True:
        yield moves
        firsts = [0, *accumulate(held)]
        rows = [first + row for first, move in zip(firsts, moves, strict=False) for row in going(move)]
        if not rows:
            return
        if rows != list(range(firsts[-1])):
            cache.keep(torch.tensor(rows, device=cache.lengths.device))
        if any(move.back for move in moves):
            cache.rewind(cache.lengths - torch.tensor([m.back for m in moves for _ in going(m)]).to(cache.lengths))
        held = [len(going(move)) for move in moves]
        states = heard(model, [feed for move in moves for feed in move.feeds], cache)
        sizes = [sum(map(len, move.feeds)) for move in moves]
        parts = zip(model.head(states).float().split(sizes), states.split(sizes), strict=True)
        moves = [s.take(*part) if size else Move() for s, part, size in zip(searches, parts, sizes, strict=True)]


def going(move: Move) -> Sequence[int]:
    """The rows that a search goes on with."""
    return move.rows[: len(move.feeds)]
