"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"). Names are Hugging Face's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from qualm.models._caches import Cache
from qualm.models._dropout import Dropout
from qualm.models.base import Config, Decoder
from qualm.models.layers import Conv1D, Embedding, Linear, Reading, attend

DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
ACTIVATIONS = {  # GELU, by tanh or as it is defined (Hendrycks and Gimpel 2016, arXiv 1606.08415)
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu": "none",
}


@dataclass(frozen=True)
class GptConfig(Config):
    """The keys of config.json; `vocab_size` to `n_head` decide the shapes."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int = 1024
    n_inner: int = 0  # 0: 4 * n_embd
    activation_function: str = "gelu_new"  # one of ACTIVATIONS
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    attn_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    tie_word_embeddings: bool = field(default=True, kw_only=True)
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    model_type: str = field(default="gpt2", kw_only=True)

    model_types: ClassVar[frozenset[str]] = frozenset({"gpt2"})
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"n_ctx", "reorder_and_upcast_attn"}
        | {f"summary_{part}" for part in ("activation", "first_dropout", "proj_to_labels", "type", "use_proj")}
    )
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "activation_function": tuple(ACTIVATIONS),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }

    def __post_init__(self) -> None:
        self.check_sizes("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")
        if self.n_embd % self.n_head:
            raise self.refuse(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        object.__setattr__(self, "n_inner", self.n_inner or 4 * self.n_embd)
        self.check_sizes("n_inner")
        if self.activation_function not in ACTIVATIONS:
            raise self.refuse(f"activation_function {self.activation_function!r} is none of {', '.join(ACTIVATIONS)}")
        self.check_shares(*DROPOUTS)

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Self:
        values = {"bos_token_id": 50256, "eos_token_id": 50256, **dict.fromkeys(DROPOUTS, 0.1), **raw}
        if values.get("n_inner", 0) is None:
            del values["n_inner"]
        return super().from_hf(values, where)

    @property
    def architecture(self) -> str:
        return "GPT2LMHeadModel"

    @property
    def layers(self) -> int:
        return self.n_layer

    @property
    def parameters(self) -> int:
        width, inner = self.n_embd, self.n_inner
        layer = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
        tables = self.vocab_size * (2 - self.tie_word_embeddings) + self.n_positions
        return self.layers * layer + 2 * width + tables * width

    def flops(self, length: int, source: int = 0) -> int:
        layer = 4 * self.n_embd**2 + 2 * self.n_embd * self.n_inner + 2 * length * self.n_embd
        return 2 * length * (self.layers * layer + self.n_embd * self.vocab_size)

    @classmethod
    def sized(cls, depth: int, vocab: int, length: int, **ids: Any) -> Self:
        """`depth` layers of 32 channels a layer, heads of 32 channels; learned positions reach the trained length.

        Weights start at 1 / sqrt(width), which small models learn from much faster than from GPT-2's 0.02.
        """
        width = 32 * depth
        return cls(
            vocab_size=vocab,
            n_embd=width,
            n_layer=depth,
            n_head=depth,
            n_positions=length,
            initializer_range=width**-0.5,
            **ids,
        )

    @property
    def hidden_size(self) -> int:
        return self.n_embd

    @property
    def num_hidden_layers(self) -> int:
        return self.n_layer

    @property
    def num_attention_heads(self) -> int:
        return self.n_head

    @property
    def num_key_value_heads(self) -> int:
        return self.n_head

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def max_position_embeddings(self) -> int:
        return self.n_positions


class Attention(nn.Module):
    def __init__(self, config: GptConfig, layer: int):
        super().__init__()
        self.layer, self.heads, self.dropout = layer, config.n_head, Dropout(config.resid_pdrop)
        self.c_attn = Conv1D(config.n_embd, 3 * config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, reading: Reading) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        return self.dropout(self.c_proj(attend(q, k, v, reading, self.layer)))


class MLP(nn.Module):
    def __init__(self, config: GptConfig):
        super().__init__()
        self.c_fc = Conv1D(config.n_embd, config.n_inner)
        self.c_proj = Conv1D(config.n_inner, config.n_embd)
        self.gelu = nn.GELU(ACTIVATIONS[config.activation_function])
        self.dropout = Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Layer(nn.Module):
    def __init__(self, config: GptConfig, layer: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, reading: Reading) -> Tensor:
        x = x + self.attn(self.ln_1(x), reading)
        return x + self.mlp(self.ln_2(x))


class Body(nn.Module):
    def __init__(self, config: GptConfig):
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Layer(config, i) for i in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)


class Gpt(Decoder):
    """`Gpt(config)` has the weights of seed 0. Ids and positions beyond the tables are the caller's error."""

    config_class = GptConfig
    tied: ClassVar[Mapping[str, str]] = {"lm_head": "transformer.wte"}
    linear_head: ClassVar[str] = "lm_head"
    keeps_apart: ClassVar[bool] = True
    residual: ClassVar[tuple[str, ...]] = ("c_proj.weight",)

    def __init__(self, config: GptConfig):
        super().__init__()
        self.config = config
        self.transformer = Body(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie()
        self.init_weights()

    @classmethod
    def rename(cls, name: str, config: Any) -> str | None:
        """The first GPT-2 files hold the causal mask as tensors, and lack the prefix."""
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            return None
        return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"

    @property
    def last(self) -> nn.LayerNorm:
        return self.transformer.ln_f

    def hidden(
        self,
        ids: Tensor,
        cache: Cache | None = None,
        lengths: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        dropout = self.config.attn_pdrop if self.training else 0.0
        reading = Reading(ids, cache, dropout=dropout, documents=documents)
        x = self.transformer.drop(self.transformer.wte(ids) + self.transformer.wpe(reading.positions))  # (B, T, D)
        for layer in self.transformer.h:
            x = layer(x, reading)
        reading.done(lengths)
        return self.transformer.ln_f(x)

    def head(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)
