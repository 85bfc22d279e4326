"""Recurrent language models: Elman's network, the GRU and the LSTM (Mikolov et al. 2010, Sundermeyer et al. 2012).

A state of fixed size is all that is kept of the text so far. Dropout and tied weights are AWD-LSTM's (Merity et al.
2017, arXiv 1708.02182). The recurrent layers' parameters are torch's: a state_dict of nn.RNN, nn.GRU or nn.LSTM fits.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qualm.models._caches import Cache
from qualm.models._recurrent import CELLS, Recurrent, RecurrentCache, fill, locked_dropout, scale_head
from qualm.models.base import Config, Decoder
from qualm.models.layers import Embedding, Linear


@dataclass(frozen=True)
class RnnConfig(Config):
    """The keys of config.json. `cell` is "elman", "gru" or "lstm".

    With a `projection_size` the states are projected to it before the head reads them; tied embeddings of another size
    than the states need one, and get it. There is no limit to how much is read, only to how much at once.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int = 1
    cell: str = "lstm"
    embedding_size: int = 0  # 0: hidden_size
    projection_size: int = 0  # 0: none, but embedding_size where tied embeddings need it
    head_bias: bool = False
    max_position_embeddings: int = 65536  # tokens read at once; the maths knows no limit
    initializer_range: float = 0.1  # embeddings and head start uniform within it (Merity et al. 2017, section 5)
    embd_pdrop: float = 0.0  # of the channels of the embeddings, the same at all steps of a row
    hidden_dropout_prob: float = 0.0  # of the channels of each layer's outputs, likewise
    recurrent_dropout: float = 0.0  # of the weights from state to state (DropConnect)
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="qualm-rnn", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"qualm-rnn"})

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise self.refuse(f"cell = {self.cell!r} is none of {', '.join(CELLS)}")
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
        object.__setattr__(self, "embedding_size", self.embedding_size or self.hidden_size)
        needed = self.tie_word_embeddings and self.embedding_size != self.hidden_size
        object.__setattr__(self, "projection_size", self.projection_size or self.embedding_size * needed)
        self.check_sizes("embedding_size", *["projection_size"] * bool(self.projection_size))
        if self.tie_word_embeddings and self.head_size != self.embedding_size:
            raise self.refuse(
                f"projection_size = {self.projection_size} is not embedding_size {self.embedding_size}, "
                "and tie_word_embeddings is true"
            )
        self.check_shares("embd_pdrop", "hidden_dropout_prob", "recurrent_dropout")

    @property
    def architecture(self) -> str:
        return "QualmRnnForCausalLM"

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def rate(self) -> float:
        """An LSTM of 1.3 M weights reads 2.73, 2.54, 2.33 and 2.22 bits per byte after 250 steps at 1, 2, 4 and 8 times
        the rate that is usual for its size, which was found on a Llama; 4 leaves it some room.
        """
        return 4.0 if self.cell == "lstm" else 1.0

    @property
    def head_size(self) -> int:
        """Channels that the head reads."""
        return self.projection_size or self.hidden_size

    @property
    def _matrices(self) -> int:
        """Weights of the matrices that each token passes through."""
        width = self.hidden_size
        recurrent = CELLS[self.cell].gates * width * (self.embedding_size + width + (self.layers - 1) * 2 * width)
        return recurrent + width * self.projection_size + self.head_size * self.vocab_size

    @property
    def parameters(self) -> int:
        biases = 2 * CELLS[self.cell].gates * self.hidden_size * self.layers + self.vocab_size * self.head_bias
        tables = self.vocab_size * self.embedding_size * (not self.tie_word_embeddings)
        return self._matrices + biases + tables

    def flops(self, length: int, source: int = 0) -> int:
        return 2 * length * self._matrices

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """Two layers of LSTM (Zaremba et al. 2014, arXiv 1409.2329), 64 units a step of the dial.

        The dial widens and does not deepen: at a given number of weights, models of one to four layers come out nearly
        alike (Melis et al. 2018, arXiv 1707.05589), and each layer more is one more that waits for the one below.
        """
        return cls(vocab_size=vocab, hidden_size=64 * depth, num_hidden_layers=2, **ids)


class Rnn(Decoder):
    """`Rnn(config)` has the weights of seed 0."""

    config_class = RnnConfig
    tied: ClassVar[dict[str, str]] = {"lm_head": "embed_tokens"}
    linear_head: ClassVar[str] = "lm_head"

    def __init__(self, config: RnnConfig):
        super().__init__()
        self.config = c = config
        self.embed_tokens = Embedding(c.vocab_size, c.embedding_size)
        self.rnn = Recurrent(c.cell, c.embedding_size, c.hidden_size, c.num_hidden_layers)
        self.projection = Linear(c.hidden_size, c.projection_size, bias=False) if c.projection_size else nn.Identity()
        self.lm_head = Linear(c.head_size, c.vocab_size, bias=c.head_bias)
        self.tie()
        self.init_weights()

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """The recurrent layers as `fill` has it; a projection uniform within 1 / sqrt(H); the rest uniform within
        `initializer_range`, and the head's bias 0.
        """
        if name.startswith("rnn."):
            fill(name, weight, self.config.cell, source)
        elif name.endswith("bias"):
            weight.zero_()
        else:
            most = self.config.hidden_size**-0.5 if name.startswith("projection") else self.config.initializer_range
            weight.uniform_(-most, most, generator=source)

    def new_cache(self, batch: int, length: int) -> RecurrentCache:
        """The state before the first token; `length` does not matter."""
        return RecurrentCache(self.rnn.empty(batch))

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(cache, RecurrentCache | None)
        c = self.config
        x = self.embed_tokens(ids)  # (B, T, E)
        x = locked_dropout(x, c.embd_pdrop) if self.training else x
        state = cache.state if cache else self.rnn.empty(len(ids))
        x, state = self.rnn(x, state, lengths, c.hidden_dropout_prob, c.recurrent_dropout)  # (B, T, H)
        if cache:
            cache.read(state, ids.shape[1] if lengths is None else lengths)
        x = locked_dropout(x, c.hidden_dropout_prob) if self.training else x
        return self.projection(x)

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    @property
    def last(self) -> nn.Module:
        return self.lm_head

    def scale_logits(self, factor: float) -> None:
        scale_head(self, factor)
