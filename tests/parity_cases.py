"""The variants of every family that transformers also has, tiny. A new one is a row here."""

from collections.abc import Mapping
from typing import Any

from parity_checks import Variant

VOCAB = 97
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DECODER = "AutoModelForCausalLM"

LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    **ENDS,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0}
GPT = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, **ENDS}


def llama(name: str, kind: str = "Llama", **options: Any) -> Variant:
    return Variant("llama", name, f"{kind}Config", DECODER, {**LLAMA, **options})


def gpt(name: str, **options: Any) -> Variant:
    return Variant("gpt", name, "GPT2Config", DECODER, {**GPT, **options})


VARIANTS: tuple[Variant, ...] = (
    llama("Llama 2", num_key_value_heads=6),
    llama("Llama 3", rope_parameters=LLAMA3),
    llama("rope linear", rope_parameters=LINEAR),
    llama("tied", tie_word_embeddings=True, head_dim=16, rms_norm_eps=1e-3),
    llama("biases", attention_bias=True, mlp_bias=True),
    llama("Mistral", "Mistral", sliding_window=5, head_dim=8),
    llama("Mistral, no window", "Mistral", sliding_window=None),
    llama("Qwen2", "Qwen2", tie_word_embeddings=True),
    llama("Qwen2, window", "Qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    llama("Qwen3", "Qwen3", head_dim=16),
    llama("Qwen3, window", "Qwen3", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    gpt("GPT-2"),
    gpt("untied, narrow", n_inner=40, layer_norm_epsilon=1e-3, tie_word_embeddings=False),
)
BY_NAME: Mapping[str, Variant] = {str(variant): variant for variant in VARIANTS}
