"""GGUF files: every kind of quantisation is read as the gguf package reads it; names and rotations come back."""

import random
import re
import struct
import time
import zlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from qualm.errors import InputError
from qualm.models.store import build_model, load_model, read_gguf, save_model, weights_hash
from test_models import CONFIGS, ours, some_ids, theirs

KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows as llama.cpp's converter orders them: channel i of a head beside channel i + Dh/2."""
    rows = np.arange(len(weight)).reshape(heads, 2, -1)
    return weight[np.stack([rows[:, 0], rows[:, 1]], -1).reshape(-1)]


def write_gguf(path: Path, name: str, change: dict[str, object] | None = None) -> None:
    """A file of a tiny model in F32, as llama.cpp's converter writes it."""
    model = theirs(name)
    config, kind = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, "llama" if kind == "mistral" else kind)
    numbers = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "feed_forward_length": config.n_inner or 4 * 48 if kind == "gpt2" else config.intermediate_size,
    }
    if kind == "gpt2":
        numbers["attention.layer_norm_epsilon"] = config.layer_norm_epsilon
    else:
        numbers["attention.head_count_kv"] = config.num_key_value_heads
        numbers["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
        numbers["rope.freq_base"] = config.rope_parameters["rope_theta"]
        numbers["rope.dimension_count"] = model.model.layers[0].self_attn.head_dim
        numbers["attention.key_length"] = model.model.layers[0].self_attn.head_dim
    if kind == "mistral":
        numbers["attention.sliding_window"] = config.sliding_window
    for key, value in (numbers | (change or {})).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{writer.arch}.{key}", value)
    writer.add_token_list(["a", "b", "é"])
    writer.add_eos_token_id(2)
    for key, tensor in model.state_dict().items():
        if key != "lm_head.weight" or not config.tie_word_embeddings:
            writer.add_tensor(*as_converted(key, tensor, config))
    if kind == "llama" and config.rope_parameters["rope_type"] == "llama3":
        plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, 8, 2) / 8)
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_converted(key: str, tensor: torch.Tensor, config: object) -> tuple[str, np.ndarray]:
    match = re.fullmatch(r"(?:(?:model\.layers|transformer\.h)\.(\d+)\.)?(.+)\.(weight|bias)", key)
    assert match
    weight = tensor.numpy()
    if config.model_type == "gpt2" and match[2].split(".")[-1].startswith("c_"):
        weight = np.ascontiguousarray(weight.T) if weight.ndim == 2 else weight
    if config.model_type in ("llama", "mistral"):
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        weight = paired(weight, heads[match[2]]) if match[2] in heads else weight
    return f"{f'blk.{match[1]}.' if match[1] else ''}{NAMES[match[2]]}.{match[3]}", weight


@pytest.mark.parametrize(
    "name", ["llama", "llama tied", "llama biases", "mistral", "qwen2", "qwen3", "gpt2", "gpt2 inner"]
)
def test_a_model_comes_back_from_gguf(name, tmp_path):
    write_gguf(tmp_path / "a.gguf", name)
    model, ids = load_model(tmp_path / "a.gguf"), some_ids(2, 30)
    torch.testing.assert_close(model(ids), theirs(name)(ids).logits, atol=1e-4, rtol=0)
    save_model(model, tmp_path / "folder")
    assert weights_hash(load_model(tmp_path / "folder")) == weights_hash(model) == weights_hash(ours(name))


def test_llama3_scaling_is_found_in_its_divisors(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS["llama llama3"][1]["rope_parameters"], "original_max_position_embeddings", 8192)
    monkeypatch.setitem(CONFIGS["llama llama3"][1]["rope_parameters"], "rope_theta", 500_000.0)
    write_gguf(tmp_path / "a.gguf", "llama llama3")
    config, _, _ = read_gguf(tmp_path / "a.gguf")
    assert config.rope_scaling["rope_type"] == "llama3"
    ids = some_ids(2, 60)
    torch.testing.assert_close(load_model(tmp_path / "a.gguf")(ids), ours("llama llama3")(ids), atol=1e-4, rtol=0)
    monkeypatch.setitem(CONFIGS["llama llama3"][1]["rope_parameters"], "low_freq_factor", 2.0)
    write_gguf(tmp_path / "b.gguf", "llama llama3")
    refused(tmp_path / "b.gguf", "rope_freqs")


def test_linear_scaling_is_read(tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama linear", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    ids = some_ids(2, 60)
    torch.testing.assert_close(load_model(tmp_path / "a.gguf")(ids), ours("llama linear")(ids), atol=1e-4, rtol=0)


def test_metadata_comes_along(tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama")
    config, state, metadata = read_gguf(tmp_path / "a.gguf")
    assert metadata["tokenizer.ggml.tokens"] == ["a", "b", "é"]
    assert (config.eos_token_id, config.bos_token_id, config.rms_norm_eps) == (2, None, 1e-6)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def blocks(kind: str, rows: int, columns: int) -> np.ndarray:
    """Stored bytes of a random matrix, (rows, bytes a row); K kinds, which gguf cannot make, from random bits."""
    draw = np.random.default_rng(zlib.crc32(kind.encode()))
    code = gguf.GGMLQuantizationType[kind]
    if not kind.endswith("K"):
        return gguf.quantize(draw.normal(size=(rows, columns)).astype(np.float32), code)
    per_block, size = gguf.GGML_QUANT_SIZES[code]
    raw = draw.integers(0, 256, (rows, columns // per_block, size), dtype=np.uint8)
    scales = draw.uniform(0.001, 0.01, (rows, columns // per_block, 2)).astype(np.float16).view(np.uint8)
    if kind == "Q4_K":
        raw[..., :4] = scales
    else:
        raw[..., -2:] = scales[..., :2]
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_quantisation_is_read(kind, tmp_path):
    """A llama of 256 channels whose matrices are of one kind: weights, rows of q and k in order, and hash."""
    code = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    for key, value in {"block_count": 1, "embedding_length": 256, "feed_forward_length": 512}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_uint32("llama.attention.head_count", 4)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    sizes = {"ffn_up": (512, 256), "ffn_gate": (512, 256), "ffn_down": (256, 512)}
    sizes |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (256, 256))
    known = {}
    for name, size in {"token_embd": (60, 256), **{f"blk.0.{k}": v for k, v in sizes.items()}}.items():
        stored = blocks(kind, *size)
        known[f"{name}.weight"] = gguf.dequantize(stored, code)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=code)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config, state, _ = read_gguf(tmp_path / "a.gguf")
    layer = "model.layers.0."
    assert np.array_equal(state["model.embed_tokens.weight"], known["token_embd.weight"])
    assert np.array_equal(state[f"{layer}mlp.down_proj.weight"], known["blk.0.ffn_down.weight"])
    for key, name in (("q_proj", "attn_q"), ("k_proj", "attn_k")):
        assert np.array_equal(paired(state[f"{layer}self_attn.{key}.weight"].numpy(), 4), known[f"blk.0.{name}.weight"])
    assert build_model(config, state, "here")(some_ids(1, 9) % 60).isfinite().all()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_gguf(path)
    assert caught.value.where == str(path)
    assert caught.value.then
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.003, 0.01, 0.02, 0.3, 0.9, 0.9999])
def test_a_file_that_is_cut_off_says_how_much_is_missing(share, tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama")
    whole = (tmp_path / "a.gguf").read_bytes()
    kept = int(len(whole) * share)
    (tmp_path / "a.gguf").write_bytes(whole[:kept])
    refused(tmp_path / "a.gguf", "cut off", "bytes are missing", str(kept))
    if share >= 0.3:  # the header is whole, so that the number is exact
        refused(tmp_path / "a.gguf", f"cut off: {len(whole) - kept} bytes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expert_count": 8}, ["experts"]),
        ({"logit_scale": 0.5}, ["llama.logit_scale"]),
        ({"rope.scaling.type": "yarn"}, ["yarn"]),
        ({"rope.dimension_count": 4}, ["4 turn"]),
        ({"embedding_length": 2**31}, ["hidden_size"]),
        ({"attention.head_count": "six"}, ["'six'"]),
    ],
)
def test_what_would_give_wrong_answers_is_refused(change, words, tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama", change)
    refused(tmp_path / "a.gguf", *words)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.gguf"
    refused(path, "no such file")
    path.write_bytes(b"PK\x03\x04 and more")
    refused(path, "is not a GGUF file")
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 1))
    refused(path, "little-endian")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key("general.architecture", 8, text("bloom")))
    refused(path, "'bloom'", "qwen3")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key("general.architecture", 8, text("llama")))
    refused(path, "token_embd.weight")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("counts", "body", "words"),
    [
        ((2**62, 0), b"", ["tensors"]),
        ((0, 2**62), b"", ["keys"]),
        ((0, 2**20), b"", ["cut off"]),
        ((0, 1), struct.pack("<Q", 2**63), ["cut off"]),
        ((0, 1), key("k", 8, struct.pack("<Q", 2**40)), ["cut off"]),
        ((0, 1), key("k", 9, struct.pack("<IQ", 4, 2**60)), ["damaged"]),
        ((0, 1), key("k", 9, struct.pack("<IQ", 4, 2**20)), ["cut off"]),
        ((0, 1), key("k", 9, struct.pack("<IQ", 8, 2**23)), ["cut off"]),
        ((0, 1), key("k", 9, struct.pack("<IQ", 9, 1)) * 3, ["a list of kind 9"]),
        ((0, 1), key("k", 77, b""), ["kind 77"]),
        ((0, 1), key("general.alignment", 4, struct.pack("<I", 0)), ["alignment"]),
        ((1, 0), entry("t", (), 0, 0) + bytes(64), ["0 dimensions"]),
        ((1, 0), entry("t", (2**40, 2**40), 0, 0), ["cut off"]),
        ((1, 0), entry("t", (8,), 0, 2**63), ["cut off"]),
        ((1, 0), entry("t", (8,), 999, 0), ["999"]),
        ((1, 0), entry("t", (33,), 8, 0) + bytes(99), ["blocks of 32"]),
        ((2, 0), entry("t", (8,), 0, 0) * 2 + bytes(99), ["one name"]),
        ((3, 0), b"".join(entry(c, (16,), 0, 0) for c in "abc") + bytes(99), ["overlap"]),
    ],
)
def test_hostile_headers_are_refused_at_once(counts, body, words, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + body)
    started = time.perf_counter()
    refused(tmp_path / "a.gguf", *words)
    assert time.perf_counter() - started < 2


def test_random_damage_is_refused_or_harmless(tmp_path):
    write_gguf(tmp_path / "a.gguf", "llama")
    whole = (tmp_path / "a.gguf").read_bytes()
    draw = random.Random(5)
    refusals = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(2500)] = draw.randrange(256)
        (tmp_path / "b.gguf").write_bytes(data)
        try:
            load_model(tmp_path / "b.gguf")
        except InputError:
            refusals += 1
    assert refusals > 100
