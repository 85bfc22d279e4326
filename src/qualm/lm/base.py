"""The one interface: a language model continues prompts, scores continuations, or tells what it reads in a text.

It knows strings and numbers; no trainer, no rank, no cache, no async.
"""

import math
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from qualm.cases import Message, Prompt
from qualm.errors import Unsupported
from qualm.files import hash_json

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LM", "Answer", "Card", "Completion", "Message", "Prompt", "Sampling", "Scored", "Span"]

LIKELIHOOD, UNDER, PSEUDO = "likelihood", "likelihood under an encoder", "pseudo-likelihood"  # what a score is
COMMANDS = {
    "generate": "generate MODEL TEXT",
    "fill": "do fill MODEL TEXT",
    "classify": "do classify MODEL TEXT",
    "tag": "do tag MODEL TEXT",
    "answer": "do answer MODEL QUESTION --passage TEXT",
    "embed": "do embed MODEL TEXT",
    "score": "audit MODEL",
}  # what a model can do, and what to type for it


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. Temperature 0 is greedy; `seed` fixes each prompt's draw whatever the batch.

    With `beams` above 1, at temperature 0, so many ways to go on are followed and the likeliest is taken: by its nats
    a token, or at another `length_penalty` by their sum over length ** length_penalty.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0


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


@dataclass(frozen=True)
class Card:
    """What a model is: the hashes decide what may be reused, the rest is for people.

    `scoring` says what its scores are: LIKELIHOOD, UNDER or PSEUDO; "" where that is not known or it gives none.
    `world` holds the settings of the planted world the model was trained on, if it was.
    `mends` are the reprs of the mends around or in it, first applied first.
    """

    family: str
    parameters: int = 0
    bytes: int = 0
    weights: str = ""
    tokenizer: str = ""
    template: str = ""
    world: Mapping[str, Any] | None = None
    mends: tuple[str, ...] = ()
    scoring: str = ""

    @property
    def hash(self) -> str:
        """The same for two models that must answer alike, whatever they are called."""
        kept = {k: v for k, v in asdict(self).items() if k in ("weights", "tokenizer", "template", "mends")}
        return hash_json(kept)


@dataclass(frozen=True)
class Loaded:
    """How a model came off the disk: from how many `bytes`, in how many `seconds`."""

    bytes: int
    seconds: float


class LM(ABC):
    """Batched in, batched out, order kept. A subclass overrides what it can do and says so in `can`."""

    name: str
    card: Card
    can: frozenset[str] = frozenset()  # of COMMANDS, and "weights"
    loaded: Loaded | None = None  # None: it was made in memory, or is served elsewhere

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """One completion a prompt, "unread" for one that is too long for the model.

        Raises Unsupported if the model cannot, as all that follow do.
        """
        raise self.cannot("generate text")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Score each continuation after its context; an empty context scores the whole text."""
        raise self.cannot("tell log-probabilities of a given text")

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion in pieces, none of which splits a character. Raises Unsupported for a prompt not read."""
        yield self.generate([prompt], sampling)[0].read().text

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """A vector a text, (N, D) float32 of length 1, so that a product of two is their cosine."""
        raise self.cannot("embed texts")

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each label, in the order of the labels; they need not add up to 1 where several labels
        may hold at once."""
        raise self.cannot("classify texts")

    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        """The parts of each text that the model has a label for."""
        raise self.cannot("tag words")

    def answer(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """The part of the passage that answers each (question, passage)."""
        raise self.cannot("find answers in a passage")

    def fill(self, texts: Sequence[str], top: int = 5) -> list[list[dict[str, float]]]:
        """For each mask marker of each text, the `top` likeliest tokens and their probabilities, likeliest first."""
        raise self.cannot("fill in words")

    def cannot(self, what: str) -> Unsupported:
        """The error for what the model cannot do: says what it can, and the command to type."""
        able = [word for word in COMMANDS if word in self.can]
        then = f"type: qualm {COMMANDS[able[0]]}" if able else ""
        return Unsupported(f"{self.name} cannot {what}; it can {' and '.join(able) or 'do nothing here'}", then=then)
