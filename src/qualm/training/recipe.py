"""What to make of a text: the model's settings and the training's. Knows no torch, so that `--help` is fast."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qualm.errors import UsageError
from qualm.training.settings import TrainSettings, TuneSettings


@dataclass(frozen=True)
class Making:
    """The fields of a recipe that are about the model.

    Attributes:
        size: tiny, small, medium, large (1.3, 9.4, 30.7, 71.3 M parameters), or about how many: 1.2M.
        family: See qualm list models.
        objective: What is to be told of a text: next (the next token), stateful (the same, by a recurrent model that
            reads on from batch to batch), masked (hidden tokens), spans (hidden spans), distil (what a teacher says);
            else what suits the family.
        dropout: The share that is dropped in training, at every place where the family drops anything.
        keys: Keys of config.json that are to be otherwise than the dial has them, such as cell=gru.
        length: Tokens that the model sees at once. If `start` has a table of fewer positions, it grows.
        vocab: Tokens of the tokenizer that is learnt; 0 for as many as suit the size.
        tokenizer: A folder with a tokenizer to use in place of learning one.
        held_out: The share of documents to validate on, or a file or folder of them.
        validate: Tokens to validate on.
        apart: Whether documents that share a row are kept apart, where the family can.
        goldfish: Learn all but one in so many tokens, so that nothing is known by heart; 0 for all.
        smoothing: The share of a target's probability that is spread over all tokens.
        token_dropout: The share of tokens that the model is shown wrongly while it learns to write.
        bpe_dropout: The share of the tokenizer's merges that are left out, anew each time, while it learns to write.
        teacher: A model folder to learn from besides: what it says of every token. Its tokenizer is used.
        temperature: Of distil: how much the less likely tokens count.
        mix: Of distil: the teacher's share of the loss; the rest is the text's.
        start: A model folder to go on from: what it knows, and its tokenizer; it also says family and size.
        hidden: Of masked and spans: the share of tokens that are hidden.
    """

    size: int | str = "tiny"
    family: str = "llama"
    objective: str = ""
    dropout: float = 0.0
    keys: dict[str, str] = field(default_factory=dict)
    length: int = 128
    vocab: int = 0
    tokenizer: Path | None = None
    held_out: float | Path = 0.05
    validate: int = 20_000
    apart: bool = True
    goldfish: int = 0
    smoothing: float = 0.0
    token_dropout: float = 0.0
    bpe_dropout: float = 0.0
    teacher: Path | None = None
    temperature: float = 2.0
    mix: float = 0.5
    start: Path | None = None
    hidden: float = 0.15  # Devlin et al. 2018; Raffel et al. 2019

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UsageError(f"must be above 0, not {self.temperature}", where="temperature")
        if not 0 < self.hidden < 1:
            raise UsageError(f"must be between 0 and 1, not {self.hidden}", where="hidden")
        for name in ("mix", "smoothing", "token_dropout", "bpe_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"must be between 0 and 1, not {getattr(self, name)}", where=name)
        for name in ("size", "vocab", "keys", "tokenizer") if self.start else ():
            if getattr(self, name) != getattr(Making(), name):
                raise UsageError(f"{self.start} has its own", where=name, then="leave it out, or leave out start")
        if self.goldfish and self.bpe_dropout:
            raise UsageError(
                "which tokens goldfish leaves out hangs on how words are cut", then="leave out one of both"
            )


@dataclass(frozen=True)
class Recipe(Making):
    """What to make of a text.

    If `train` says neither steps nor epochs, training takes 20 tokens a parameter, but no more than 4 passes over the
    text. Bits per byte are read on the first `validate` tokens of the held-out text.
    """

    train: TrainSettings = field(default_factory=TrainSettings)


@dataclass(frozen=True)
class Lora:
    """An adapter of this rank; `alpha` / `rank` scales what it adds (0: twice the rank), `dora` learns lengths besides.

    `targets` are endings of the names of linear layers; none stands for all inside.
    """

    rank: int
    alpha: float = 0.0
    dora: bool = False
    targets: tuple[str, ...] = ()


RIGHT_OR_WRONG = ("classify", "tag", "prefer")  # tasks whose targets are so
ERRORS = "errors a target"


@dataclass(frozen=True)
class Lessons:
    """The fields of a tuning that are about what is taught.

    Attributes:
        task: What is taught, by columns: classify (text, label), tag (tokens, tags), qa (question, context, answers),
            seq2seq (prompt, completion), chat (messages) or prefer (prompt, chosen, rejected).
        length: Tokens of an example at most; 0 for as many as the model can look at, up to 512.
        held_out: The share of rows to validate on, if the data brings none.
        pooling: Of classify, what a label is read from: cls, the first token's state; mean, that of all tokens, which
            suits a model that was never taught what its first token stands for, and which no other program reads. By
            default as the model has it.
        keep: Which weights are the best ones: those of the least held-out loss, or of the most held-out labels told
            right (accuracy: of classify and tag, and of prefer the pairs), of which there may be more when the loss
            has long begun to rise.
        preference: The loss of prefer: dpo; ipo, which does not run away where the better answer is always the same;
            kto, which takes each answer by itself.
        beta: Of prefer, how dear it is to depart from the model that was given.
        lora: The rank of an adapter; 0 to change the model itself.
        alpha: Of an adapter: what it adds is scaled by alpha / rank; 0 for twice the rank.
        dora: Whether the adapter also learns how long the rows of a matrix are.
        targets: The linear layers that get an adapter, by the ends of their names; by default all but heads.
        merge: Write a whole model in place of an adapter.
    """

    task: str
    length: int = 0
    held_out: float = 0.1
    pooling: Literal["cls", "mean"] | None = None
    keep: Literal["loss", "accuracy"] = "loss"
    preference: Literal["dpo", "ipo", "kto"] = "dpo"
    beta: float = 0.1
    lora: int = 0
    alpha: float = 0.0
    dora: bool = False
    targets: tuple[str, ...] = ()
    merge: bool = False

    def __post_init__(self) -> None:
        for name in ("lora", "alpha", "beta"):
            if getattr(self, name) < 0 or (name == "beta" and not self.beta):
                raise UsageError(f"must be above 0, not {getattr(self, name)}", where=name)
        if self.pooling and self.task != "classify":
            raise UsageError(f"is for classify, not {self.task}", where="pooling", then="leave it out")
        if self.keep == "accuracy" and self.task not in RIGHT_OR_WRONG:
            told = f"{self.task} has no labels that are told right or wrong"
            raise UsageError(told, where="keep", then="leave it out")
        if self.pooling == "mean" and self.lora and not self.merge:
            raise UsageError("a program that reads the adapter would not know", where="pooling", then="say --merge")
        for name in ("alpha", "dora", "targets", "merge"):
            if getattr(self, name) and not self.lora:
                raise UsageError("is for an adapter, and none is asked for", where=name, then="say --lora 8")

    @property
    def adapter(self) -> Lora | None:
        return Lora(self.lora, self.alpha, self.dora, self.targets) if self.lora else None

    @property
    def unit(self) -> str:
        """Of what validation reads."""
        return "nats a target" if self.keep == "loss" else ERRORS


@dataclass(frozen=True)
class Tuning(Lessons):
    """What to teach a model. If `train` says neither steps nor epochs, training takes 3 passes over the rows."""

    train: TuneSettings = field(default_factory=TuneSettings)
