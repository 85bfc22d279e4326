"""Continuous batching: prompts are read in pieces, answers grow side by side, and whoever is done makes room at once.

Ids only; what becomes text is a `Writer`'s affair, and how to go on a `Search`'s. The rows of the cache stand in the
order of the running requests, a few rows each.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Protocol

import torch
from torch import Tensor

from qualm.cases import Prompt
from qualm.lm.batch import ROWS, SLOTS, Batch, Delta
from qualm.lm.decode import going, heard
from qualm.lm.prefixes import SHARED, Prefixes, alike
from qualm.lm.sampling import Sampling
from qualm.lm.search import Drawing, Move, Search, told_of
from qualm.lm.writer import Spelling, Writer
from qualm.models._caches import Cache
from qualm.models.base import Causal

CHUNK = 512  # tokens of prompts read in a step
EVERY = 4  # of the slots, those that prompts kept for others may hold: one in so many


@dataclass
class Request:
    """`ids` is the prompt, `begun` what the decoder reads of it: the same for a decoder."""

    ticket: int
    ids: Sequence[int]
    begun: Sequence[int]
    sampling: Sampling
    writer: Writer
    search: Search
    slots: int  # that a row may come to
    move: Move = field(default_factory=Move)
    held: int = 0  # rows of the cache
    kept: Sequence[int] = (0,)  # those of its rows that it goes on with
    back: int = 0  # ids to take back from each
    gone: bool = False

    @property
    def reading(self) -> int:
        """Tokens to be read before the first can be written."""
        return max(len(self.ids), len(self.begun))


Taken = tuple[Request, Cache | None, int]  # one to be read, what is known of it, and how many ids that is


class Host(Protocol):
    """What the engine asks of a language model."""

    @property
    def model(self) -> Causal: ...
    @property
    def spelling(self) -> Spelling: ...
    @property
    def divides(self) -> bool:
        """Whether what was read of a prompt can be used for another that begins like it."""
        ...

    def request(self, ticket: int, prompt: Prompt, sampling: Sampling) -> Request: ...
    def opened(self, requests: Sequence[Request]) -> Cache: ...


@dataclass
class Reading:
    """Prompts that are being read together; of each, ids up to `at` are in the cache."""

    requests: list[Request]
    cache: Cache
    at: list[int]
    heard: list[list[Tensor]]  # hidden states of the pieces so far, for searches that want them all


class Engine(Batch):
    """At most `rows` rows, in a cache of `slots` tokens; one request may have more if it is alone."""

    def __init__(self, host: Host, rows: int = ROWS, slots: int = SLOTS):
        self.host, self.model, self.rows, self.slots = host, host.model, rows, slots
        self.device = next(self.model.parameters()).device
        self.prefixes = Prefixes(slots // EVERY)
        self._tickets = count()
        self._queue: deque[Request] = deque()
        self._reading: Reading | None = None
        self._running: list[Request] = []
        self._cache: Cache | None = None

    # -- requests

    def join(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        request = self.host.request(next(self._tickets), prompt, sampling)
        self.put(request)
        return request.ticket

    def put(self, request: Request) -> None:
        """A request of the host's; its ticket is the caller's affair."""
        self._queue.append(request)

    def needs(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        request = self.host.request(-1, prompt, sampling)
        return request.slots * request.search.width

    @torch.inference_mode()
    def leave(self, ticket: int) -> None:
        self._queue = deque(request for request in self._queue if request.ticket != ticket)
        if self._reading is not None:
            for request in self._reading.requests:
                request.gone |= request.ticket == ticket
            if all(request.gone for request in self._reading.requests):
                self._reading = None
        for request in self._running:
            request.gone |= request.ticket == ticket
        self._close_ranks()

    @property
    def running(self) -> int:
        return len(self._running) + len(self._read)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def held(self) -> int:
        return self._space([*self._running, *self._read])

    @property
    def _read(self) -> list[Request]:
        return [r for r in self._reading.requests if not r.gone] if self._reading else []

    @staticmethod
    def _space(requests: Sequence[Request]) -> int:
        """Slots of a block that these may come to fill: all rows are as long as the longest."""
        return max((r.slots for r in requests), default=0) * sum(r.search.width for r in requests)

    # -- a step

    @torch.inference_mode()
    def step(self) -> dict[int, Delta]:
        told: dict[int, Delta] = {}
        if self._running:
            self._write(told)
        if self._reading is None:
            self._reading = self._admitted(told)
        if self._reading is not None and self._read_on(self._reading):
            self._begin(self._reading, told)
            self._reading = None
        return told

    def _write(self, told: dict[int, Delta]) -> None:
        """Every running request by what it asked to be read."""
        assert self._cache is not None
        hidden = heard(self.model, [feed for request in self._running for feed in request.move.feeds], self._cache)
        sizes = [sum(map(len, request.move.feeds)) for request in self._running]
        self._take(self._running, self.model.head(hidden).float().split(sizes), hidden.split(sizes))
        self._tell(self._running, told)
        self._close_ranks()

    def _take(self, requests: Sequence[Request], logits: Sequence[Tensor], hidden: Sequence[Tensor]) -> None:
        """Give each request its part; those that draw one token by the same settings are drawn together."""
        together: dict[Sampling, list[int]] = {}
        for i, request in enumerate(requests):
            if isinstance(request.search, Drawing) and not request.search.alone:
                together.setdefault(request.sampling, []).append(i)
            else:
                request.move = request.search.take(logits[i], hidden[i])
        for members in together.values():
            plans = [plan for i in members if isinstance(plan := requests[i].search, Drawing)]
            for i, move in zip(members, drawn(plans, torch.cat([logits[i][-1:] for i in members])), strict=True):
                requests[i].move = move

    def _tell(self, requests: Sequence[Request], told: dict[int, Delta]) -> None:
        """Let the writers have what was written, and note who is done."""
        for request in requests:
            writer, move = request.writer, request.move
            request.kept, request.back = going(move), move.back
            for picked in move.written:
                if not writer.finish:
                    writer.push(self.host.spelling.token(*picked))
            if not move.feeds and not writer.finish:
                writer.close(request.search.finish)
            news = None if request.gone else writer.news(len(request.ids), request.search.notes)
            if news is not None:
                told[request.ticket] = news
            request.gone |= bool(writer.finish)

    def _close_ranks(self) -> None:
        """The cache keeps the rows that go on, in the order of the requests that are left."""
        if self._cache is not None:
            self._running, self._cache = settled(self._running, self._cache)

    # -- prompts

    def _admitted(self, told: dict[int, Delta]) -> Reading | None:
        """Waiting requests, in order, for which there is room and which one step can read; None if there are none."""
        for request in [r for r in self._queue if r.writer.finish]:  # nothing is to be written
            self._queue.remove(request)
            told[request.ticket] = Delta("", (), request.writer.completion(len(request.ids)))
        taken: dict[int, tuple[Request, Cache | None, int]] = {}
        widest = 0
        for request in self._queue:
            with_it = [*self._running, *(r for r, _, _ in taken.values()), request]
            rows = sum(r.search.width for r in with_it)
            if len(with_it) > 1 and (rows > self.rows or self._space(with_it) > self.slots):
                break
            cache, known = (None, 0) if request.search.whole else self.prefixes.find(request.begun)
            widest = max(widest, request.reading - known)
            if taken and (len(taken) + 1) * widest > CHUNK:
                break
            shared = [alike(request.begun, r.begun) for r, _, _ in taken.values()] if self.host.divides else []
            if max(shared, default=0) < known + SHARED:  # else it can do with what those read
                taken[request.ticket] = (request, cache, known)
        if not taken:
            return None
        self._queue = deque(request for request in self._queue if request.ticket not in taken)
        fresh = [each for each in taken.values() if each[1] is None]
        return self._opened(fresh, [each for each in taken.values() if each[1] is not None])

    def _opened(self, fresh: Sequence[Taken], known: Sequence[Taken]) -> Reading:
        caches = [self.host.opened([request for request, _, _ in fresh])] if fresh else []
        caches += [cache for _, cache, _ in known if cache is not None]
        for other in caches[1:]:
            caches[0].add(other)
        both = [*fresh, *known]
        return Reading([r for r, _, _ in both], caches[0], [at for _, _, at in both], [[] for _ in both])

    def _read_on(self, reading: Reading) -> bool:
        """One piece; whether that was the last."""
        size = CHUNK if len(reading.requests) == 1 else max(len(r.begun) for r in reading.requests)
        feeds = [r.begun[at : at + size] for r, at in zip(reading.requests, reading.at, strict=True)]
        hidden = heard(self.model, feeds, reading.cache).split([len(feed) for feed in feeds])
        for i, request in enumerate(reading.requests):
            reading.at[i] += len(feeds[i])
            reading.heard[i].append(hidden[i] if request.search.whole else hidden[i][-1:])
        return all(at == len(r.begun) for r, at in zip(reading.requests, reading.at, strict=True))

    def _begin(self, reading: Reading, told: dict[int, Delta]) -> None:
        """Their first tokens, and their rows behind those of the others."""
        requests, cache = reading.requests, reading.cache
        for row, request in enumerate(requests):
            self.prefixes.keep(request.begun, cache, row)
            request.held = 1
        hidden = [torch.cat(pieces) for pieces in reading.heard]
        logits = self.model.head(torch.cat([states[-1:] for states in hidden])).float()
        self._take(requests, logits.split(1), hidden)
        self._tell(requests, told)
        left, rows = settled(requests, cache)
        self._running += left
        if self._cache is None:
            self._cache = rows
        elif rows is not None:
            self._cache.add(rows)


def settled(requests: Sequence[Request], cache: Cache) -> tuple[list[Request], Cache | None]:
    """The requests that go on, and the cache with their rows alone, in their order; None if nobody is left.

    Who stands in the back takes the place of one who left in front, so that few rows move.
    """
    alive = [i for i, request in enumerate(requests) if not request.gone]
    behind = [i for i in alive if i >= len(alive)]
    here = set(alive)
    order = [i if i in here else behind.pop() for i in range(len(alive))]
    firsts = [0, *accumulate(request.held for request in requests)]
    kept = [firsts[i] + row for i in order for row in requests[i].kept]
    left = [requests[i] for i in order]
    if kept and kept != list(range(firsts[-1])):
        cache.keep(torch.tensor(kept, device=cache.lengths.device))
    if any(request.back for request in left):
        cache.rewind(cache.lengths - torch.tensor([r.back for r in left for _ in r.kept]).to(cache.lengths))
    for request in left:
        request.held = len(request.kept)
        request.kept, request.back = range(request.held), 0
    return left, cache if left else None


def drawn(plans: Sequence[Drawing], logits: Tensor) -> list[Move]:
    """One token for each of several plans of the same settings, from logits (B, V)."""
    tokens = plans[0].choose(logits, [plan.past for plan in plans], [plan.source for plan in plans])
    moves = []
    for plan, picked in zip(plans, told_of(logits, tokens, plans[0].alternatives), strict=True):
        plan.note(picked.token)
        moves.append(Move([picked], [[picked.token]]))
    return moves
