"""Log-probabilities of given tokens, in batches of equal work, each context read once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.errors import QualmError
from qualm.lm.decode import padded
from qualm.models.base import Causal, Decoder

BATCH = 4096  # tokens read at once, padding included
POSITIONS = 512  # positions whose logits are held at once: 100 MB at a vocabulary of 49152
HELD = 4 * BATCH  # tokens whose keys and values are held at once
SHARED = 8  # tokens that several texts must begin with to be read once
BORDER = 4  # tokens before the scored ones that may differ all the same


@dataclass(frozen=True)
class Span:
    """`ids[first:]` are scored, after what stands before them; `first` is at least 1. `item` names whose they are."""

    item: int
    ids: Sequence[int]
    first: int


@dataclass(frozen=True)
class Fork:
    """Spans whose ids begin with the same `shared` ids, none of which is scored."""

    spans: Sequence[Span]
    shared: int

    @cached_property
    def width(self) -> int:
        return max(len(span.ids) for span in self.spans) - self.shared


def windows(item: int, ids: Sequence[int], first: int, limit: int) -> Iterator[Span]:
    """A text longer than the model's context as windows of `limit` ids, each begun half a window after the last.

    Every token is scored once, with at least half a window (or all there is) before it.
    """
    end = min(len(ids), limit)
    yield Span(item, ids[:end], min(first, end))
    while end < len(ids):
        done, end = end, min(len(ids), end + limit - limit // 2)
        begin = end - limit
        if end > first:
            yield Span(item, ids[begin:end], max(done, first) - begin)


@torch.inference_mode()
def logprobs(model: Decoder, texts: Sequence[tuple[Sequence[int], int]], limit: int) -> list[list[float]]:
    """For each (ids, first): log p(ids[i] | ids[:i]) in nats for i >= first >= 1.

    Neighbours that begin alike (the choices of one question) have their common beginning read once.
    """
    spans = [span for item, (ids, first) in enumerate(texts) for span in windows(item, ids, first, limit)]
    scored: list[list[float]] = [[] for _ in texts]
    found: dict[int, list[float]] = {}
    for batch in batches(forks(spans)):
        read = read_forks(model, batch)
        for span, values in zip((s for fork in batch for s in fork.spans), read, strict=True):
            found[id(span)] = values
    for span in spans:
        scored[span.item] += found.get(id(span), [])
    return scored


def forks(spans: Sequence[Span]) -> Iterator[Fork]:
    """Neighbours together that share what is not scored, but for a few tokens at the border."""
    group: list[Span] = []
    shared = 0
    for span in spans:
        if span.first >= len(span.ids):
            continue
        common = min(shared, alike(group[0].ids, span.ids), span.first - 1) if group else 0
        fits = (len(group) + 1) * len(span.ids) <= HELD
        if group and fits and common >= max(SHARED, group[0].first - BORDER, span.first - BORDER):
            group, shared = [*group, span], common
            continue
        yield from [Fork(group, shared if len(group) > 1 else 0)] if group else []
        group, shared = [span], span.first - 1
    yield from [Fork(group, shared if len(group) > 1 else 0)] if group else []


def alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batches(all_forks: Iterable[Fork]) -> Iterator[list[Fork]]:
    """Forks of like size together, those that share nothing apart from the others, longest first."""
    batch: list[Fork] = []
    for fork in sorted(all_forks, key=lambda f: (f.shared > 0, -f.width, -f.shared)):
        if batch and (too_big([*batch, fork]) or (batch[0].shared > 0) != (fork.shared > 0)):
            yield batch
            batch = []
        batch.append(fork)
    if batch:
        yield batch


def too_big(batch: Sequence[Fork]) -> bool:
    rows, width = sum(len(f.spans) for f in batch), max(f.width for f in batch)
    shared = max(f.shared for f in batch)
    return len(batch) * shared + rows * width > BATCH or rows * (shared + width) > HELD


def read_forks(model: Decoder, batch: Sequence[Fork]) -> list[list[float]]:
    """The scores of each span of a batch, in order."""
    device = next(model.parameters()).device
    cache = None
    if batch[0].shared:
        ids, lengths = padded([fork.spans[0].ids[: fork.shared] for fork in batch], device)
        cache = model.new_cache(len(batch), ids.shape[1] + max(fork.width for fork in batch))
        model.hidden(ids, cache, lengths)
        cache.keep(torch.tensor([i for i, fork in enumerate(batch) for _ in fork.spans], device=device))
    spans = [(span, fork.shared) for fork in batch for span in fork.spans]
    hidden = model.hidden(padded([span.ids[shared:-1] for span, shared in spans], device)[0], cache)  # (B, T, D)
    places = [
        (row, at - 1 - shared, span.ids[at])
        for row, (span, shared) in enumerate(spans)
        for at in range(span.first, len(span.ids))
    ]
    rows, at, targets = torch.tensor(places, device=device).T
    values = iter(score_positions(model, hidden[rows, at], targets))
    return [[next(values) for _ in range(span.first, len(span.ids))] for span, _ in spans]


def score_positions(model: Causal, hidden: Tensor, targets: Tensor) -> list[float]:
    """log p of targets (N,) after hidden states (N, D). Raises QualmError on NaN."""
    values: list[float] = []
    for some, wanted in zip(hidden.split(POSITIONS), targets.split(POSITIONS), strict=True):
        values += (-F.cross_entropy(model.head(some).float(), wanted, reduction="none")).tolist()
    if any(v != v for v in values):
        raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
    return values
