"""What a family learns from plain text: which rows are made of it, what is to be predicted, and how it is read."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

from qualm import registry
from qualm.corpus.packing import Packed
from qualm.errors import UsageError
from qualm.models.base import Config, Decoder, Encoder, EncoderDecoder, Model
from qualm.models.rnn import Rnn
from qualm.models.store import weights_hash
from qualm.tokens.dropout import Splitter
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import SPECIAL
from qualm.training.data import Rows, StreamRows, TokenRows
from qualm.training.distil import Distilled, read_teacher
from qualm.training.heads import with_head
from qualm.training.losses import Carried, Loss, Seq2Seq, causal, masked
from qualm.training.noise import SENTINELS, SPAN, GoldfishRows, MaskedRows, ShakenRows, SpanRows, SplitRows
from qualm.training.reading import bits_per_byte, mean_nats
from qualm.training.recipe import Recipe

MASK = "<|mask|>"


class Objective(ABC):
    """A loss and the rows for it; the same rows and noise for the same recipe."""

    of: ClassVar[type[Model]]  # the families that can learn by it
    unit: ClassVar[str] = "nats a token"  # of what validation reads
    special: ClassVar[tuple[str, ...]] = SPECIAL  # the control tokens that a tokenizer learnt for it has
    frame: ClassVar[tuple[bool, bool]] = (False, True)  # whether an end token stands before a text, and after it
    mask: ClassVar[str] = ""  # the one that hides a word

    def __init__(self, recipe: Recipe, tokens: Tokens):
        self.recipe, self.tokens = recipe, tokens

    @classmethod
    def fits(cls, family: type[Model]) -> bool:
        return issubclass(family, cls.of)

    @classmethod
    def prepared(cls, model: Model, seed: int) -> Model:
        """A model that has learnt something else, ready to learn this."""
        return model

    @abstractmethod
    def rows(self, packed: Packed) -> Rows: ...

    @abstractmethod
    def loss(self) -> Loss: ...

    def flops(self, config: Config) -> float:
        """Floating point operations of a forward pass over one row."""
        return config.flops(self.recipe.length)

    def read(self, model: Any, packed: Packed) -> float:
        """What validation reads of held-out text, in `unit`."""
        return mean_nats(model, self.rows(packed), self.loss())


class Next(Objective):
    """The next token. With `goldfish`, one token in so many is not learnt; with `token_dropout`, a share is shown
    wrongly; with `bpe_dropout`, words are cut into smaller tokens; with `smoothing`, the loss is none of the text
    alone, and like that of cut words it has no bits a byte.
    """

    of = Decoder
    unit = "bits per byte"
    frame = (True, False)

    def rows(self, packed: Packed) -> Rows:
        kind: type[Any] = registry.find("models", self.recipe.family)
        apart = self.recipe.apart and kind.keeps_apart
        if self.recipe.goldfish:
            rows: TokenRows = GoldfishRows(packed, self.recipe.length, apart, self.recipe.goldfish)
        else:
            rows = TokenRows(packed, self.recipe.length, apart)
        rows.bytes_per_target *= not self.recipe.smoothing
        cut, share, seed = self.recipe.bpe_dropout, self.recipe.token_dropout, self.recipe.train.seed
        rows = SplitRows(rows, Splitter(self.tokens), cut, seed) if cut else rows
        return ShakenRows(rows, share, seed) if share else rows

    def loss(self) -> Loss:
        return partial(causal, smoothing=self.recipe.smoothing) if self.recipe.smoothing else causal

    def read(self, model: Any, packed: Packed) -> float:
        kind: type[Any] = registry.find("models", self.recipe.family)
        return bits_per_byte(model, packed, self.recipe.length, apart=self.recipe.apart and kind.keeps_apart)


class Stateful(Next):
    """The next token, by a recurrent model that reads on where the last batch ended."""

    of = Rnn

    def rows(self, packed: Packed) -> Rows:
        return StreamRows(packed, self.recipe.length, self.recipe.train.batch)

    def loss(self) -> Loss:
        return Carried()


class Distil(Next):
    """The next token, and what a teacher says of all others that it might have been."""

    def __init__(self, recipe: Recipe, tokens: Tokens):
        super().__init__(recipe, tokens)
        if recipe.teacher is None:
            raise UsageError("no teacher is named", then="say --teacher FOLDER")
        self.teacher = read_teacher(recipe.teacher, tokens, recipe.length)

    def rows(self, packed: Packed) -> Rows:
        rows, r = super().rows(packed), self.recipe
        said = {"teacher": weights_hash(self.teacher), "temperature": str(r.temperature), "mix": str(r.mix)}
        rows.identity = {**rows.identity, **said}
        rows.bytes_per_target = 0.0  # the loss is none of the text alone
        return rows

    def loss(self) -> Loss:
        return Distilled(self.teacher, self.recipe.temperature, self.recipe.mix)


class Masked(Objective):
    """Tokens hidden at random, from both sides."""

    of = Encoder
    special = (*SPECIAL, MASK)
    frame = (True, True)
    mask = MASK

    @classmethod
    def fits(cls, family: type[Model]) -> bool:
        return super().fits(family) and family.config_class.sized(1, 300, 8).head == "masked"  # type: ignore[attr-defined]

    @classmethod
    def prepared(cls, model: Model, seed: int) -> Model:
        return with_head(model, "masked", (), seed)

    def rows(self, packed: Packed) -> Rows:
        return MaskedRows(packed, self.tokens, self.recipe.length, self.recipe.hidden, self.recipe.train.seed)

    def loss(self) -> Loss:
        return masked

    def flops(self, config: Any) -> float:
        """Less the head's where nothing is hidden."""
        shown = (1 - self.recipe.hidden) * self.recipe.length
        return super().flops(config) - 2 * shown * config.hidden_size * config.vocab_size


class Spans(Objective):
    """Hidden spans, written one after the other under what was left."""

    of = EncoderDecoder
    special = (*SPECIAL, *SENTINELS[:32])

    def rows(self, packed: Packed) -> Rows:
        return SpanRows(packed, self.tokens, self.recipe.length, self.recipe.hidden, self.recipe.train.seed)

    def loss(self) -> Loss:
        return Seq2Seq(self.recipe.smoothing)

    def flops(self, config: Config) -> float:
        hidden = round(self.recipe.hidden * self.recipe.length)
        markers = round(hidden / SPAN)
        return config.flops(hidden + markers + 1, self.recipe.length - hidden + markers)


OBJECTIVES: dict[str, type[Objective]] = {
    "next": Next,
    "stateful": Stateful,
    "masked": Masked,
    "spans": Spans,
    "distil": Distil,
}


def objective_of(recipe: Recipe) -> type[Objective]:
    """The objective that a recipe names, or the usual one of its family.

    Raises UsageError if they do not go together.
    """
    family: type[Model] = registry.find("models", recipe.family)
    fitting = [name for name, kind in OBJECTIVES.items() if kind.fits(family)]
    if not fitting:
        raise UsageError(f"{recipe.family} does not learn from plain text", then="tune it: qualm tune --help")
    name = recipe.objective or ("distil" if recipe.teacher else fitting[0])
    if name not in fitting:
        raise UsageError(f"{recipe.family} does not learn by {name!r}", then=f"say {' or '.join(fitting)}")
    if recipe.teacher and name != "distil":
        raise UsageError(f"a teacher teaches nothing by {name!r}", then="leave out the objective, or the teacher")
    return OBJECTIVES[name]
