"""T5: attention knows of two tokens only how far apart they stand (Raffel et al. 2019, arXiv 1910.10683).

By config also T5 v1.1 and Flan-T5 (Chung et al. 2022, 2210.11416), mT5 (Xue et al. 2020, 2010.11934), ByT5 (Xue et al.
2021, 2105.13626) and UL2 (Tay et al. 2022, 2205.05131). Parameter names are Hugging Face's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.errors import InputError
from qualm.models._caches import Cache, CrossCache
from qualm.models._dropout import Dropout
from qualm.models.base import Config, EncoderDecoder
from qualm.models.layers import Embedding, Linear, Reading, RMSNorm, attend, attend_all, counted

ARCHITECTURES = {kind: f"{kind.upper()}ForConditionalGeneration" for kind in ("t5", "mt5")}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}
TABLES = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")

See = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, H, T or S, Dh) -> what was attended to (B, T, H * Dh)


@dataclass(frozen=True)
class T5Config(Config):
    """The keys of config.json. Attention is `num_heads * d_kv` wide, whatever `d_model` is.

    `n_positions` bounds what is read and written; no weight hangs on it. Where a file has none it is 1024, the most
    that a model of the family was first taught with. `scale_decoder_outputs` None: as `tie_word_embeddings` says
    (mT5: never), which is how the files of T5 v1.0 and v1.1 tell it.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int  # of the encoder
    num_heads: int
    num_decoder_layers: int = 0  # 0: as many as num_layers
    feed_forward_proj: str = "relu"  # or "gelu", "gelu_new", "silu", each also as "gated-..."
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    n_positions: int = 1024
    dropout_rate: float = 0.1
    initializer_factor: float = 1.0
    scale_decoder_outputs: bool | None = None
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    decoder_start_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = 1
    pad_token_id: int | None = 0
    model_type: str = field(default="t5", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset(ARCHITECTURES)
    harmless: ClassVar[frozenset[str]] = frozenset({"classifier_dropout", "dense_act_fn", "is_gated_act"})
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {"is_encoder_decoder": (True,), "is_decoder": (False,)}

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_decoder_layers", self.num_decoder_layers or self.num_layers)
        if self.scale_decoder_outputs is None:
            object.__setattr__(self, "scale_decoder_outputs", self.model_type == "t5" and self.tie_word_embeddings)
        self.check_sizes("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
        self.check_sizes("inner", "relative_attention_num_buckets", "relative_attention_max_distance", "n_positions")
        self.check_shares("dropout_rate")
        near = self.relative_attention_num_buckets // 2
        wrong = {
            "model_type": self.model_type not in self.model_types,
            "scale_decoder_outputs": self.model_type == "mt5" and self.scale_decoder_outputs,
            "feed_forward_proj": self.feed_forward_proj.removeprefix("gated-") not in ACTIVATIONS,
            "relative_attention_num_buckets": near < 2,
            "relative_attention_max_distance": self.relative_attention_max_distance <= near,
            "decoder_start_token_id": not 0 <= self.decoder_start_token_id < self.vocab_size,
        }
        for key, is_wrong in wrong.items():
            if is_wrong:
                raise self.refuse(f"{key} = {getattr(self, key)!r} is not implemented for {self.model_type}")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Self:
        may_lack = ("num_decoder_layers", "decoder_start_token_id", "scale_decoder_outputs")
        given = {key: value for key, value in raw.items() if value is not None or key not in may_lack}
        if raw.get("model_type") == "mt5":
            given.setdefault("feed_forward_proj", "gated-gelu")
        config = super().from_hf(given, where)
        for key, own in (("dense_act_fn", config.activation), ("is_gated_act", config.gated)):
            if raw.get(key, own) != own:
                what = f"{key} = {raw[key]!r}, and feed_forward_proj = {config.feed_forward_proj!r} means {own!r}"
                raise InputError(what, where=where, then="mend the one that is wrong")
        return config

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        kept = {**super().to_hf(dtype), "is_encoder_decoder": True}
        if self.model_type == "mt5":
            del kept["scale_decoder_outputs"]
        return kept

    @property
    def architecture(self) -> str:
        return ARCHITECTURES[self.model_type]

    @property
    def layers(self) -> int:
        """Of the deeper of the two stacks."""
        return max(self.num_layers, self.num_decoder_layers)

    @property
    def context(self) -> int:
        """The most tokens of a source, and of what is written under it."""
        return self.n_positions

    @property
    def gated(self) -> bool:
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """What stands between the feed-forward's matrices; "gated-gelu" always meant GELU by tanh."""
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.num_heads * self.d_kv

    @property
    def parameters(self) -> int:
        attention, forward = 4 * self.d_model * self.inner, (2 + self.gated) * self.d_model * self.d_ff
        reads = self.num_layers * (attention + forward + 2 * self.d_model)
        writes = self.num_decoder_layers * (2 * attention + forward + 3 * self.d_model)
        tables = self.vocab_size * (2 - self.tie_word_embeddings) + 2
        return reads + writes + tables * self.d_model + 2 * self.relative_attention_num_buckets * self.num_heads

    def flops(self, length: int, source: int = 0) -> int:
        """Keys and values of the source are made once for each layer of the decoder."""
        attention, forward = 4 * self.d_model * self.inner, (2 + self.gated) * self.d_model * self.d_ff
        reads = source * (attention + forward + 2 * source * self.inner)
        writes = length * (attention + forward + 2 * length * self.inner)
        looks = (length + source) * 2 * self.d_model * self.inner + 2 * length * source * self.inner
        head = length * self.d_model * self.vocab_size
        return 2 * (self.num_layers * reads + self.num_decoder_layers * (writes + looks) + head)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """`depth` layers in the encoder and as many in the decoder, of 32 channels a layer, heads of 32 channels.

        A gated feed-forward of 8/3 widths, which has as many weights as a plain one of 4 (Shazeer 2020, arXiv
        2002.05202), and tied embeddings. Relative positions reach twice the trained length.
        """
        width = 32 * depth
        return cls(
            vocab_size=vocab,
            d_model=width,
            d_kv=32,
            d_ff=8 * width // 3,
            num_layers=depth,
            num_heads=depth,
            feed_forward_proj="gated-gelu",
            n_positions=2 * length,
            **ids,
        )


def buckets(behind: Tensor, count: int, reach: int, both: bool) -> Tensor:
    """The bucket, 0 to count - 1, of a key that stands so many places behind the query; any shape.

    The nearer half of the buckets hold one distance each, the others grow by a constant factor up to `reach`, beyond
    which all is one. With `both`, half of all buckets are for keys ahead; without, none is ever seen there.
    """
    count = count // 2 if both else count
    distance = behind.abs() if both else behind.clamp(min=0)
    near = count // 2
    growth = torch.log(distance.clamp(min=1).float() / near) / math.log(reach / near)
    far = (near + (growth * (count - near)).long()).clamp(max=count - 1)
    bucket = torch.where(distance < near, distance, far)
    return bucket + count * (behind < 0) if both else bucket


class Attention(nn.Module):
    """Scores are not divided by sqrt(d_kv): q's weights start smaller by that instead."""

    def __init__(self, config: T5Config, biased: bool = False):
        super().__init__()
        self.heads = config.num_heads
        self.q, self.k, self.v = (Linear(config.d_model, config.inner, bias=False) for _ in range(3))
        self.o = Linear(config.inner, config.d_model, bias=False)
        if biased:
            self.relative_attention_bias = Embedding(config.relative_attention_num_buckets, config.num_heads)

    def query(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, Dh)."""
        return self._split(self.q(x))

    def remember(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, Dh) of (B, S, D)."""
        return self._split(self.k(x)), self._split(self.v(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Sublayer(nn.Module):
    """x + dropout(f(norm(x))): the stream itself is never normed."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)


class SelfLayer(Sublayer):
    def __init__(self, config: T5Config, biased: bool):
        super().__init__(config)
        self.SelfAttention = Attention(config, biased)

    def forward(self, x: Tensor, see: See) -> Tensor:
        own, y = self.SelfAttention, self.layer_norm(x)
        return x + self.dropout(own.o(see(own.query(y), *own.remember(y))))


class CrossLayer(Sublayer):
    def __init__(self, config: T5Config):
        super().__init__(config)
        self.EncDecAttention = Attention(config)

    def forward(self, x: Tensor, see: See, memory: tuple[Tensor, Tensor]) -> Tensor:
        own = self.EncDecAttention
        return x + self.dropout(own.o(see(own.query(self.layer_norm(x)), *memory)))


class Dense(nn.Module):
    def __init__(self, config: T5Config):
        super().__init__()
        self.act, self.gated = ACTIVATIONS[config.activation], config.gated
        if config.gated:
            self.wi_0 = Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = Linear(config.d_model, config.d_ff, bias=False)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.wi_0(x)) * self.wi_1(x) if self.gated else self.act(self.wi(x))
        return self.wo(self.dropout(inner))


class ForwardLayer(Sublayer):
    def __init__(self, config: T5Config):
        super().__init__(config)
        self.DenseReluDense = Dense(config)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.DenseReluDense(self.layer_norm(x)))


class Block(nn.Module):
    """Self-attention, in the decoder attention to the source, feed-forward. The first of a stack holds its bias."""

    layer: Any

    def __init__(self, config: T5Config, first: bool, decodes: bool):
        super().__init__()
        cross = [CrossLayer(config)] if decodes else []
        self.layer = nn.ModuleList([SelfLayer(config, first), *cross, ForwardLayer(config)])

    def forward(self, x: Tensor, see: See, look: See | None = None, memory: Any = None) -> Tensor:
        x = self.layer[0](x, see)
        if look is not None:
            x = self.layer[1](x, look, memory)
        return self.layer[-1](x)


class Stack(nn.Module):
    block: Any

    def __init__(self, config: T5Config, decodes: bool):
        super().__init__()
        self.buckets = partial(
            buckets,
            count=config.relative_attention_num_buckets,
            reach=config.relative_attention_max_distance,
            both=not decodes,
        )
        self.embed_tokens = Embedding(config.vocab_size, config.d_model)
        depth = config.num_decoder_layers if decodes else config.num_layers
        self.block = nn.ModuleList(Block(config, i == 0, decodes) for i in range(depth))
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def bias(self, behind: Tensor) -> Tensor:
        """What all layers add to the score of a key so many places behind: (B or 1, 1, T, S) -> (B or 1, H, T, S)."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        return table(self.buckets(behind[:, 0])).permute(0, 3, 1, 2)


class T5(EncoderDecoder):
    """`T5(config)` has the weights of seed 0. Ids beyond the table are the caller's error."""

    config_class = T5Config

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.shared = Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, decodes=False)
        self.decoder = Stack(config, decodes=True)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)
        self.tie()
        self.init_weights()

    @property
    def ties(self) -> Mapping[str, str]:
        return dict.fromkeys(TABLES[1:] if self.config.tie_word_embeddings else TABLES[1:3], TABLES[0])

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        """Old files hold a bias for the first attention to the source, which nothing reads."""
        return None if name.endswith("EncDecAttention.relative_attention_bias.weight") else name

    @classmethod
    def settle(cls, config: T5Config, state: dict[str, Tensor]) -> T5Config:
        """The table of embeddings may go by any of its names. The head is tied unless the file has another one:
        transformers 5 writes tie_word_embeddings = true for all of them, and reads them so.
        """
        names = TABLES if config.tie_word_embeddings else TABLES[:3]
        tables = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
        state |= {"shared.weight": tables[0]} if tables else {}
        head = state.get("lm_head.weight")
        tied = config.tie_word_embeddings and (head is None or torch.equal(head, tables[0]))
        return replace(config, tie_word_embeddings=tied)

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """Normal, with standard deviation 1 over the square root of how many inputs are summed, q's divided by
        sqrt(d_kv) besides in place of a scale on the scores; embeddings 1, norms all ones.

        As in Mesh TensorFlow, which the paper's models were trained with (arXiv 1811.02084); all but the norms times
        `initializer_factor`.
        """
        c = self.config
        summed = {"q": c.d_model * c.d_kv, "o": c.inner, "wo": c.d_ff, "shared": 1}
        if weight.dim() == 1:
            weight.fill_(1.0)
        else:
            deviation = summed.get(name.split(".")[-2], c.d_model) ** -0.5
            weight.normal_(0.0, c.initializer_factor * deviation, generator=source)

    @property
    def _dropped(self) -> float:
        return self.config.dropout_rate if self.training else 0.0

    @property
    def last(self) -> RMSNorm:
        return self.decoder.final_layer_norm

    def read(self, source: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The encoder's hidden states (B, S, D) of sources (B, S) long, padded on the right to `lengths` (B,)."""
        at = torch.arange(source.shape[1], device=source.device)
        bias = self.encoder.bias((at[:, None] - at)[None, None])  # (1, H, S, S)
        kept = counted(lengths, source.shape[1])
        bias = bias if kept is None else bias.masked_fill(~kept, -torch.inf)
        see = partial(attend_all, mask=bias, scale=1.0, dropout=self._dropped)
        x = self.encoder.dropout(self.encoder.embed_tokens(source))
        for block in self.encoder.block:
            x = block(x, see)
        return self.encoder.dropout(self.encoder.final_layer_norm(x))

    def encode(self, source: Tensor, lengths: Tensor | None = None, room: int = 64) -> CrossCache:
        memory, c = self.read(source, lengths), self.config
        shape = (len(source), c.num_heads, max(1, room), c.d_kv)
        cache = CrossCache(c.num_decoder_layers, shape, memory.dtype, memory.device)
        cache.memory = [block.layer[1].EncDecAttention.remember(memory) for block in self.decoder.block]
        cache.memory_mask = counted(lengths, source.shape[1])
        return cache

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        """As `Causal.hidden`; the cache is `encode`'s."""
        assert isinstance(cache, CrossCache)
        reading = Reading(ids, cache, self.decoder.bias, scale=1.0, dropout=self._dropped)
        reading.mask(None)  # once for all layers, and here: in training a layer may be computed twice
        look = partial(attend_all, mask=cache.memory_mask, scale=1.0, dropout=self._dropped)
        x = self.decoder.dropout(self.decoder.embed_tokens(ids))  # (B, T, D)
        for i, block in enumerate(self.decoder.block):
            x = block(x, partial(attend, reading=reading, layer=i), look, cache.memory[i])
        reading.done(lengths)
        return self.decoder.dropout(self.decoder.final_layer_norm(x))

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else hidden)
