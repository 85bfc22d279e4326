"""One request's way through the model: what it reads next, and what it makes of the logits that come back.

Each kind of search owns a few rows of a batch. The engine reads the ids that a `Move` asks for, and hands over what
the model made of them; it knows nothing else of beams, guesses or draws.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from qualm.errors import QualmError
from qualm.lm.policies import Chooser, Past, Words, chooser
from qualm.lm.sampling import Sampling

Guess = Callable[[Sequence[int]], Sequence[int]]  # the ids so far -> how they may go on


class Picked(NamedTuple):
    """A token, and its log-probability in nats at temperature 1 before any policy; `top` as `answers.Token` has it."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Move:
    """What a search does with what it was given.

    `written` are tokens that are sure now. `rows` are its own rows that it goes on with, in order, and `feeds` the ids
    that each is to read next; `back` takes so many ids back from each row first. No feeds: it has come to its end.
    """

    written: Sequence[Picked] = ()
    feeds: Sequence[Sequence[int]] = ()
    rows: Sequence[int] = (0,)
    back: int = 0


class Held(Protocol):
    """An answer held to a shape (`qualm.lm.constraints.Constraint`)."""

    finished: bool
    whole: bool  # whether the answer, as it stands, has the shape
    why: str  # why it cannot get it any more

    def allowed(self) -> Tensor: ...
    def push(self, token: int) -> None: ...


class Search(ABC):
    """`take` gets the logits (N, V) and hidden states (N, D) of the ids it asked to be read, row by row."""

    width: int = 1  # rows at most
    whole: ClassVar[bool] = False  # takes what every id of the prompt gave at first, and not only the last

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the completion says besides, once there is one."""
        return {}

    @property
    def finish(self) -> str:
        """How an answer has ended that came to its end by itself."""
        return "stop"

    @abstractmethod
    def take(self, logits: Tensor, hidden: Tensor) -> Move: ...


@dataclass
class Drawing(Search):
    """Token after token, each the likeliest or drawn: the one plan that many requests can follow at once.

    With `guess`, which tells from the ids so far how they may go on, several tokens are read at once and those kept
    that would have been picked anyway (Leviathan et al. 2022, arXiv 2211.17192; for a guess that is no draw itself,
    keeping it where the draw falls on it has the same distribution, and here even the same draws).
    """

    choose: Chooser
    past: Past
    source: Random
    alternatives: int = 0
    held: Held | None = None
    guess: Guess | None = None
    limit: int = 0  # ids at most, read and written
    guessed: Sequence[int] = ()

    @property
    def notes(self) -> Mapping[str, Any]:
        return {"why": self.held.why} if self.held is not None and self.held.why else {}

    @property
    def finish(self) -> str:
        return "stop" if self.held is None or self.held.whole else "length"

    @property
    def alone(self) -> bool:
        """Whether its tokens cannot be picked together with those of others."""
        return self.held is not None or self.guess is not None

    def take(self, logits: Tensor, hidden: Tensor) -> Move:
        logits = logits[-1 - len(self.guessed) :]
        written: list[Picked] = []
        for at, row in enumerate(logits.split(1)):
            written.append(self.pick(row))
            if self.ended or at == len(self.guessed) or written[-1].token != self.guessed[at]:
                break
        return self.moved(written)

    def pick(self, logits: Tensor) -> Picked:
        """The next token after logits (1, V)."""
        told = logits
        if self.held is not None:
            allowed = self.held.allowed()[: logits.shape[-1]].to(logits.device)
            told = logits.masked_fill(~allowed, -torch.inf)
        token = self.choose(told, [self.past], [self.source])
        [picked] = told_of(logits, token, self.alternatives)
        self.note(picked.token)
        return picked

    def note(self, token: int) -> None:
        self.past.ids.append(token)
        if self.held is not None:
            self.held.push(token)

    @property
    def ended(self) -> bool:
        return self.held is not None and self.held.finished

    def moved(self, written: Sequence[Picked]) -> Move:
        """The move that follows from tokens that are noted."""
        back = len(self.guessed) + 1 - len(written)
        room = self.limit - len(self.past.ids) - 1
        self.guessed = self.guess(self.past.ids)[:room] if self.guess is not None and room > 0 else ()
        return Move(written, () if self.ended else [[written[-1].token, *self.guessed]], back=back)


def source(seed: int, ids: Sequence[int]) -> Random:
    """Random numbers that hang on the seed and the prompt alone, not on the batch or its order."""
    digest = hashlib.blake2b(f"{seed}:{','.join(map(str, ids))}".encode(), digest_size=16)
    return Random(int.from_bytes(digest.digest()))


def greedy(prompts: Sequence[Sequence[int]], never: tuple[int, ...] = ()) -> list["Drawing"]:
    """The likeliest token, again and again, after each prompt."""
    choose = chooser(Sampling(), Words(never))
    return [Drawing(choose, Past(list(ids), len(ids)), Random(0)) for ids in prompts]


def told_of(logits: Tensor, tokens: Tensor, alternatives: int = 0) -> list[Picked]:
    """Tokens (B,) with their log-probabilities under logits (B, V). Raises QualmError on NaN."""
    total = logits.logsumexp(-1)
    chosen = (logits.gather(-1, tokens[:, None]).squeeze(-1) - total).tolist()
    if any(value != value for value in chosen):
        raise QualmError("the model's logits are not numbers (NaN)", then="check its weights")
    if not alternatives:
        return [Picked(*pair) for pair in zip(tokens.tolist(), chosen, strict=True)]
    top = logits.topk(min(alternatives, logits.shape[-1]))
    values = (top.values - total[:, None]).tolist()
    pairs = [tuple(zip(*both, strict=True)) for both in zip(top.indices.tolist(), values, strict=True)]
    return [Picked(*three) for three in zip(tokens.tolist(), chosen, pairs, strict=True)]


def looked_up(length: int, longest: int = 3) -> Guess:
    """Guess `length` tokens: what followed when the last few stood somewhere before (Saxena 2023, prompt lookup)."""

    def guess(ids: Sequence[int]) -> Sequence[int]:
        for size in range(min(longest, len(ids) - 1), 0, -1):
            end, first = ids[len(ids) - size :], ids[len(ids) - size]
            for at in range(len(ids) - size - 1, -1, -1):
                if ids[at] == first and ids[at : at + size] == end:
                    period = len(ids) - size - at  # what followed goes on with itself, if that is all there is
                    return [ids[at + size + i % period] for i in range(length)]
        return ()

    return guess
