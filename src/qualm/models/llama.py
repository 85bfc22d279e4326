"""Llama and the families of its shape: Mistral, Qwen2, Qwen3.

Touvron et al. 2023 (arXiv 2302.13971), Dubey et al. 2024 (2407.21783); Mistral: Jiang et al. 2023 (2310.06825);
Qwen2: Yang et al. 2024 (2407.10671); Qwen3: Yang et al. 2025 (2505.09388). Parameter names are Hugging Face's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from qualm.errors import InputError
from qualm.models.base import LARGEST, Config, Decoder
from qualm.models.layers import Cache, Embedding, Linear, Reading, RMSNorm, attend, rotary, rotary_frequencies, rotate

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096, "head_dim": 128},
}  # what a key left out of a config.json means there
ROPE_KEYS = {
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}


@dataclass(frozen=True)
class LlamaConfig(Config):
    """The keys of config.json. `model_type` decides biases (Qwen2: q, k, v) and the norms of q and k (Qwen3)."""

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
    rope_scaling: Mapping[str, Any] | None = None  # {"rope_type": "linear" | "llama3", "factor": ..., ...}
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None  # tokens a layer looks back, itself included
    use_sliding_window: bool = False  # Qwen: whether layers from max_window_layers on use it
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = None  # "full_attention" or "sliding_attention" for each layer
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="llama", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset(ARCHITECTURES)
    harmless: ClassVar[frozenset[str]] = frozenset({"attention_dropout", "is_llama_config"})
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",),
        "pretraining_tp": (1,),
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
        if self.rope_theta <= 0:
            raise self.refuse(f"rope_theta = {self.rope_theta} is not positive")
        self._check_layers()

    def _check_layers(self) -> None:
        if self.layer_types is None:
            return
        if len(self.layer_types) != self.num_hidden_layers:
            raise self.refuse(f"layer_types names {len(self.layer_types)} layers of {self.num_hidden_layers}")
        for kind in self.layer_types:
            if kind not in ("full_attention", "sliding_attention"):
                raise self.refuse(f"layer_types: {kind!r} is not implemented")

    @property
    def architecture(self) -> str:
        return ARCHITECTURES[self.model_type]

    @property
    def layers(self) -> int:
        return self.num_hidden_layers

    @property
    def parameters(self) -> int:
        width, inner, bias = self.hidden_size, self.head_dim * self.num_attention_heads, self.attention_bias
        shared = 2 * self.head_dim * self.num_key_value_heads
        layer = width * (2 * inner + shared) + 3 * width * self.intermediate_size + 2 * width
        layer += (inner + shared) * (bias or self.model_type == "qwen2") + width * bias
        layer += (2 * self.intermediate_size + width) * self.mlp_bias + 2 * self.head_dim * (self.model_type == "qwen3")
        return self.layers * layer + width + self.vocab_size * width * (2 - self.tie_word_embeddings)

    def flops(self, length: int, source: int = 0) -> int:
        inner, shared = self.head_dim * self.num_attention_heads, 2 * self.head_dim * self.num_key_value_heads
        layer = self.hidden_size * (2 * inner + shared + 3 * self.intermediate_size) + 2 * length * inner
        return 2 * length * (self.layers * layer + self.hidden_size * self.vocab_size)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """`depth` layers of 32 channels a layer, heads of 32 channels, feed-forward of 4 widths.

        Weights start at 1 / sqrt(width), which small models learn from much faster than from GPT-2's 0.02. Rotary
        positions reach twice the trained length.
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
        values = {**DEFAULTS.get(kind, {}), **{k: v for k, v in raw.items() if k != "rope_parameters"}}
        if kind in ("qwen2", "qwen3") and not values.get("use_sliding_window"):
            values["sliding_window"] = None
        for key in ("num_key_value_heads", "head_dim"):
            if values.get(key, 0) is None:
                del values[key]
        theta, values["rope_scaling"] = _rope(raw, where)
        if theta is not None:
            values["rope_theta"] = theta
        return super().from_hf(values, where)

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        kept = super().to_hf(dtype)
        kind = self.model_type
        for keys, kinds in (
            (("attention_bias",), ("llama", "qwen3")),
            (("mlp_bias",), ("llama",)),
            (("use_sliding_window", "max_window_layers", "layer_types"), ("qwen2", "qwen3")),
            (("sliding_window",), ("mistral", "qwen2", "qwen3")),
        ):
            kept = {k: v for k, v in kept.items() if k not in keys or kind in kinds}
        if self.layer_types is None:
            kept.pop("layer_types", None)
        scaling = dict(self.rope_scaling) if self.rope_scaling else {"rope_type": "default"}
        return {**kept, "hidden_act": "silu", "rope_parameters": {"rope_theta": self.rope_theta, **scaling}}

    def maths(self) -> dict[str, Any]:
        said = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
        kept = {k: v for k, v in super().maths().items() if k not in said}
        return {**kept, "windows": [self.window(i) for i in range(self.layers)]}

    def window(self, layer: int) -> int | None:
        """How many tokens a layer sees, itself included; None for all before it."""
        if self.layer_types is not None:
            return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None
        if self.model_type in ("qwen2", "qwen3"):
            return self.sliding_window if self.use_sliding_window and layer >= self.max_window_layers else None
        return self.sliding_window if self.model_type == "mistral" else None


def _rope(raw: Mapping[str, Any], where: str) -> tuple[float | None, dict[str, Any] | None]:
    """Base and scaling from `rope_theta`, `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5)."""
    given = [raw.get(key) or {} for key in ("rope_scaling", "rope_parameters")]
    if not all(isinstance(value, Mapping) for value in given):
        raise InputError("rope_scaling or rope_parameters is not an object", where=where, then="mend the file")
    found = {**given[0], **given[1]}
    theta = found.pop("rope_theta", raw.get("rope_theta"))
    kind = str(found.pop("rope_type", found.get("type", "default")))
    found.pop("type", None)
    if found.pop("partial_rotary_factor", 1.0) != 1.0:
        raise InputError("partial_rotary_factor is not implemented", where=where, then="use a checkpoint without it")
    if kind == "default":
        return theta, None
    if kind not in ROPE_KEYS:
        raise InputError(
            f"rope_type {kind!r} is not implemented (only default, {', '.join(ROPE_KEYS)})",
            where=where,
            then="use a checkpoint without it",
        )
    odd = ROPE_KEYS[kind] ^ set(found)
    numbers = [v for v in found.values() if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]
    flat = kind == "llama3" and not odd and found["high_freq_factor"] == found["low_freq_factor"]
    if odd or flat or len(numbers) < len(found):
        raise InputError(
            f"rope_type {kind!r} takes positive numbers for {', '.join(sorted(ROPE_KEYS[kind]))}, not {found!r}",
            where=where,
            then="mend the file",
        )
    return theta, {"rope_type": kind, **{key: float(value) for key, value in found.items()}}


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        width, dim = config.hidden_size, config.head_dim
        bias = config.attention_bias and config.model_type in ("llama", "qwen3")
        inner = bias or config.model_type == "qwen2"
        self.layer, self.window, self.dim = layer, config.window(layer), dim
        self.q_proj = Linear(width, config.num_attention_heads * dim, bias=inner)
        self.k_proj = Linear(width, config.num_key_value_heads * dim, bias=inner)
        self.v_proj = Linear(width, config.num_key_value_heads * dim, bias=inner)
        self.o_proj = Linear(config.num_attention_heads * dim, width, bias=bias)
        normed = config.model_type == "qwen3"
        self.q_norm = RMSNorm(dim, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = RMSNorm(dim, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], reading: Reading) -> Tensor:
        q = self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.dim))).transpose(1, 2)  # (B, H, T, Dh)
        k = self.k_norm(self.k_proj(x).unflatten(-1, (-1, self.dim))).transpose(1, 2)  # (B, Hkv, T, Dh)
        v = self.v_proj(x).unflatten(-1, (-1, self.dim)).transpose(1, 2)
        out = attend(rotate(q, *turn), rotate(k, *turn), v, reading, self.layer, self.window)
        return self.o_proj(out)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        bias = config.mlp_bias and config.model_type == "llama"
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


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


class Body(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(Decoder):
    """`Llama(config)` has the weights of seed 0. Ids beyond the vocabulary are the caller's error."""

    config_class = LlamaConfig
    tied: ClassVar[Mapping[str, str]] = {"lm_head": "model.embed_tokens"}
    residual: ClassVar[tuple[str, ...]] = ("o_proj.weight", "down_proj.weight")

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()
        self.frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self.init_weights()

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        return None if name.endswith("rotary_emb.inv_freq") else name

    @property
    def last(self) -> RMSNorm:
        return self.model.norm

    def hidden(self, ids: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        reading = Reading(ids, cache)
        x = self.model.embed_tokens(ids)  # (B, T, D)
        turn = rotary(reading.positions, self.frequencies, x.dtype)
        for layer in self.model.layers:
            x = layer(x, turn, reading)
        reading.done(lengths)
        return self.model.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)
