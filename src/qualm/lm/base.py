"""The one interface: a language model continues prompts, scores continuations, or both.

It knows strings and numbers; no trainer, no rank, no cache, no async.
"""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from qualm.cases import Message, Prompt
from qualm.errors import Unsupported
from qualm.files import hash_json

__all__ = ["LM", "Card", "Completion", "Message", "Prompt", "Sampling", "Scored"]


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt. Temperature 0 is greedy; `seed` fixes each prompt's draw whatever the batch."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    `finish` is "stop" (its end token or a stop string, which is not part of `text`), "length", or "unread": no
    answer came within the bounded number of tries, `text` is empty and `notes["why"]` says why.
    `logprobs` are nats, one a generated token, at temperature 1 before any filter; empty where unknown.
    `notes` is what a mend did on the way: passages used, calls made, an answer withheld.
    """

    text: str
    prompt_tokens: int = 0
    tokens: int = 0
    finish: str = "stop"
    logprobs: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """log p(continuation | context) in nats, one number a token of the continuation.

    Context and continuation are tokenised as one text; a token that straddles the border belongs to the
    continuation. One NaN stands for a continuation whose score could not be read.
    """

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.logprobs)


@dataclass(frozen=True)
class Card:
    """What a model is: the hashes decide what may be reused, the rest is for people.

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

    @property
    def hash(self) -> str:
        """The same for two models that must answer alike, whatever they are called."""
        kept = {k: v for k, v in asdict(self).items() if k in ("weights", "tokenizer", "template", "mends")}
        return hash_json(kept)


class LM(ABC):
    """Batched in, batched out, order kept. A subclass overrides what it can do and says so in `can`."""

    name: str
    card: Card
    can: frozenset[str] = frozenset()  # of "generate", "score", "embed", "weights"

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """One completion a prompt. Raises Unsupported if the model cannot."""
        raise Unsupported(f"{self.name} cannot generate text")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """Score each continuation after its context; an empty context scores the whole text."""
        raise Unsupported(f"{self.name} gives no log-probabilities of a given text")

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion in pieces, none of which splits a character."""
        yield self.generate([prompt], sampling)[0].text
