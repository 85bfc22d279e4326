"""textgenrnn's network: two LSTMs over a window of the last tokens, and a weighted mean of all that stands in it.

https://github.com/minimaxir/textgenrnn. The window is filled up with id 0 on the left and read afresh for each token,
so nothing from before it is known. Each place's embedding and both states stand side by side, and the softmax of one
learnt score a place weighs them (as in Felbo et al. 2017, arXiv 1708.00524).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._caches import Cache
from qualm.models._recurrent import Recurrent, fill
from qualm.models.base import Config, Decoder
from qualm.models.layers import Embedding, Linear

BLOCK = 2**15  # places of windows read at once: 50 MB of states


@dataclass(frozen=True)
class TextgenrnnConfig(Config):
    """The keys of config.json."""

    vocab_size: int
    embedding_size: int = 100
    hidden_size: int = 128
    window: int = 40  # tokens that the next one is told from
    max_position_embeddings: int = 65536  # tokens read at once; the window goes over all of them
    initializer_range: float = 0.05  # embeddings, attention and head start uniform within it
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = 0
    model_type: str = field(default="qualm-textgenrnn", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"qualm-textgenrnn"})

    def __post_init__(self) -> None:
        self.check_sizes("vocab_size", "embedding_size", "hidden_size", "window", "max_position_embeddings")
        if self.tie_word_embeddings:
            raise self.refuse("tie_word_embeddings = True: the head reads more than an embedding")

    @property
    def architecture(self) -> str:
        return "QualmTextgenrnnForCausalLM"

    @property
    def layers(self) -> int:
        return 2

    @property
    def read(self) -> int:
        """Channels of a place: its embedding and the states of both layers."""
        return self.embedding_size + 2 * self.hidden_size

    @property
    def _recurrent(self) -> int:
        return 4 * self.hidden_size * (self.embedding_size + 3 * self.hidden_size)

    @property
    def parameters(self) -> int:
        tables = self.vocab_size * (self.embedding_size + self.read + 1)
        return tables + self._recurrent + 16 * self.hidden_size + self.read

    def flops(self, length: int, source: int = 0) -> int:
        return 2 * length * (self.window * (self._recurrent + self.read) + self.read * self.vocab_size)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """32 units a step of the dial, and the original's window."""
        return cls(vocab_size=vocab, embedding_size=32 * depth, hidden_size=32 * depth, **ids)


class WindowCache(Cache):
    """The last ids (B, window) of each row, 0 where there are none yet."""

    def __init__(self, ids: Tensor):
        self.ids = ids
        self.lengths = torch.zeros(len(ids), dtype=torch.long, device=ids.device)

    def keep(self, rows: Tensor) -> None:
        self.ids, self.lengths = self.ids[rows], self.lengths[rows]

    def add(self, other: "WindowCache") -> None:
        self.ids, self.lengths = torch.cat((self.ids, other.ids)), torch.cat((self.lengths, other.lengths))

    def read(self, ids: Tensor, lengths: Tensor | None) -> None:
        """Take new ids (B, T), of which `lengths` (B,) count."""
        new = torch.full_like(self.lengths, ids.shape[1]) if lengths is None else lengths
        window = torch.arange(self.ids.shape[1], device=ids.device)
        self.ids = torch.cat((self.ids, ids), 1).gather(1, new[:, None] + window)
        self.lengths = self.lengths + new


class Textgenrnn(Decoder):
    """`Textgenrnn(config)` has the weights of seed 0."""

    config_class = TextgenrnnConfig

    def __init__(self, config: TextgenrnnConfig):
        super().__init__()
        self.config = c = config
        self.embedding = Embedding(c.vocab_size, c.embedding_size)
        self.rnn_1 = Recurrent("lstm", c.embedding_size, c.hidden_size, 1)
        self.rnn_2 = Recurrent("lstm", c.hidden_size, c.hidden_size, 1)
        self.attention = Linear(c.read, 1, bias=False)
        self.output = Linear(c.read, c.vocab_size)
        self.init_weights()

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        if name.startswith("rnn_"):
            fill(name, weight, "lstm", source)
        elif name.endswith("bias"):
            weight.zero_()
        else:
            weight.uniform_(-self.config.initializer_range, self.config.initializer_range, generator=source)

    @property
    def last(self) -> nn.Module:
        return self.output

    def new_cache(self, batch: int, length: int) -> WindowCache:
        """Windows of no ids yet; `length` does not matter."""
        device = self.attention.weight.device
        return WindowCache(torch.zeros(batch, self.config.window, dtype=torch.long, device=device))

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(cache, WindowCache | None)
        window = self.config.window
        before = ids.new_zeros(len(ids), window) if cache is None else cache.ids
        windows = torch.cat((before[:, 1:], ids), 1).unfold(1, window, 1).flatten(0, 1)  # (B * T, window)
        if cache is not None:
            cache.read(ids, lengths)
        rows = max(1, BLOCK // window)
        return torch.cat([self.mean(some) for some in windows.split(rows)]).unflatten(0, ids.shape)

    def mean(self, windows: Tensor) -> Tensor:
        """What is read off each of these windows (N, window): (N, D)."""
        x = self.embedding(windows)
        first, _ = self.rnn_1(x, self.rnn_1.empty(len(x)))
        second, _ = self.rnn_2(first, self.rnn_2.empty(len(x)))
        places = torch.cat((x, first, second), -1)  # (N, window, D)
        weights = F.softmax(self.attention(places), 1)
        return (places * weights).sum(1)

    def head(self, hidden: Tensor) -> Tensor:
        return self.output(hidden)
