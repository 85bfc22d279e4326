"""A text classifier: a bidirectional LSTM, the largest value of each channel over all places, two dense layers.

The encoder is that of Conneau et al. 2017 (arXiv 1705.02364). Every text is brought to one length, as Keras has it: of
a longer one the last words are kept, a shorter one is filled up with id 0 on the left, and what the LSTM makes of those
places counts for the maximum too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from qualm.models._recurrent import Recurrent, fill
from qualm.models.base import Config, Encoder
from qualm.models.layers import Embedding, Linear

MULTI = "multi_label_classification"


@dataclass(frozen=True)
class BilstmConfig(Config):
    """The keys of config.json. Each of the labels in `id2label` is true or false by itself (sigmoid)."""

    vocab_size: int
    embedding_size: int
    hidden_size: int  # of each direction
    intermediate_size: int  # of the layer before the labels
    window: int = 100  # words that every text is brought to
    id2label: Mapping[str, str] = field(default_factory=lambda: {"0": "LABEL_0", "1": "LABEL_1"})
    problem_type: str = MULTI
    max_position_embeddings: int = 65536  # words taken at once, of which the last `window` are read
    initializer_range: float = 0.05  # embeddings and dense layers start uniform within it
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = 0
    model_type: str = field(default="qualm-bilstm", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"qualm-bilstm"})
    head: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        self.check_sizes("vocab_size", "embedding_size", "hidden_size", "intermediate_size", "window")
        self.check_sizes("max_position_embeddings")
        if set(self.id2label) != {str(i) for i in range(len(self.id2label))} or not self.id2label:
            raise self.refuse(f"id2label does not name the labels 0 to {len(self.id2label) - 1}")
        if not all(isinstance(word, str) for word in self.id2label.values()):
            raise self.refuse("id2label holds labels that are no words")
        if self.problem_type != MULTI:
            raise self.refuse(f"problem_type {self.problem_type!r} is not {MULTI}")
        if self.tie_word_embeddings:
            raise self.refuse("tie_word_embeddings = True: no layer gives words")

    @property
    def architecture(self) -> str:
        return "QualmBilstmForSequenceClassification"

    @property
    def layers(self) -> int:
        return 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The words for the labels, in the order of the logits."""
        return tuple(self.id2label[str(i)] for i in range(len(self.id2label)))

    @property
    def _recurrent(self) -> int:
        return 8 * self.hidden_size * (self.embedding_size + self.hidden_size)

    @property
    def _dense(self) -> int:
        return self.intermediate_size * (2 * self.hidden_size + len(self.labels))

    @property
    def parameters(self) -> int:
        biases = 16 * self.hidden_size + self.intermediate_size + len(self.labels)
        return self.vocab_size * self.embedding_size + self._recurrent + self._dense + biases

    def flops(self, length: int, source: int = 0) -> int:
        return 2 * (self.window * self._recurrent + self._dense)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """32 channels a step of the dial, and windows of the trained length."""
        width = 32 * depth
        return cls(vocab, width, width, width, window=length, **ids)


class Bilstm(Encoder):
    """`Bilstm(config)` has the weights of seed 0."""

    config_class = BilstmConfig

    def __init__(self, config: BilstmConfig):
        super().__init__()
        self.config = c = config
        self.embedding = Embedding(c.vocab_size, c.embedding_size)
        self.lstm = Recurrent("lstm", c.embedding_size, c.hidden_size, 1, both=True)
        self.dense = Linear(2 * c.hidden_size, c.intermediate_size)
        self.classifier = Linear(c.intermediate_size, len(c.labels))
        self.init_weights()

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        if name.startswith("lstm."):
            fill(name, weight, "lstm", source)
        elif name.endswith("bias"):
            weight.zero_()
        else:
            weight.uniform_(-self.config.initializer_range, self.config.initializer_range, generator=source)

    def hidden(self, ids: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The states (B, window, D) of both directions: first those of the row's last words, then those of the places
        that it was filled up with.
        """
        window = self.config.window
        lengths = torch.full_like(ids[:, 0], ids.shape[1]) if lengths is None else lengths
        kept = lengths.clamp(max=window)[:, None]  # (B, 1)
        place = torch.arange(window, device=ids.device)
        back = lengths[:, None] - window + place  # which word stands at a place of the window; < 0: none
        x = self.embedding(ids.gather(1, back.clamp(min=0)).masked_fill(back < 0, 0))
        states, _ = self.lstm(x, self.lstm.empty(len(ids)))
        order = (place - kept) % window  # the words first
        return states.gather(1, order[..., None].expand_as(states))

    def head(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.classifier(self.dense(hidden.amax(1)).relu())
