"""Requests answered together. They join and leave between steps; a batch knows no clock and no thread."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from qualm.cases import Prompt
from qualm.lm.answers import Completion, Token
from qualm.lm.sampling import Sampling

__all__ = ["ROWS", "SLOTS", "Asking", "Batch", "Delta", "Token", "Whole"]

ROWS = 32  # requests answered at once
SLOTS = 16384  # tokens, read and to be written, that those may come to


@dataclass(frozen=True)
class Delta:
    """What one step added to one request.

    `text` holds the characters that are sure now: never half a character, nor what may become a stop string. `tokens`
    are those that the text up to here came from; all texts and all tokens of a request make its `completion`, which
    the last delta carries.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    completion: Completion | None = None


class Batch(ABC):
    """Requests in a row: what has room runs, the rest waits its turn."""

    @abstractmethod
    def join(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        """A request's ticket.

        Raises UsageError on settings that mean nothing, Unsupported on what the model cannot do, TooLong for a prompt
        that it cannot look at: at once, so that the other requests never see it.
        """

    @abstractmethod
    def leave(self, ticket: int) -> None:
        """Forget a request, whether it waits or runs; its room is free at once. One that is gone is no error."""

    @abstractmethod
    def step(self) -> dict[int, Delta]:
        """Go on by one token, or by a piece of the prompts that are still to be read: what is new, by ticket."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Requests that are being read or answered."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Requests that nothing was done for yet."""

    @property
    def held(self) -> int:
        """Slots of the cache, a token each, that running requests may come to use."""
        return 0

    def needs(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        """Slots that a request may come to; 0 where that is not known. Raises as `join` does."""
        return 0

    def __len__(self) -> int:
        return self.running + self.waiting


class Whole(Batch):
    """For a model that gives whole answers only: a step answers up to `rows` waiting requests of equal sampling."""

    def __init__(self, generate: Callable[[Sequence[Prompt], Sampling], list[Completion]], rows: int = ROWS):
        self._generate, self._rows = generate, rows
        self._tickets = count()
        self._queue: deque[tuple[int, Prompt, Sampling]] = deque()

    def join(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        ticket = next(self._tickets)
        self._queue.append((ticket, prompt, sampling))
        return ticket

    def leave(self, ticket: int) -> None:
        self._queue = deque(asked for asked in self._queue if asked[0] != ticket)

    def step(self) -> dict[int, Delta]:
        if not self._queue:
            return {}
        sampling = self._queue[0][2]
        taken = [asked for asked in self._queue if asked[2] == sampling][: self._rows]
        tickets = {ticket for ticket, _, _ in taken}
        self._queue = deque(asked for asked in self._queue if asked[0] not in tickets)
        answers = self._generate([prompt for _, prompt, _ in taken], sampling)
        return {t: Delta(a.text, (), a) for (t, _, _), a in zip(taken, answers, strict=True)}

    @property
    def running(self) -> int:
        return 0

    @property
    def waiting(self) -> int:
        return len(self._queue)


class Asking(Batch):
    """Another batch, whose prompts are put in another way: `asked` gives the prompt to put and notes on the answer."""

    def __init__(self, inner: Batch, asked: Callable[[Prompt], tuple[Prompt, Mapping[str, Any]]]):
        self._inner, self._asked = inner, asked
        self._notes: dict[int, Mapping[str, Any]] = {}

    def join(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        put, notes = self._asked(prompt)
        ticket = self._inner.join(put, sampling)
        self._notes[ticket] = notes
        return ticket

    def leave(self, ticket: int) -> None:
        self._inner.leave(ticket)
        self._notes.pop(ticket, None)

    def step(self) -> dict[int, Delta]:
        return {ticket: self._noted(ticket, delta) for ticket, delta in self._inner.step().items()}

    def _noted(self, ticket: int, delta: Delta) -> Delta:
        if delta.completion is None:
            return delta
        notes = {**delta.completion.notes, **self._notes.pop(ticket, {})}
        return replace(delta, completion=replace(delta.completion, notes=notes))

    def needs(self, prompt: Prompt, sampling: Sampling = Sampling()) -> int:
        return self._inner.needs(self._asked(prompt)[0], sampling)

    @property
    def running(self) -> int:
        return self._inner.running

    @property
    def waiting(self) -> int:
        return self._inner.waiting

    @property
    def held(self) -> int:
        return self._inner.held
