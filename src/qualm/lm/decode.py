"""Generation in layers: a sampler picks a token, `steps` yields ids, a `Writer` makes them an answer."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from qualm.errors import QualmError, UsageError
from qualm.lm.base import Completion, Sampling
from qualm.models.base import Causal, Decoder
from qualm.models.layers import Cache
from qualm.tokens.detokenizer import Detokenizer

Filter = Callable[[Tensor], Tensor]  # logits (B, V) -> logits (B, V), what is refused at -inf
Chooser = Callable[[Tensor, Sequence[Random]], Tensor]  # logits (B, V) and a source a row -> tokens (B,)
ROOM = 64  # slots a new cache has beyond the prompt; it grows
DROPPED = 4  # finished rows leave the batch when they are one in so many: moving the cache costs too


def check(sampling: Sampling) -> None:
    """Raises UsageError on settings that mean nothing."""
    s = sampling
    wrong = {
        f"max_tokens = {s.max_tokens}": s.max_tokens < 0,
        f"temperature = {s.temperature}": not 0 <= s.temperature < float("inf"),
        f"top_k = {s.top_k}": s.top_k < 0,
        f"top_p = {s.top_p}": not 0 < s.top_p <= 1,
        f"min_p = {s.min_p}": not 0 <= s.min_p <= 1,
        "an empty stop string": "" in s.stop,
        f"beams = {s.beams}": s.beams < 1,
        f"beams = {s.beams} at temperature {s.temperature}": s.beams > 1 and s.temperature > 0,
        f"length_penalty = {s.length_penalty}": not abs(s.length_penalty) < float("inf"),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{what} means nothing here", then="see `Sampling` for what each setting may be")


def temperature(value: float) -> Filter:
    return lambda logits: logits / value


def top_k(count: int) -> Filter:
    """Keep the `count` likeliest tokens, and what ties with the last of them (Fan et al. 2018, arXiv 1805.04833)."""

    def keep(logits: Tensor) -> Tensor:
        least = logits.topk(min(count, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)

    return keep


def top_p(mass: float) -> Filter:
    """Keep the fewest tokens that hold `mass` of the probability (Holtzman et al. 2020, arXiv 1904.09751)."""

    def keep(logits: Tensor) -> Tensor:
        ordered, order = logits.sort(-1, descending=True)
        p = ordered.softmax(-1)
        late = p.cumsum(-1) - p >= mass  # the tokens before it hold enough
        return logits.masked_fill(late.scatter(-1, order, late), -torch.inf)

    return keep


def min_p(share: float) -> Filter:
    """Keep tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""
    least = torch.tensor(share).log()
    return lambda logits: logits.masked_fill(logits < logits.amax(-1, keepdim=True) + least, -torch.inf)


def chooser(sampling: Sampling) -> Chooser:
    """The settings as one function, built once."""
    if sampling.temperature == 0:
        return lambda logits, sources: logits.argmax(-1)
    filters: list[Filter] = [temperature(sampling.temperature)]
    filters += [top_k(sampling.top_k)] if sampling.top_k else []
    filters += [top_p(sampling.top_p)] if sampling.top_p < 1 else []
    filters += [min_p(sampling.min_p)] if sampling.min_p > 0 else []

    def choose(logits: Tensor, sources: Sequence[Random]) -> Tensor:
        for keep in filters:
            logits = keep(logits)
        mass = logits.softmax(-1).double().cumsum(-1)  # (B, V)
        draws = torch.tensor([[s.random()] for s in sources], dtype=mass.dtype, device=mass.device)
        return torch.searchsorted(mass, draws * mass[:, -1:], right=True).squeeze(-1)

    return choose


def source(seed: int, ids: Sequence[int]) -> Random:
    """Random numbers that hang on the seed and the prompt alone, not on the batch or its order."""
    digest = hashlib.blake2b(f"{seed}:{','.join(map(str, ids))}".encode(), digest_size=16)
    return Random(int.from_bytes(digest.digest()))


class Step(NamedTuple):
    """One new token of one prompt, and its log-probability in nats at temperature 1, before any filter."""

    row: int
    token: int
    logprob: float


def opened_cache(model: Decoder, prompts: Sequence[Sequence[int]]) -> Cache:
    """An empty cache for these prompts, with some room to write."""
    return model.new_cache(len(prompts), max(map(len, prompts)) + ROOM)


@torch.inference_mode()
def steps(
    model: Causal,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    done: set[int],
    cache: Cache,
    sources: Sequence[Random] | None = None,
) -> Iterator[list[Step]]:
    """The next token of every row that is not done, again and again; the caller adds rows to `done` between steps.

    Knows ids only: no text, no end token, no limit. Prompts must not be empty; they are read into `cache`. Draws come
    from `sources`, by default one that hangs on seed and prompt.
    """
    device = next(model.parameters()).device
    choose, sources = chooser(sampling), sources or [source(sampling.seed, ids) for ids in prompts]
    ids, lengths = padded(prompts, device)
    hidden = model.hidden(ids, cache, lengths)  # (B, T, D)
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]  # (B, D)
    rows, never = list(range(len(prompts))), torch.tensor(model.never, dtype=torch.long, device=device)
    while True:
        logits = model.head(last).float()
        allowed = logits.index_fill(-1, never, -torch.inf) if len(never) else logits
        tokens = choose(allowed, [sources[r] for r in rows])
        chosen = logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)
        new = [Step(*s) for s in zip(rows, tokens.tolist(), chosen.tolist(), strict=True)]
        if any(s.logprob != s.logprob for s in new):
            raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
        yield [s for s in new if s.row not in done]
        kept = [i for i, row in enumerate(rows) if row not in done]
        if not kept:
            return
        if DROPPED * (len(rows) - len(kept)) >= len(rows):
            which = torch.tensor(kept, device=device)
            cache.keep(which)
            tokens, rows = tokens[which], [rows[i] for i in kept]
        last = model.hidden(tokens[:, None], cache)[:, -1]


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor (B, T) with zeros on the right, and how many of each row count (B,)."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return ids, torch.tensor([len(row) for row in rows], device=device)


class Writer:
    """One answer as its tokens come: knows its end tokens, its stop strings and how long it may get.

    `lead` is left out at the beginning: what the chat template puts before every answer.
    """

    def __init__(self, detokenizer: Detokenizer, sampling: Sampling, ends: frozenset[int], room: int, lead: str = ""):
        self.detokenizer, self.ends, self.lead = detokenizer, ends, lead
        self.stops, self.room = sampling.stop, min(room, sampling.max_tokens)
        self.raw, self.skip = "", 0 if not lead else -1  # -1: not known yet whether the lead is there
        self.starts: list[int] = []  # where in `raw` each token begins that counts
        self.logprobs: list[float] = []
        self.finish = "" if self.room > 0 else "length"

    def push(self, token: int, logprob: float) -> None:
        if token in self.ends:
            return self._close("stop")
        self.starts.append(len(self.raw))
        self.logprobs.append(logprob)
        self._add(self.detokenizer.push(token))
        if not self.finish and len(self.logprobs) >= self.room:
            self._close("length")
        return None

    def _close(self, finish: str) -> None:
        self._add(self.detokenizer.close())
        self.finish = self.finish or finish

    def _add(self, piece: str) -> None:
        old, self.raw = len(self.raw), self.raw + piece
        if self.skip < 0 and len(self.raw) >= len(self.lead):
            self.skip = len(self.lead) if self.raw.startswith(self.lead) else 0
        begin = max(self.skip, 0)
        found = [self.raw.find(stop, max(begin, old - len(stop) + 1)) for stop in self.stops]
        if any(at >= 0 for at in found):
            self.raw, self.finish = self.raw[: min(at for at in found if at >= 0)], "stop"
            self.starts = [start for start in self.starts if start < len(self.raw)]

    @property
    def text(self) -> str:
        return self.raw[max(self.skip, 0) :]

    @property
    def sure(self) -> int:
        """How many characters of `text` will stay, whatever comes: the rest may be the beginning of a stop string."""
        if self.finish:
            return len(self.text)
        if self.skip < 0:
            return 0
        text = self.text
        ends = (k for stop in self.stops for k in range(1, len(stop)) if text.endswith(stop[:k]))
        return len(text) - max(ends, default=0)

    def completion(self, prompt_tokens: int) -> Completion:
        kept = len(self.starts)
        return Completion(self.text, prompt_tokens, kept, self.finish, tuple(self.logprobs[:kept]))
