"""An LSTM that writes under a text that another LSTM has read, and looks back into it at every step.

Sutskever et al. 2014 (arXiv 1409.3215); attention and input feeding are Luong et al.'s (2015, arXiv 1508.04025).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qualm.models._caches import Cache, stacked
from qualm.models._recurrent import Recurrent, RecurrentCache, State, fill, locked_dropout, locked_mask, scale_head
from qualm.models.base import Config, EncoderDecoder
from qualm.models.layers import Embedding, Linear


@dataclass(frozen=True)
class RnnAttentionConfig(Config):
    """The keys of config.json. Source and target share a vocabulary and a table of embeddings."""

    vocab_size: int
    hidden_size: int  # of the decoder; each direction of the encoder has half of it
    num_hidden_layers: int = 1  # of the encoder, and of the decoder
    embedding_size: int = 0  # 0: hidden_size
    head_bias: bool = False
    max_position_embeddings: int = 1024  # tokens of a source, and of what is written; the maths knows no limit
    initializer_range: float = 0.1  # embeddings and head start uniform within it
    embd_pdrop: float = 0.0  # of the channels of the embeddings, the same at all steps of a row
    hidden_dropout_prob: float = 0.0  # of the channels of each layer's outputs, likewise
    recurrent_dropout: float = 0.0  # of the weights from state to state (DropConnect)
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    decoder_start_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="qualm-rnn-attention", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"qualm-rnn-attention"})

    def __post_init__(self) -> None:
        self.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
        object.__setattr__(self, "embedding_size", self.embedding_size or self.hidden_size)
        self.check_sizes("embedding_size")
        if self.hidden_size % 2:
            raise self.refuse(f"hidden_size = {self.hidden_size} is odd, and the encoder's two directions halve it")
        if not 0 <= self.decoder_start_token_id < self.vocab_size:
            raise self.refuse(f"decoder_start_token_id = {self.decoder_start_token_id} is not in the vocabulary")
        self.check_shares("embd_pdrop", "hidden_dropout_prob", "recurrent_dropout")

    @property
    def architecture(self) -> str:
        return "QualmRnnAttentionForConditionalGeneration"

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def _read(self) -> int:
        """Weights of the matrices that a token of the source passes through."""
        width, half = self.hidden_size, self.hidden_size // 2
        recurrent = 2 * 4 * half * (self.embedding_size + half + (self.layers - 1) * (width + half))
        return recurrent + width * width

    @property
    def _written(self) -> int:
        """Weights of the matrices that a token of the target passes through."""
        width, embedding = self.hidden_size, self.embedding_size
        recurrent = 4 * width * (2 * embedding + width + (self.layers - 1) * 2 * width)
        return recurrent + 2 * width * embedding + embedding * self.vocab_size

    @property
    def parameters(self) -> int:
        biases = 16 * self.hidden_size * self.layers + self.vocab_size * self.head_bias
        tables = self.vocab_size * self.embedding_size * (not self.tie_word_embeddings)
        return self._read + self._written + biases + tables

    def flops(self, length: int, source: int = 0) -> int:
        return 2 * (source * self._read + length * self._written + length * source * 2 * self.hidden_size)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """Two layers on both sides, 64 units a step of the dial (why it only widens: see `RnnConfig.sized`).

        The decoder starts with the start token, or else the pad or the end token. It can read and write twice the
        trained length.
        """
        names = ("decoder_start_token_id", "bos_token_id", "pad_token_id", "eos_token_id")
        known = [ids[name] for name in names if ids.get(name) is not None]
        start = known[0] if known else 0
        ids["decoder_start_token_id"] = start[0] if isinstance(start, tuple) else start
        return cls(
            vocab_size=vocab, hidden_size=64 * depth, num_hidden_layers=2, max_position_embeddings=2 * length, **ids
        )


class AttentionCache(RecurrentCache):
    """The decoder's state, what it looks up, and what it was last fed.

    `memory` (B, S, H) are the encoder's outputs, `keys` (B, S, H) what the decoder's state is held against, `beyond`
    (B, S) bool the padding among them, `fed` (B, E) the output of the last step, zeros before the first.
    """

    def __init__(self, state: State, memory: Tensor, keys: Tensor, beyond: Tensor | None, fed: Tensor):
        super().__init__(state)
        self.memory, self.keys, self.beyond, self.fed = memory, keys, beyond, fed

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.memory, self.keys, self.fed = self.memory[rows], self.keys[rows], self.fed[rows]
        self.beyond = None if self.beyond is None else self.beyond[rows]

    def add(self, other: "AttentionCache") -> None:  # pyrefly: ignore[bad-override]
        super().add(other)
        counts = stacked(self.counts(), other.counts(), 1)
        self.memory, self.keys = stacked(self.memory, other.memory, 1), stacked(self.keys, other.keys, 1)
        self.fed = torch.cat((self.fed, other.fed))
        self.beyond = ~counts

    def counts(self) -> Tensor:
        """Which places of the memory are no padding, (B, S) bool."""
        return self.memory.new_ones(self.memory.shape[:2], dtype=torch.bool) if self.beyond is None else ~self.beyond

    def beginning(self, row: int, length: int) -> None:
        return None


class RnnAttention(EncoderDecoder):
    """`RnnAttention(config)` has the weights of seed 0.

    Scores are Luong's "general" h W m, not the sum through a tanh of Bahdanau et al. 2014 (arXiv 1409.0473): W m is
    worked out once a source, and what is left for each step is one product, with nothing (B, S, H) large to be kept.
    """

    config_class = RnnAttentionConfig
    tied: ClassVar[dict[str, str]] = {"lm_head": "embed_tokens"}
    linear_head: ClassVar[str] = "lm_head"

    def __init__(self, config: RnnAttentionConfig):
        super().__init__()
        self.config = c = config
        width, embedding, layers = c.hidden_size, c.embedding_size, c.num_hidden_layers
        self.embed_tokens = Embedding(c.vocab_size, embedding)
        self.encoder = Recurrent("lstm", embedding, width // 2, layers, both=True)
        self.decoder = Recurrent("lstm", 2 * embedding, width, layers)
        self.attention = Linear(width, width, bias=False)
        self.combine = Linear(2 * width, embedding, bias=False)
        self.lm_head = Linear(embedding, c.vocab_size, bias=c.head_bias)
        self.tie()
        self.init_weights()

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """The LSTMs as `fill` has it, attention and its output uniform within sqrt(6 / (in + out)) (Glorot and Bengio
        2010), embeddings and head within `initializer_range`, the head's bias 0.
        """
        if name.startswith(("encoder.", "decoder.")):
            fill(name, weight, "lstm", source)
        elif name.endswith("bias"):
            weight.zero_()
        elif name.startswith(("attention.", "combine.")):
            nn.init.xavier_uniform_(weight, generator=source)
        else:
            weight.uniform_(-self.config.initializer_range, self.config.initializer_range, generator=source)

    def encode(self, source: Tensor, lengths: Tensor | None = None, room: int = 64) -> AttentionCache:
        """As the base has it; `room` does not matter. The decoder starts from the encoder's last state, of which the
        two directions lie side by side.
        """
        c, rows = self.config, len(source)
        x = self._dropped(self.embed_tokens(source), c.embd_pdrop)  # (B, S, E)
        memory, state = self.encoder(
            x, self.encoder.empty(rows), lengths, c.hidden_dropout_prob, c.recurrent_dropout
        )  # (B, S, H)
        memory = self._dropped(memory, c.hidden_dropout_prob)
        whole = tuple(s.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2) for s in state)  # each (layers, B, H)
        beyond = None
        if lengths is not None:
            beyond = torch.arange(source.shape[1], device=source.device) >= lengths[:, None]
        return AttentionCache(whole, memory, self.attention(memory), beyond, memory.new_zeros(rows, c.embedding_size))

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        """As the base has it, under the source of the cache: (B, T, E).

        Each step reads a token and the output of the step before, which knows where was looked (input feeding).
        """
        assert isinstance(cache, AttentionCache)
        c = self.config
        x = self._dropped(self.embed_tokens(ids), c.embd_pdrop)  # (B, T, E)
        step = self.decoder.stepper(len(ids), c.hidden_dropout_prob, c.recurrent_dropout)
        drop = c.hidden_dropout_prob if self.training else 0.0
        mask = locked_mask(x, (len(x), c.embedding_size), drop) if drop else None
        state, fed, outs = cache.state, cache.fed, []
        for at, token in enumerate(x.unbind(1)):
            top, after = step(torch.cat((token, fed), -1), state)
            looked = torch.cat((look(top, cache), top), -1)
            out = self.combine(looked).tanh()  # (B, E)
            out = out if mask is None else out * mask
            outs.append(out)
            if lengths is not None:
                counts = (at < lengths)[:, None]
                after = tuple(torch.where(counts, new, old) for new, old in zip(after, state, strict=True))
                out = torch.where(counts, out, fed)
            state, fed = after, out
        cache.fed = fed
        cache.read(state, ids.shape[1] if lengths is None else lengths)
        return torch.stack(outs, 1)

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        return locked_dropout(x, share) if self.training else x

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    @property
    def last(self) -> nn.Module:
        return self.lm_head

    def scale_logits(self, factor: float) -> None:
        scale_head(self, factor)


def look(top: Tensor, cache: AttentionCache) -> Tensor:
    """The mean of the memory (B, H), weighed by the softmax of how its keys agree with the decoder's state (B, H)."""
    scores = (cache.keys @ top[:, :, None]).squeeze(-1)  # (B, S)
    if cache.beyond is not None:
        scores = scores.masked_fill(cache.beyond, -torch.inf)
    return (scores.softmax(-1)[:, None] @ cache.memory).squeeze(1)
