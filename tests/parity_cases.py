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
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16}
BLENT = {**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3}
GPT = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, **ENDS}


BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DISTIL = {"dim": 48, "hidden_dim": 80, "n_layers": 3, "n_heads": 4}
HEADS = {
    "none": "AutoModel",
    "masked": "AutoModelForMaskedLM",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "question": "AutoModelForQuestionAnswering",
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "d_kv": 8,
    "d_ff": 80,
    "num_layers": 3,
    "num_heads": 6,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
SHARP = {
    ".q.weight": 0.05,
    ".wo.weight": 0.1,
    "relative_attention_bias.weight": 1.0,
}  # T5 does not divide by sqrt(d_kv)
SCALED = {**SHARP, "shared.weight": 3.0}  # the head divides by sqrt(d_model)
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MARIAN = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 96,
    "decoder_start_token_id": 96,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "activation_function": "swish",
    "scale_embedding": True,
}

CACHED = frozenset({"token by token"})  # what is cached was turned by other angles than it would be now


def llama(name: str, kind: str = "Llama", without: frozenset[str] = frozenset(), **options: Any) -> Variant:
    spread = {"q_proj.weight": 0.1}
    return Variant("llama", name, f"{kind}Config", DECODER, {**LLAMA, **options}, spread, without=without)


def gpt(name: str, **options: Any) -> Variant:
    return Variant("gpt", name, "GPT2Config", DECODER, {**GPT, **options})


def bert(name: str, kind: str, head: str, **options: Any) -> Variant:
    labels = {"num_labels": 5} if head in ("sequence", "token") else {}
    return Variant("bert", f"{name}, {head}", f"{kind}Config", HEADS[head], {**BERT, **labels, **options})


def t5(
    name: str, kind: str = "T5", spread: Mapping[str, float] = SHARP, untied: bool = False, **options: Any
) -> Variant:
    return Variant("t5", name, f"{kind}Config", "AutoModelForSeq2SeqLM", {**T5, **options}, spread, untied)


def marian(name: str, **options: Any) -> Variant:
    return Variant("marian", name, "MarianConfig", "AutoModelForSeq2SeqLM", {**MARIAN, **options})


VARIANTS: tuple[Variant, ...] = (
    llama("Llama 2", num_key_value_heads=6),
    llama("Llama 3", rope_parameters=LLAMA3),
    llama("rope linear", rope_parameters=LINEAR),
    llama("rope dynamic", rope_parameters=DYNAMIC),
    llama("rope dynamic, beyond", without=CACHED, rope_parameters=DYNAMIC, max_position_embeddings=16),
    llama("rope yarn", rope_parameters=YARN),
    llama("rope yarn, all keys", rope_parameters=BLENT),
    llama("tied", tie_word_embeddings=True, head_dim=16, rms_norm_eps=1e-3),
    llama("biases", attention_bias=True, mlp_bias=True),
    llama("Mistral", "Mistral", sliding_window=5, head_dim=8),
    llama("Mistral, no window", "Mistral", sliding_window=None),
    llama("Qwen2", "Qwen2", tie_word_embeddings=True),
    llama("Qwen2, window", "Qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    llama("Qwen3", "Qwen3", head_dim=16),
    llama("Qwen3, window", "Qwen3", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    llama("SmolLM3", "SmolLM3", no_rope_layers=[1, 1, 0]),
    llama("SmolLM3, every second", "SmolLM3", no_rope_layer_interval=2, attention_bias=True),
    llama("SmolLM3, window", "SmolLM3", no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=4),
    llama("OLMo-2", "Olmo2"),
    llama("OLMo-2, biases", "Olmo2", attention_bias=True, num_key_value_heads=6, rms_norm_eps=1e-3),
    gpt("GPT-2"),
    gpt("exact GELU", activation_function="gelu"),
    gpt("tanh by another name", activation_function="gelu_pytorch_tanh"),
    gpt("untied, narrow", n_inner=40, layer_norm_epsilon=1e-3, tie_word_embeddings=False),
    *(bert("BERT", "Bert", head) for head in HEADS),
    *(bert("RoBERTa", "Roberta", head, pad_token_id=1, type_vocab_size=1) for head in HEADS),
    *(bert("DistilBERT", "DistilBert", head, **DISTIL) for head in HEADS),
    bert("MiniLM shape", "Bert", "none", num_attention_heads=12, intermediate_size=192),
    bert("BERT three segments", "Bert", "masked", type_vocab_size=3, layer_norm_eps=1e-3),
    bert("BERT one label", "Bert", "sequence", num_labels=1),
    bert("DistilBERT sines", "DistilBert", "masked", **DISTIL, sinusoidal_pos_embds=True),
    t5("v1.0", spread=SCALED),
    t5("v1.0, few buckets", spread=SCALED, relative_attention_num_buckets=8, relative_attention_max_distance=12),
    t5("v1.1 and Flan", untied=True, **GATED),
    t5("v1.1, tied", **GATED),
    t5("mT5", "MT5", untied=True, **GATED),
    t5("UL2", untied=True, feed_forward_proj="gated-silu", tie_word_embeddings=False),
    t5("byT5 shape", untied=True, **GATED, num_decoder_layers=1, d_ff=60, d_kv=12, num_heads=3),
    marian("Opus-MT"),
    marian("relu, unscaled", activation_function="relu", scale_embedding=False),
    marian("gelu, apart", activation_function="gelu", share_encoder_decoder_embeddings=False, decoder_vocab_size=VOCAB),
    marian("uneven", decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=60),
)
BY_NAME: Mapping[str, Variant] = {str(variant): variant for variant in VARIANTS}
assert len(BY_NAME) == len(VARIANTS), "two variants have one name"
