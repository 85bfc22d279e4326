"""What a language model gives back: completions, tokens, scores, spans. Strings and numbers only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from qualm.errors import Unsupported


class Token(NamedTuple):
    """One generated token. `logprob` is in nats, at temperature 1 and before any policy.

    `text` is its own bytes as text, with U+FFFD for what is part of a character; `top` the likeliest tokens in its
    place and their log-probabilities, likeliest first, as many as were asked for (`Sampling.alternatives`).
    """

    text: str
    logprob: float
    bytes: bytes
    id: int
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    `finish` is "stop" (its end token or a stop string, which is not part of `text`), "length", or "unread": the prompt
    is longer than the model can look at, or no answer came within the bounded number of tries; `text` is empty and
    `notes["why"]` says why.
    `logprobs` are nats, one a generated token, at temperature 1 before any filter; empty where unknown.
    `notes` is what a mend did on the way: passages used, calls made, an answer withheld.
    """

    text: str
    prompt_tokens: int = 0
    tokens: int = 0
    finish: str = "stop"
    logprobs: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def lost(cls, why: str) -> Self:
        """One that could not be had."""
        return cls("", finish="unread", notes={"why": why})

    @property
    def unread(self) -> bool:
        return self.finish == "unread"

    @property
    def why(self) -> str:
        """Why it was not read; "" if it was, or if nobody knows."""
        return str(self.notes.get("why", "")) if self.unread else ""

    def read(self) -> Self:
        """Itself. Raises Unsupported with the reason if it was not read: for a prompt that stands alone."""
        if self.unread:
            raise Unsupported(self.why or "the model gave no answer")
        return self


@dataclass(frozen=True)
class Scored:
    """log p(continuation | context) in nats, one number a token of the continuation.

    Context and continuation are tokenised as one text; a token that straddles the border belongs to the
    continuation. One NaN stands for a continuation whose score could not be read; `why` says why.
    """

    logprobs: tuple[float, ...]
    why: str = ""

    @classmethod
    def lost(cls, why: str) -> Self:
        """One that could not be had."""
        return cls((math.nan,), why)

    @property
    def unread(self) -> bool:
        return math.isnan(self.total)

    @property
    def total(self) -> float:
        return sum(self.logprobs)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (half-open) of a text, what they are, and how probable the model holds that."""

    start: int
    end: int
    label: str
    p: float


@dataclass(frozen=True)
class Answer:
    """The part of a passage that answers a question best: characters `start` to `end` (half-open), at probability `p`.

    `none` is the probability that the passage holds no answer.
    """

    text: str
    start: int
    end: int
    p: float
    none: float
