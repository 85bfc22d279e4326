"""What to make of a text: the model's settings and the training's. Knows no torch, so that `--help` is fast."""

from dataclasses import dataclass, field
from pathlib import Path

from qualm.training.settings import TrainSettings


@dataclass(frozen=True)
class Making:
    """The fields of a recipe that are about the model.

    Attributes:
        size: tiny, small, medium, large (1.3, 9.4, 30.7, 71.3 M parameters), or about how many: 1.2M.
        family: A decoder: see qualm list models.
        length: Tokens that the model sees at once.
        vocab: Tokens of the tokenizer that is learnt; 0 for as many as suit the size.
        tokenizer: A folder with a tokenizer to use in place of learning one.
        held_out: The share of documents to validate on, or a file or folder of them.
        validate: Tokens to validate on.
    """

    size: int | str = "tiny"
    family: str = "llama"
    length: int = 128
    vocab: int = 0
    tokenizer: Path | None = None
    held_out: float | Path = 0.05
    validate: int = 20_000


@dataclass(frozen=True)
class Recipe(Making):
    """What to make of a text.

    If `train` says neither steps nor epochs, training takes 20 tokens a parameter, but no more than 4 passes over the
    text. Bits per byte are read on the first `validate` tokens of the held-out text.
    """

    train: TrainSettings = field(default_factory=TrainSettings)
