"""The one interface: a language model continues prompts, scores continuations, or tells what it reads in a text.

It knows strings and numbers; no trainer, no rank, no cache, no async.
"""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qualm.cases import Message, Prompt
from qualm.errors import Unsupported
from qualm.files import hash_json
from qualm.lm.answers import Answer, Completion, Scored, Span
from qualm.lm.batch import ROWS, SLOTS, Batch, Whole
from qualm.lm.sampling import Sampling, Shape

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LM", "Answer", "Card", "Completion", "Message", "Prompt", "Sampling", "Scored", "Shape", "Span"]

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

    def batch(self, rows: int = ROWS, slots: int = SLOTS) -> Batch:
        """Requests answered together: at most `rows` of them at once, in a cache of `slots` tokens."""
        return Whole(self.generate, rows)

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
