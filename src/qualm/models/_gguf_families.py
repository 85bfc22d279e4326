"""What llama.cpp's names in a GGUF file mean here: the config and the weights of the families it can hold."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.models._gguf import GgufFile
from qualm.models._rope import frequencies
from qualm.models.base import Config
from qualm.models.gpt import GptConfig
from qualm.models.llama import LlamaConfig

LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GPT_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "ffn_norm": "ln_2",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
LLAMA_KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "attention.sliding_window": "sliding_window",
}
GPT_KEYS = {
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "context_length": "n_positions",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
CHECKED = {  # keys that are looked at below, or say nothing about the logits
    "vocab_size",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "attention.value_length",
    "attention.causal",
    "expert_count",
    "expert_used_count",
    "tensor_data_layout",
}
OTHER = "use the checkpoint that the file was made from, or another model"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def read_gguf(path: Path | str) -> tuple[Config, dict[str, Tensor], dict[str, Any]]:
    """Config, float32 weights under Hugging Face's names, and the file's metadata (tokenizer.ggml.* included).

    Reads llama (Llama, Mistral), qwen2, qwen3 and gpt2. Raises InputError if the file is cut off, damaged or of
    another architecture.
    """
    file = GgufFile(Path(path))
    arch = file.metadata.get("general.architecture")
    if arch not in ("llama", "qwen2", "qwen3", "gpt2"):
        raise InputError(
            f"architecture {arch!r} is not known", where=str(path), then="known are: gpt2, llama, qwen2, qwen3"
        )
    if "token_embd.weight" not in file.entries:
        raise InputError("tensor 'token_embd.weight' is missing", where=str(path), then=OTHER)
    own = {k.removeprefix(f"{arch}."): v for k, v in file.metadata.items() if k.startswith(f"{arch}.")}
    odd = sorted(set(own) - CHECKED - set(GPT_KEYS if arch == "gpt2" else LLAMA_KEYS))
    if odd:
        raise InputError(f"key {arch}.{odd[0]} is not known, and could change the answers", where=str(path), then=OTHER)
    if own.get("expert_count"):
        raise InputError("mixtures of experts are not implemented", where=str(path), then=OTHER)
    if arch == "gpt2":
        return _gpt_config(file, own), _gpt_weights(file), file.metadata
    config = _llama_config(file, own, str(arch))
    return config, _llama_weights(file, config), file.metadata


def _common(file: GgufFile, own: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    raw = {name: own[key] for key, name in keys.items() if key in own}
    for word, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        raw[f"{word}_token_id"] = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
    raw["vocab_size"] = file.entries["token_embd.weight"].shape[0]
    raw["tie_word_embeddings"] = "output.weight" not in file.entries
    return raw


def _gpt_config(file: GgufFile, own: Mapping[str, Any]) -> GptConfig:
    return GptConfig.from_hf({"model_type": "gpt2", **_common(file, own, GPT_KEYS)}, file.cursor.where)


def _llama_config(file: GgufFile, own: Mapping[str, Any], arch: str) -> LlamaConfig:
    raw = {"num_key_value_heads": own.get("attention.head_count"), **_common(file, own, LLAMA_KEYS)}
    raw["model_type"] = "mistral" if arch == "llama" and raw.get("sliding_window") else arch
    raw["attention_bias"] = arch != "qwen2" and "blk.0.attn_output.bias" in file.entries
    raw["mlp_bias"] = "blk.0.ffn_down.bias" in file.entries
    if arch != "llama" and raw.get("sliding_window"):
        raise InputError(f"key {arch}.attention.sliding_window is not implemented", where=file.cursor.where, then=OTHER)
    raw["rope_scaling"] = _scaling(file, own)
    config = LlamaConfig.from_hf(raw, file.cursor.where)
    turned = own.get("rope.dimension_count", config.head_dim)
    if turned != config.head_dim or own.get("attention.value_length", config.head_dim) != config.head_dim:
        raise InputError(
            f"heads of {config.head_dim} channels of which {turned} turn are not implemented",
            where=file.cursor.where,
            then=OTHER,
        )
    return LlamaConfig.from_hf({**raw, "rope_scaling": _llama3(file, config)}, file.cursor.where)


def _scaling(file: GgufFile, own: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = own.get("rope.scaling.type", "none")
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0))
    if kind not in ("none", "linear"):
        raise InputError(f"rope.scaling.type {kind!r} is not implemented", where=file.cursor.where, then=OTHER)
    if factor in (0, 1) or (kind == "none" and "rope.scaling.type" in own):
        return None
    return {"rope_type": "linear", "factor": factor}


def _llama3(file: GgufFile, config: LlamaConfig) -> Mapping[str, Any] | None:
    """Llama 3's scaling is stored as divisors of the frequencies: find the settings that give them back."""
    if "rope_freqs.weight" not in file.entries:
        return config.rope_scaling
    stored = file.tensor("rope_freqs.weight")
    plain = frequencies(config.head_dim, config.rope_theta, None)
    scaling = {"rope_type": "llama3", "factor": float(stored.max()), **LLAMA3}
    if stored.shape == plain.shape:
        for option in (None, scaling):
            scaled = frequencies(config.head_dim, config.rope_theta, option)
            if torch.allclose(plain / scaled, stored, rtol=1e-4):
                return option
    raise InputError("rope_freqs.weight holds a scaling that is not implemented", where=file.cursor.where, then=OTHER)


def _rename(name: str, names: Mapping[str, str], layers: str) -> str:
    """llama.cpp's name as Hugging Face's; a name that is not known stays, and is refused with the weights."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in names:
        return name
    return f"{f'{layers}.{match[1]}.' if match[1] else ''}{names[match[2]]}.{match[3]}"


def _llama_weights(file: GgufFile, config: LlamaConfig) -> dict[str, Tensor]:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights: dict[str, Tensor] = {}
    for name in file.entries:
        if name == "rope_freqs.weight":
            continue
        tensor = file.tensor(name)
        part = name.split(".")[-2]
        if part in heads and config.model_type in ("llama", "mistral") and tensor.shape[0] % (2 * heads[part]) == 0:
            tensor = _unpaired(tensor, heads[part])
        weights[_rename(name, LLAMA_NAMES, "model.layers")] = tensor
    return weights


def _unpaired(tensor: Tensor, heads: int) -> Tensor:
    """llama.cpp turns channel 2i against 2i + 1, Hugging Face i against i + Dh/2: put the rows (H * Dh) back."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _gpt_weights(file: GgufFile) -> dict[str, Tensor]:
    weights = {_rename(name, GPT_NAMES, "transformer.h"): file.tensor(name) for name in file.entries}
    turned = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    return {name: t.T.contiguous() if name.endswith(turned) else t for name, t in weights.items()}
