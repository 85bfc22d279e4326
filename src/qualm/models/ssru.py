"""Marian with a recurrent decoder, as in the translators that run inside browsers (Kim et al. 2019, "From Research to
Production and Back: Ludicrously Fast Neural Machine Translation").

In each decoder layer a simpler simple recurrent unit stands where self-attention did: SRU (Lei et al. 2018,
arXiv 1709.02755) without the output gate. What was written is held in one vector a layer, not in keys and values that
grow. No class of Hugging Face's computes this; the names go on as in theirs.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._caches import Cache, Memory
from qualm.models.layers import Linear
from qualm.models.marian import CrossLayer, Marian, MarianConfig


@dataclass(frozen=True)
class SsruConfig(MarianConfig):
    """The keys of Marian's config.json. Waves and norms are those of Marian's own code, which Hugging Face's differ
    from a little.
    """

    model_type: str = field(default="qualm-ssru", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"qualm-ssru"})
    norm_eps: ClassVar[float] = 1e-9

    @property
    def architecture(self) -> str:
        return "Ssru"

    @property
    def frequencies(self) -> Tensor:
        """Radians a position for each wave, (D/2,) float64: 1 down to 1/10000, by equal factors."""
        waves = self.d_model // 2
        return 10000.0 ** -(torch.arange(waves, dtype=torch.float64, device="cpu") / max(1, waves - 1))

    @property
    def _written(self) -> int:
        return 2 * self.d_model**2 + self.d_model

    def _written_products(self, length: int) -> int:
        return 2 * length * self.d_model**2

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """As Marian's, with a decoder of a third as many layers: each runs once a token written, the encoder once."""
        return replace(super().sized(depth, vocab, length, **ids), decoder_layers=max(1, depth // 3))


class SsruCache(Memory, Cache):
    """The state (B, D) of each layer, and what the decoder looks up in the source."""

    def __init__(self, layers: int, like: Tensor):
        self.states = [like.new_zeros(len(like), like.shape[-1]) for _ in range(layers)]
        self.lengths = torch.zeros(len(like), dtype=torch.long, device=like.device)

    def keep(self, rows: Tensor) -> None:
        self.states = [state[rows] for state in self.states]
        self.lengths = self.lengths[rows]
        self.keep_memory(rows)

    def add(self, other: "SsruCache") -> None:
        self.states = [torch.cat(pair) for pair in zip(self.states, other.states, strict=True)]
        self.lengths = torch.cat((self.lengths, other.lengths))
        self.add_memory(other)


class Recurrence(nn.Module):
    """c_t = f_t * c_{t-1} + (1 - f_t) * W x_t with f_t = sigmoid(V x_t + b); gives relu(c_t)."""

    def __init__(self, width: int):
        super().__init__()
        self.candidate = Linear(width, width, bias=False)
        self.forget_gate = Linear(width, width)

    def forward(self, x: Tensor, state: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, D) and the state (B, D) after them, from x (B, T, D) and the state before.

        `counts` (B, T, 1) bool says which ids count: the others leave the state as it is.
        """
        forget = self.forget_gate(x).sigmoid()
        if counts is not None:
            forget = forget.masked_fill(~counts, 1.0)
        fresh = (1 - forget) * self.candidate(x)
        states = []
        for step in range(x.shape[1]):  # only this is done token by token
            state = forget[:, step] * state + fresh[:, step]
            states.append(state)
        return F.relu(torch.stack(states, 1)), state


class SsruLayer(CrossLayer):
    def __init__(self, config: SsruConfig):
        super().__init__(config)
        self.ssru = Recurrence(config.d_model)
        self.ssru_layer_norm = self.norm()

    def forward(self, x: Tensor, state: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        read, state = self.ssru(x, state, counts)
        return self.ssru_layer_norm(x + self.drop(read)), state


class Ssru(Marian):
    """`Ssru(config)` has the weights of seed 0. Ids beyond the tables are the caller's error."""

    config_class = SsruConfig
    layer: ClassVar[type[CrossLayer]] = SsruLayer

    def opened(self, x: Tensor, room: int) -> SsruCache:
        return SsruCache(self.config.decoder_layers, x)

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(cache, SsruCache)
        steps = torch.arange(ids.shape[1], device=ids.device)
        counts = None if lengths is None else (steps < lengths[:, None])[..., None]
        x = self.embed(self.model.decoder, ids, cache.lengths[:, None] + steps)
        for i, layer in enumerate(self.model.decoder.layers):
            x, cache.states[i] = layer(x, cache.states[i], counts)
            x = layer.look_up(x, cache.memory[i], cache.memory_mask)
        cache.lengths = cache.lengths + (ids.shape[1] if lengths is None else lengths)
        return x
