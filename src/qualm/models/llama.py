"""Llama and the families of its shape: Mistral, Qwen2, Qwen3, SmolLM3, OLMo-2. `KINDS` says what each changes.

Touvron et al. 2023 (arXiv 2302.13971 and 2307.09288), Dubey et al. 2024 (2407.21783); Mistral: Jiang et al. 2023
(2310.06825); Qwen2: Yang et al. 2024 (2407.10671); Qwen3: Yang et al. 2025 (2505.09388); OLMo-2: Walsh et al. 2025
(2501.00656); SmolLM3: Bakouch et al. 2025 (huggingface.co/blog/smollm3), whose layers without positions are after
Yang et al. 2025 (2501.18795). Parameter names are Hugging Face's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._caches import Cache
from qualm.models._rope import Rotary, read_rope, rotate
from qualm.models.base import LARGEST, Config, Decoder
from qualm.models.layers import Embedding, Linear, Reading, RMSNorm, attend, together

WINDOWED = frozenset({"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"})


@dataclass(frozen=True)
class Kind:
    """What a model_type changes of Llama."""

    architecture: str
    keys: frozenset[str]  # of OPTIONAL, those its config.json has
    defaults: Mapping[str, Any]  # what a key left out of its config.json means
    qkv_bias: bool = False  # q, k and v have biases whatever attention_bias says
    qk_norm: Literal["none", "heads", "whole"] = "none"  # q and k are normed, each head by itself or all at once
    norm_after: bool = False  # attention and feed-forward are normed behind, not before


OPTIONAL = WINDOWED | {"attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval"}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
LONG = {"max_position_embeddings": 32768}
KINDS: Mapping[str, Kind] = {
    "llama": Kind(
        "LlamaForCausalLM",
        frozenset({"attention_bias", "mlp_bias"}),
        {"max_position_embeddings": 2048, **ENDS},
    ),
    "mistral": Kind(
        "MistralForCausalLM",
        frozenset({"sliding_window"}),
        {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096, **ENDS},
    ),
    "qwen2": Kind(
        "Qwen2ForCausalLM",
        WINDOWED,
        {"num_key_value_heads": 32, "sliding_window": 4096, **LONG},
        qkv_bias=True,
    ),
    "qwen3": Kind(
        "Qwen3ForCausalLM",
        WINDOWED | {"attention_bias"},
        {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128, **LONG},
        qk_norm="heads",
    ),
    "smollm3": Kind(
        "SmolLM3ForCausalLM",
        OPTIONAL,
        {
            "num_key_value_heads": 4,
            "rope_theta": 2e6,
            "tie_word_embeddings": True,
            "bos_token_id": 128000,
            "eos_token_id": 128001,
            "pad_token_id": 128004,
            **LONG,
        },
    ),
    "olmo2": Kind(
        "Olmo2ForCausalLM",
        frozenset({"attention_bias"}),
        {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "eos_token_id": 50279, "pad_token_id": 1},
        qk_norm="whole",
        norm_after=True,
    ),
}


@dataclass(frozen=True)
class LlamaConfig(Config):
    """The keys of config.json. `model_type` names the kind; keys that its kind does not have keep their defaults."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 0  # 0: as many as num_attention_heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None  # {"rope_type": one of _rope.SCALINGS, "factor": ..., ...}
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None  # tokens a layer looks back, itself included
    use_sliding_window: bool = False  # Qwen: whether layers from max_window_layers on use it
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = None  # "full_attention" or "sliding_attention" for each layer
    no_rope_layers: tuple[int, ...] | None = None  # SmolLM3: 0 for each layer that knows no positions, 1 for others
    no_rope_layer_interval: int = 4  # if no_rope_layers is None: each so-manieth layer
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="llama", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset(KINDS)
    harmless: ClassVar[frozenset[str]] = frozenset({"is_llama_config", "pretraining_tp"})  # the second only rounds
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",),
        "partial_rotary_factor": (1, None),
        "rope_interleaved": (False,),
    }

    def __post_init__(self) -> None:
        if self.model_type not in self.model_types:
            raise self.refuse(f"model_type {self.model_type!r} is none of {', '.join(sorted(self.model_types))}")
        self.check_sizes("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        heads = self.num_attention_heads
        if self.head_dim == 0 and self.hidden_size % heads:
            raise self.refuse(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {heads}")
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // heads)
        if self.num_key_value_heads < 1 or heads % self.num_key_value_heads:
            raise self.refuse(f"num_key_value_heads {self.num_key_value_heads} does not divide {heads} heads")
        if self.head_dim < 2 or self.head_dim % 2 or self.head_dim * heads > LARGEST:
            raise self.refuse(f"head_dim {self.head_dim} is not a positive even number of a possible size")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise self.refuse(f"sliding_window = {self.sliding_window} is not positive")
        if self.rope_theta <= 1:
            raise self.refuse(f"rope_theta = {self.rope_theta} is not above 1")
        self.check_shares("attention_dropout")
        for option in fields(self):
            foreign = option.name in OPTIONAL - self.kind.keys
            if foreign and getattr(self, option.name) != option.default:
                raise self.refuse(
                    f"{option.name} = {getattr(self, option.name)!r} means nothing in a {self.model_type}"
                )
        self._check_layers()

    def _check_layers(self) -> None:
        if "no_rope_layers" in self.kind.keys and self.no_rope_layers is None:
            self.check_sizes("no_rope_layer_interval")
            turned = tuple(int((i + 1) % self.no_rope_layer_interval != 0) for i in range(self.layers))
            object.__setattr__(self, "no_rope_layers", turned)
        if self.no_rope_layers is not None and len(self.no_rope_layers) < self.layers:
            raise self.refuse(f"no_rope_layers names {len(self.no_rope_layers)} layers of {self.layers}")
        if self.layer_types is not None and len(self.layer_types) != self.layers:
            raise self.refuse(f"layer_types names {len(self.layer_types)} layers of {self.layers}")
        for kind in self.layer_types or ():
            if kind not in ("full_attention", "sliding_attention"):
                raise self.refuse(f"layer_types: {kind!r} is not implemented")

    @property
    def kind(self) -> Kind:
        return KINDS[self.model_type]

    @property
    def architecture(self) -> str:
        return self.kind.architecture

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def parameters(self) -> int:
        width, inner = self.hidden_size, self.head_dim * self.num_attention_heads
        shared, bias = self.head_dim * self.num_key_value_heads, self.attention_bias
        layer = width * (2 * inner + 2 * shared) + 3 * width * self.intermediate_size + 2 * width
        layer += (inner + 2 * shared) * (bias or self.kind.qkv_bias) + width * bias
        layer += (2 * self.intermediate_size + width) * self.mlp_bias
        layer += {"none": 0, "heads": 2 * self.head_dim, "whole": inner + shared}[self.kind.qk_norm]
        return self.layers * layer + width + self.vocab_size * width * (2 - self.tie_word_embeddings)

    def flops(self, length: int, source: int = 0) -> int:
        inner, shared = self.head_dim * self.num_attention_heads, 2 * self.head_dim * self.num_key_value_heads
        layer = self.hidden_size * (2 * inner + shared + 3 * self.intermediate_size) + 2 * length * inner
        return 2 * length * (self.layers * layer + self.hidden_size * self.vocab_size)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """`depth` layers of 32 channels a layer, heads of 32 channels, feed-forward of 4 widths.

        Weights start at 1 / sqrt(width), as SmolLM2's do, which small models learn from much faster than from GPT-2's
        0.02. Rotary positions reach twice the trained length.
        """
        width = 32 * depth
        return cls(
            vocab_size=vocab,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=depth,
            max_position_embeddings=2 * length,
            tie_word_embeddings=True,
            initializer_range=width**-0.5,
            **ids,
        )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Self:
        kind = raw.get("model_type", "llama")
        defaults = KINDS[kind].defaults if isinstance(kind, str) and kind in KINDS else {}
        values = {**defaults, **{k: v for k, v in raw.items() if k != "rope_parameters"}}
        if kind in ("qwen2", "qwen3") and not values.get("use_sliding_window"):
            values["sliding_window"] = None
        for key in ("num_key_value_heads", "head_dim"):
            if values.get(key, 0) is None:
                del values[key]
        theta, values["rope_scaling"] = read_rope(raw, where)
        if theta is not None:
            values["rope_theta"] = theta
        return super().from_hf(values, where)

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        left_out = OPTIONAL - self.kind.keys | {"rope_theta", "rope_scaling"}
        left_out |= {"layer_types"} if self.layer_types is None else set()
        kept = {k: v for k, v in super().to_hf(dtype).items() if k not in left_out}
        scaling = dict(self.rope_scaling) if self.rope_scaling else {"rope_type": "default"}
        return {**kept, "hidden_act": "silu", "rope_parameters": {"rope_theta": self.rope_theta, **scaling}}

    def maths(self) -> dict[str, Any]:
        """What windows and layers without positions come to, however it is said."""
        said = WINDOWED | {"no_rope_layers", "no_rope_layer_interval"}
        kept = {k: v for k, v in super().maths().items() if k not in said}
        kept["windows"] = [self.window(i) for i in range(self.layers)]
        unturned = [i for i in range(self.layers) if not self.turns(i)]
        return {**kept, "unturned": unturned} if unturned else kept

    def window(self, layer: int) -> int | None:
        """How many tokens a layer sees, itself included; None for all before it."""
        if self.layer_types is not None:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        if self.model_type in ("qwen2", "qwen3"):
            return self.sliding_window if self.use_sliding_window and layer >= self.max_window_layers else None
        if self.model_type == "smollm3":
            return self.sliding_window if self.use_sliding_window and not self.turns(layer) else None
        return self.sliding_window

    def turns(self, layer: int) -> bool:
        """Whether a layer turns its q and k by their positions."""
        return self.no_rope_layers is None or bool(self.no_rope_layers[layer])


class Attention(nn.Module):
    beside = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        width, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        inner, shared = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.layer, self.window, self.turns, self.dim = layer, config.window(layer), config.turns(layer), dim
        self.q_proj = Linear(width, inner, bias=bias or config.kind.qkv_bias)
        self.k_proj = Linear(width, shared, bias=bias or config.kind.qkv_bias)
        self.v_proj = Linear(width, shared, bias=bias or config.kind.qkv_bias)
        self.o_proj = Linear(inner, width, bias=bias)
        self.whole = config.kind.qk_norm == "whole"
        normed = config.kind.qk_norm != "none"
        self.q_norm = RMSNorm(inner if self.whole else dim, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = RMSNorm(shared if self.whole else dim, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], reading: Reading) -> Tensor:
        q, k, v = together(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = self._heads(q, self.q_norm), self._heads(k, self.k_norm), self._heads(v)  # (B, H or Hkv, T, Dh)
        if self.turns:
            q, k = rotate(q, *turn), rotate(k, *turn)
        return self.o_proj(attend(q, k, v, reading, self.layer, self.window))

    def _heads(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Channels (B, T, H * Dh) as heads (B, H, T, Dh), normed before they are parted or after."""
        x = norm(x) if norm and self.whole else x
        x = x.unflatten(-1, (-1, self.dim))
        return (norm(x) if norm and not self.whole else x).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    beside = ("gate_proj", "up_proj")

    def __init__(self, config: LlamaConfig):
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = together(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], reading: Reading) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, reading)
        return x + self.mlp(self.post_attention_layernorm(x))


class LayerNormedAfter(nn.Module):
    """OLMo-2's: what is added to the stream is normed, what is read from it is not."""

    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], reading: Reading) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, turn, reading))
        return x + self.post_feedforward_layernorm(self.mlp(x))


class Body(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        layer = LayerNormedAfter if config.kind.norm_after else Layer
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(Decoder):
    """`Llama(config)` has the weights of seed 0. Ids beyond the vocabulary are the caller's error."""

    config_class = LlamaConfig
    tied: ClassVar[Mapping[str, str]] = {"lm_head": "model.embed_tokens"}
    linear_head: ClassVar[str] = "lm_head"
    keeps_apart: ClassVar[bool] = True
    residual: ClassVar[tuple[str, ...]] = ("o_proj.weight", "down_proj.weight")

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()
        self.rotary = Rotary(config.head_dim, config.rope_theta, config.rope_scaling, config.max_position_embeddings)
        self.init_weights()

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        return None if name.endswith("rotary_emb.inv_freq") else name

    def init_weight(self, name: str, weight: Tensor, source: torch.Generator) -> None:
        """As GPT-2's, which Llama's papers do not gainsay; OLMo-2 draws all matrices alike (2501.00656)."""
        if self.config.kind.norm_after and weight.dim() > 1:
            weight.normal_(0.0, self.config.initializer_range, generator=source)
        else:
            super().init_weight(name, weight, source)

    @property
    def last(self) -> RMSNorm:
        return self.model.norm

    def hidden(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        lengths: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        dropout = self.config.attention_dropout if self.training else 0.0
        reading = Reading(ids, cache, dropout=dropout, documents=documents)
        x = self.model.embed_tokens(ids)  # (B, T, D)
        turn = self.rotary(reading.positions, x.dtype)
        for layer in self.model.layers:
            x = layer(x, turn, reading)
        reading.done(lengths)
        return self.model.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)
