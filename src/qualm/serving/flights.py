"""Answers under way: what the model's worker puts in, and what a request takes out."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qualm.cases import Prompt
from qualm.errors import TooLong
from qualm.lm.base import Completion, Sampling
from qualm.lm.batch import Delta
from qualm.serving.errors import Refusal, refusal_of

CUT = "cut"  # the note of an answer that was ended before its time, and why
TOKEN, ALTERNATIVE = 450, 130  # bytes that one of them takes while it waits, measured


@dataclass(eq=False)
class Flight:
    """One answer under way. What came of it waits in `deltas` until it is taken."""

    prompt: Prompt
    sampling: Sampling
    news: asyncio.Event
    ticket: int | None = None  # of the batch, known to the thread of the model
    deltas: list[Delta] = field(default_factory=list)
    untaken: int = 0  # bytes that those come to, about
    error: BaseException | None = None
    over: bool = False  # nothing more will come
    arrived: float = field(default_factory=time.monotonic)
    began: float = 0.0  # when its first delta came; 0: not yet
    completion: Completion | None = None

    def put(self, delta: Delta) -> None:
        self.began = self.began or time.monotonic()
        self.completion = delta.completion
        self.deltas.append(delta)
        self.untaken += sum(TOKEN + ALTERNATIVE * len(token.top) for token in delta.tokens)
        self.news.set()

    def end(self, error: BaseException | None = None) -> None:
        self.error, self.over = self.error or error, True
        self.news.set()

    def take(self) -> list[Delta]:
        """What came since. Raises Refusal for what ended it, or if it could not be read."""
        if self.error is not None:
            raise refusal_of(self.error) from self.error
        found, self.deltas, self.untaken = self.deltas, [], 0
        if found and found[-1].completion is not None and found[-1].completion.unread:
            raise unread(found[-1].completion)
        return found


def unread(completion: Completion) -> Refusal:
    """Why an answer could not be had: the prompt is too long, or an engine behind the model gave none."""
    why = completion.why or "the model gave no answer"
    return refusal_of(TooLong(why)) if "token" in why else Refusal(400, why, code="unread")


@dataclass(eq=False)
class Flights:
    """The answers to one request. `forget` is the worker's; `seconds` is how long they may take.

    `completions` fill as answers end; `deltas` holds all that came, by answer.
    """

    flights: Sequence[Flight]
    news: asyncio.Event
    forget: Callable[[Flight], None]
    seconds: float
    completions: dict[int, Completion] = field(default_factory=dict)
    deltas: list[list[Delta]] = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.deltas = [[] for _ in self.flights]

    @property
    def done(self) -> bool:
        return len(self.completions) == len(self.flights)

    async def next(self, patience: float) -> list[tuple[int, Delta]]:
        """What came, with the number of the answer; nothing after `patience` seconds of silence.

        Raises Refusal for what ended one of them, and if nobody waits for the rest any more.
        """
        if not any(flight.deltas or flight.over for flight in self._open()):
            self.news.clear()
            left = self.seconds - (time.monotonic() - self.started)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), min(patience, max(left, 0)))
        found: list[tuple[int, Delta]] = []
        for number, flight in enumerate(self.flights):
            new = flight.take() if number not in self.completions else []
            self._keep(number, new)
            found += [(number, delta) for delta in new]
        if not found and any(flight.over for flight in self._open()):
            raise Refusal(499, "the client is gone", code="client_closed_request")
        return found or (self._cut() if time.monotonic() - self.started >= self.seconds else [])

    async def all(self) -> list[Completion]:
        """The whole answers, in order."""
        while not self.done:
            await self.next(self.seconds)
        return [self.completions[number] for number in range(len(self.flights))]

    def leave(self) -> None:
        """Nobody waits for them any more."""
        for flight in self.flights:
            self.forget(flight)

    def _open(self) -> list[Flight]:
        return [flight for number, flight in enumerate(self.flights) if number not in self.completions]

    def _keep(self, number: int, new: Sequence[Delta]) -> None:
        self.deltas[number] += new
        if new and (completion := new[-1].completion) is not None:
            self.completions[number] = completion

    def _cut(self) -> list[tuple[int, Delta]]:
        """End what is still open, as its length would."""
        found = []
        for number, flight in enumerate(self.flights):
            if number not in self.completions:
                self.forget(flight)
                so_far = self.deltas[number]
                tokens = sum(len(delta.tokens) for delta in so_far)
                text = "".join(delta.text for delta in so_far)
                last = Delta(completion=Completion(text, 0, tokens, "length", notes={CUT: "time"}))
                self._keep(number, [last])
                found.append((number, last))
        return found
