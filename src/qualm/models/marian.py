"""Marian, the encoder-decoder of the Opus-MT translators (Junczys-Dowmunt et al. 2018, arXiv 1804.00344; Tiedemann and
Thottingal 2020). It is the Transformer of Vaswani et al. 2017 (arXiv 1706.03762): the norm comes after each sum, and
positions are waves, not weights. Names are Hugging Face's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._caches import Cache, CrossCache
from qualm.models._dropout import dropout
from qualm.models.base import Config, EncoderDecoder
from qualm.models.layers import Embedding, Linear, Reading, attend, attend_all, counted

ACTIVATIONS = {"swish": F.silu, "silu": F.silu, "relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class MarianConfig(Config):
    """The keys of config.json. The decoder starts with `decoder_start_token_id`, which is the pad."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    decoder_vocab_size: int = 0  # 0: vocab_size
    max_position_embeddings: int = 1024
    activation_function: str = "gelu"
    scale_embedding: bool = False  # embeddings times sqrt(d_model)
    share_encoder_decoder_embeddings: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = 0
    pad_token_id: int = 58100
    decoder_start_token_id: int = 58100
    model_type: str = field(default="marian", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"marian"})
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"encoder_layerdrop", "decoder_layerdrop", "init_std"}  # training's
        | {"add_bias_logits", "classif_dropout", "classifier_dropout", "extra_pos_embeddings", "num_hidden_layers"}
    )
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "activation_function": tuple(ACTIVATIONS),
        "is_encoder_decoder": (True,),
        "is_decoder": (False,),
        "add_final_layer_norm": (False,),
        "normalize_before": (False,),
        "normalize_embedding": (False,),
        "static_position_embeddings": (True,),
    }
    norm_eps: ClassVar[float] = 1e-5

    def __post_init__(self) -> None:
        self.check_sizes("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads")
        self.check_sizes("decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings")
        object.__setattr__(self, "decoder_vocab_size", self.decoder_vocab_size or self.vocab_size)
        self.check_sizes("decoder_vocab_size")
        for heads in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, heads):
                raise self.refuse(f"d_model {self.d_model} is not a multiple of {heads} {getattr(self, heads)}")
        if self.d_model % 2:
            raise self.refuse(f"d_model {self.d_model} is odd, and positions are pairs of sine and cosine")
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size != self.vocab_size:
            raise self.refuse(
                f"share_encoder_decoder_embeddings with decoder_vocab_size {self.decoder_vocab_size} and "
                f"vocab_size {self.vocab_size}"
            )
        if self.share_encoder_decoder_embeddings and not self.tie_word_embeddings:
            raise self.refuse("share_encoder_decoder_embeddings without tie_word_embeddings is not implemented")
        self.check_shares("dropout", "attention_dropout", "activation_dropout")
        for name in ("pad_token_id", "decoder_start_token_id"):
            if not 0 <= getattr(self, name) < self.decoder_vocab_size:
                raise self.refuse(f"{name} = {getattr(self, name)} is not in the vocabulary of the decoder")

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        return {**super().to_hf(dtype), "is_encoder_decoder": True, "forced_eos_token_id": None}

    def maths(self) -> dict[str, Any]:
        """With the pad, which is never written: it decides what is."""
        return {**super().maths(), "pad_token_id": self.pad_token_id}

    @property
    def architecture(self) -> str:
        return "MarianMTModel"

    @property
    def layers(self) -> int:
        return self.encoder_layers + self.decoder_layers

    @property
    def embed_scale(self) -> float:
        return math.sqrt(self.d_model) if self.scale_embedding else 1.0

    @property
    def frequencies(self) -> Tensor:
        """Radians a position for each wave, (D/2,) float64: 1 down to nearly 1/10000, by equal factors."""
        return 10000.0 ** -(torch.arange(self.d_model // 2, dtype=torch.float64, device="cpu") / (self.d_model / 2))

    @property
    def _written(self) -> int:
        """Weights of what a decoder layer has for the text written so far."""
        return 4 * self.d_model**2 + 4 * self.d_model

    @property
    def parameters(self) -> int:
        width, attention, norm = self.d_model, 4 * self.d_model**2 + 4 * self.d_model, 2 * self.d_model
        inner, outer = ((2 * width + 1) * n + width for n in (self.encoder_ffn_dim, self.decoder_ffn_dim))
        encoder = attention + inner + 2 * norm
        decoder = self._written + attention + outer + 3 * norm
        rows = self.vocab_size
        if not self.share_encoder_decoder_embeddings:
            rows += self.decoder_vocab_size * (2 - self.tie_word_embeddings)
        total = self.encoder_layers * encoder + self.decoder_layers * decoder + rows * width
        return total + self.decoder_vocab_size

    def flops(self, length: int, source: int = 0) -> int:
        width = self.d_model
        encoder = source * (4 * width**2 + 2 * width * self.encoder_ffn_dim + 2 * source * width)
        cross = 2 * (length + source) * width**2 + 2 * length * source * width
        decoder = self._written_products(length) + cross + 2 * length * width * self.decoder_ffn_dim
        head = length * width * self.decoder_vocab_size
        return 2 * (self.encoder_layers * encoder + self.decoder_layers * decoder + head)

    def _written_products(self, length: int) -> int:
        """Multiply-adds of what a decoder layer does with the text written so far."""
        return 4 * length * self.d_model**2 + 2 * length**2 * self.d_model

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """`depth` layers on both sides, of 32 channels a layer, heads of 32 channels, feed-forward of 4 widths, one
        table of embeddings for all, as the Transformer of 2017. The decoder starts with the pad, or else with the
        end token.
        """
        width = 32 * depth
        end = ids.get("eos_token_id")
        start = ids.pop("decoder_start_token_id", None)
        pads = (ids.pop("pad_token_id", None), start, end[0] if isinstance(end, tuple) else end, 0)
        pad = next(i for i in pads if i is not None)
        return cls(
            vocab_size=vocab,
            d_model=width,
            encoder_layers=depth,
            decoder_layers=depth,
            encoder_attention_heads=depth,
            decoder_attention_heads=depth,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            max_position_embeddings=length,
            activation_function="relu",
            scale_embedding=True,
            pad_token_id=pad,
            decoder_start_token_id=pad if start is None else start,
            **ids,
        )


def waves(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> Tensor:
    """Sines of all waves, then their cosines: (.., T, D) of positions (.., T)."""
    angles = positions[..., None] * frequencies.to(positions.device)
    return torch.cat((angles.sin(), angles.cos()), -1).to(dtype)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.q_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def queries(self, x: Tensor) -> Tensor:
        """(B, H, T, Dh) of (B, T, D)."""
        return self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, H, S, Dh) of (B, S, D)."""
        k, v = (made.unflatten(-1, (self.heads, -1)).transpose(1, 2) for made in (self.k_proj(x), self.v_proj(x)))
        return k, v


class Layer(nn.Module):
    """What layers of both sides share: the feed-forward, and the norm of a sum."""

    def __init__(self, config: MarianConfig, inner: int):
        super().__init__()
        self.config = config
        self.fc1 = Linear(config.d_model, inner)
        self.fc2 = Linear(inner, config.d_model)
        self.final_layer_norm = self.norm()

    def norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.d_model, self.config.norm_eps)

    @property
    def unattended(self) -> float:
        """The part of the attention that is dropped."""
        return self.config.attention_dropout if self.training else 0.0

    def drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def feed_forward(self, x: Tensor) -> Tensor:
        inner = ACTIVATIONS[self.config.activation_function](self.fc1(x))
        inner = dropout(inner, self.config.activation_dropout, self.training)
        return self.final_layer_norm(x + self.drop(self.fc2(inner)))


class EncoderLayer(Layer):
    def __init__(self, config: MarianConfig):
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = self.norm()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        k, v = self.self_attn.keys_values(x)
        read = self.self_attn.out_proj(attend_all(self.self_attn.queries(x), k, v, mask, dropout=self.unattended))
        return self.feed_forward(self.self_attn_layer_norm(x + self.drop(read)))


class CrossLayer(Layer):
    """A decoder's layer but for how it reads what was written so far."""

    def __init__(self, config: MarianConfig):
        super().__init__(config, config.decoder_ffn_dim)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = self.norm()

    def look_up(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        q = self.encoder_attn.queries(x)
        read = self.encoder_attn.out_proj(attend_all(q, *memory, mask, dropout=self.unattended))
        return self.feed_forward(self.encoder_attn_layer_norm(x + self.drop(read)))


class DecoderLayer(CrossLayer):
    def __init__(self, config: MarianConfig):
        super().__init__(config)
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.self_attn_layer_norm = self.norm()

    def forward(self, x: Tensor, reading: Reading, layer: int) -> Tensor:
        k, v = self.self_attn.keys_values(x)
        read = self.self_attn.out_proj(attend(self.self_attn.queries(x), k, v, reading, layer))
        return self.self_attn_layer_norm(x + self.drop(read))


class Side(nn.Module):
    def __init__(self, layers: list[Layer], words: int, width: int):
        super().__init__()
        self.embed_tokens = Embedding(words, width)
        self.layers: Any = nn.ModuleList(layers)


class Body(nn.Module):
    def __init__(self, config: MarianConfig, layer: type[CrossLayer]):
        super().__init__()
        width = config.d_model
        if config.share_encoder_decoder_embeddings:
            self.shared = Embedding(config.vocab_size, width)
        self.encoder = Side([EncoderLayer(config) for _ in range(config.encoder_layers)], config.vocab_size, width)
        self.decoder = Side([layer(config) for _ in range(config.decoder_layers)], config.decoder_vocab_size, width)


class Marian(EncoderDecoder):
    """`Marian(config)` has the weights of seed 0. Ids beyond the tables are the caller's error.

    `final_logits_bias` (1, V) is a weight here, as where these models are trained; Hugging Face keeps it fixed.
    """

    config_class = MarianConfig
    layer: ClassVar[type[CrossLayer]] = DecoderLayer

    def __init__(self, config: MarianConfig):
        super().__init__()
        self.config = config
        self.model = Body(config, self.layer)
        self.lm_head = Linear(config.d_model, config.decoder_vocab_size, bias=False)
        self.final_logits_bias = nn.Parameter(torch.zeros(1, config.decoder_vocab_size))
        self.tie()
        self.init_weights()

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        """Old files hold the table of positions too."""
        return None if name.endswith("embed_positions.weight") else name

    @property
    def ties(self) -> Mapping[str, str]:
        if self.config.share_encoder_decoder_embeddings:
            ends = ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
            return dict.fromkeys(ends, "model.shared")
        return {"lm_head": "model.decoder.embed_tokens"} if self.config.tie_word_embeddings else {}

    @property
    def never(self) -> tuple[int, ...]:  # type: ignore[override]
        """The pad: it was added when the weights were converted, and nothing has taught the model not to write it."""
        c = self.config
        ends = c.eos_token_id if isinstance(c.eos_token_id, tuple) else (c.eos_token_id,)
        return () if c.pad_token_id in ends else (c.pad_token_id,)

    @property
    def last(self) -> nn.LayerNorm:
        return self.model.decoder.layers[-1].final_layer_norm

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        super().scale_logits(factor)
        # A new tensor: a copy of the model may share the old one.
        self.final_logits_bias = nn.Parameter(self.final_logits_bias * factor)

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """Matrices uniform within sqrt(6 / (in + out)) (Glorot and Bengio 2010, section 4.2.1), embeddings normal
        with deviation 1 / sqrt(D), so that a vector is about of length 1, as Marian has both.
        """
        if weight.dim() == 1 or name.endswith("bias"):
            super().init_weight(name, weight, source)
        elif name.startswith("lm_head") or name.endswith(("shared.weight", "embed_tokens.weight")):
            weight.normal_(0.0, self.config.d_model**-0.5, generator=source)
        else:
            bound = (6 / sum(weight.shape)) ** 0.5
            weight.uniform_(-bound, bound, generator=source)

    def embed(self, side: Side, ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T, D) of ids (B, T) at positions (B or 1, T)."""
        words = side.embed_tokens(ids) * self.config.embed_scale
        x = words + waves(positions, self.config.frequencies, words.dtype)
        return dropout(x, self.config.dropout, self.training)

    def read(self, source: Tensor, mask: Tensor | None) -> Tensor:
        """What the encoder makes (B, S, D) of sources (B, S), `mask` (B, 1, 1, S) saying which ids count."""
        x = self.embed(self.model.encoder, source, torch.arange(source.shape[1], device=source.device)[None])
        for layer in self.model.encoder.layers:
            x = layer(x, mask)
        return x

    def encode(self, source: Tensor, lengths: Tensor | None = None, room: int = 64) -> Cache:
        mask = counted(lengths, source.shape[1])
        x = self.read(source, mask)
        cache: Any = self.opened(x, room)
        cache.memory = [layer.encoder_attn.keys_values(x) for layer in self.model.decoder.layers]
        cache.memory_mask = mask
        return cache

    def opened(self, x: Tensor, room: int) -> Cache:
        """A cache in which nothing is written yet under what was read, (B, S, D)."""
        c, heads = self.config, self.config.decoder_attention_heads
        return CrossCache(c.decoder_layers, (len(x), heads, max(1, room), c.d_model // heads), x.dtype, x.device)

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        assert isinstance(cache, CrossCache)
        reading = Reading(ids, cache, dropout=self.config.attention_dropout if self.training else 0.0)
        x = self.embed(self.model.decoder, ids, reading.positions)
        for i, layer in enumerate(self.model.decoder.layers):
            x = layer.look_up(layer(x, reading, i), cache.memory[i], cache.memory_mask)
        reading.done(lengths)
        return x

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden) + self.final_logits_bias.flatten()
