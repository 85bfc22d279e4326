"""Model folders: transformers reads ours and we read theirs; what cannot be used is refused with a reason."""

import json
import pickle
import random
import resource
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from qualm.errors import InputError, QualmError
from qualm.models.layers import quantize_int8
from qualm.models.llama import LlamaConfig
from qualm.models.store import bytes_of, load_model, parameters, save_model, weights_hash
from test_models import CONFIGS, ours, some_ids, theirs

FAMILIES = ["llama", "llama tied", "llama biases", "llama llama3", "mistral", "qwen2 window", "qwen3", "gpt2"]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(ours("llama tied"), tmp_path / "model")
    return tmp_path / "model"


def refused(path: Path, *words: str) -> InputError:
    """The one-line refusal to load what is at `path`; it names a next step."""
    with pytest.raises(InputError) as caught:
        load_model(path)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.then
    assert caught.value.where.startswith(str(path))
    for word in words:
        assert word in line, line
    return caught.value


def edit_config(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (raw | changes).items() if v != "left out"}))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) drop tensors; "__" in a name stands for a dot."""
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    safetensors.torch.save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", FAMILIES)
def test_we_read_what_transformers_wrote(name, tmp_path):
    reference = theirs(name)
    reference.save_pretrained(tmp_path)
    ids = some_ids(2, 30)
    torch.testing.assert_close(load_model(tmp_path)(ids), reference(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000])
def test_transformers_reads_what_we_wrote(name, shard_bytes, tmp_path):
    model, ids = ours(name), some_ids(2, 30)
    save_model(model, tmp_path, shard_bytes)
    other, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(other) is type(theirs(name))
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    torch.testing.assert_close(other.eval()(ids).logits, model(ids), atol=1e-4, rtol=0)
    assert other.config.eos_token_id == 2


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_comes_back_bit_for_bit(name, tmp_path):
    model, ids = ours(name), some_ids(2, 30)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(ids), model(ids))
    assert again.config == model.config
    assert weights_hash(again) == weights_hash(model)
    assert not again.training


def test_shards_hold_every_weight_once(tmp_path):
    model = ours("llama tied")
    save_model(model, tmp_path, 20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert index["metadata"]["total_size"] == bytes_of(model)
    assert "lm_head.weight" not in index["weight_map"]
    largest = max(t.numel() * t.element_size() for t in model.state_dict().values())
    assert all(shard.stat().st_size < max(20_000, largest) + 2000 for shard in shards)
    assert weights_hash(load_model(tmp_path)) == weights_hash(model)


def test_saving_anew_leaves_no_old_shard(tmp_path):
    save_model(ours("llama"), tmp_path, 20_000)
    save_model(ours("qwen3"), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    save_model(ours("llama"), tmp_path, 20_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert weights_hash(load_model(tmp_path)) == weights_hash(ours("llama"))


def test_the_hash_is_of_the_weights_and_of_what_is_done_with_them(tmp_path):
    model = ours("llama")
    before = weights_hash(model)
    theirs("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    assert weights_hash(load_model(tmp_path)) == before
    edit_config(tmp_path, rope_parameters=None, rope_theta=1234.0)
    assert weights_hash(load_model(tmp_path)) != before
    model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    assert weights_hash(model) != before


def test_tied_weights_are_stored_once_and_stay_tied(folder):
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in stored
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert parameters(model) == sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
    assert bytes_of(model) == 4 * parameters(model)


@pytest.mark.parametrize("skip", [[], ["lm_head"]])
@pytest.mark.parametrize("name", ["llama tied", "qwen2 window", "gpt2"])
def test_8_bit_weights_come_back_bit_for_bit(name, skip, tmp_path):
    model, ids = quantize_int8(ours(name), skip), some_ids(2, 30)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(ids), model(ids))
    assert weights_hash(again) == weights_hash(model) != weights_hash(ours(name))
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["quantization_config"]["quant_method"] == "qualm-int8"
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert sum(t.numel() * t.element_size() for t in stored.values()) == bytes_of(model)
    assert bytes_of(model) < (tmp_path / "model.safetensors").stat().st_size < bytes_of(model) + 10_000
    assert torch.int8 in {t.dtype for t in stored.values()}


def test_the_dtype_asked_for_is_given(tmp_path):
    save_model(ours("llama").bfloat16(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path).lm_head.weight.dtype == torch.float32
    assert load_model(tmp_path, None).lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(load_model(tmp_path).lm_head.weight, ours("llama").lm_head.weight.bfloat16().float())


def test_the_oldest_gpt2_names_are_read(tmp_path):
    """The first GPT-2 files have no prefix and hold the causal mask."""
    reference = theirs("gpt2")
    reference.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(3)}
    safetensors.torch.save_file(old, tmp_path / "model.safetensors")
    ids = some_ids(2, 30)
    torch.testing.assert_close(load_model(tmp_path)(ids), reference(ids).logits, atol=1e-4, rtol=0)


def test_missing_things_are_named(folder):
    refused(folder.parent / "nowhere", "no such file or folder")
    refused(folder / "config.json", "is a file")
    (folder / "config.json").unlink()
    refused(folder, "config.json")
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_refused_unread(name, folder):
    class Evil:
        def __reduce__(self):
            return Path.touch, (folder / "was run",)

    (folder / "model.safetensors").rename(folder / "elsewhere")
    (folder / name).write_bytes(pickle.dumps(Evil()))
    refused(folder, "can run code", "save_pretrained")
    refused(folder / name, "can run code")
    (folder / name).rename(folder / "model.safetensors")
    refused(folder, "can run code")
    torch.save({"a": torch.ones(2)}, folder / "model.safetensors")
    refused(folder, "can run code")
    assert not (folder / "was run").exists()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.999])
def test_a_file_that_is_cut_off_says_how_much_is_missing(share, folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    kept = int(len(whole) * share)
    file.write_bytes(whole[:kept])
    header = 8 + int.from_bytes(whole[:8], "little")
    missing = 8 - kept if kept < 8 else header - kept if kept < header else len(whole) - kept
    refused(folder, "cut off", f" {missing} bytes")


def test_a_damaged_shard_or_index_is_named(folder):
    save_model(ours("llama"), folder, 20_000)
    index = folder / "model.safetensors.index.json"
    first = min(folder.glob("model-*.safetensors"))
    good = index.read_text()
    index.write_text(good.replace(first.name, "../elsewhere.safetensors"))
    refused(folder, "outside its folder")
    index.write_text('{"weight_map": {"model.norm.weight": 3}}')
    refused(folder, "weight_map")
    index.write_text(good.replace("model.norm.weight", "model.morn.weight"))
    refused(folder, "model.morn.weight", "is not in")
    index.write_text(good)
    first.unlink()
    refused(folder, "missing", first.name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__norm__weight": None}, ["'model.norm.weight' is missing"]),
        ({"model__extra": torch.ones(2)}, ["'model.extra' is not known"]),
        ({"model__norm__weight": torch.ones(47)}, ["'model.norm.weight'", "[47]", "[48]"]),
        ({"model__norm__weight": torch.ones(48).int()}, ["'model.norm.weight'", "int32"]),
        ({"model__norm__weight": torch.ones(48).index_fill(0, torch.tensor(3), float("nan"))}, ["NaN", "1 of 48"]),
        ({"model__norm__weight": torch.full((48,), float("-inf"))}, ["infinity", "48 of 48"]),
        ({"lm_head__weight": torch.ones(97, 48)}, ["'lm_head.weight' differs", "tie_word_embeddings"]),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(changes, words, folder):
    edit_weights(folder, **changes)
    refused(folder, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llamma"}, ["'llamma'", "did you mean 'llama'"]),
        ({"model_type": "bloom"}, ["'bloom'", "qwen3"]),
        ({"model_type": "left out"}, ["'model_type' is missing"]),
        ({"model_type": ["llama"]}, ["model_type"]),
        ({"hidden_act": "relu"}, ["hidden_act", "'relu'"]),
        ({"final_logit_softcapping": 30.0}, ["final_logit_softcapping"]),
        ({"num_hidden_layers": 2**23}, ["layers"]),
        ({"num_hidden_layers": 4}, ["layers.3"]),
        ({"num_hidden_layers": 2}, ["layers.2"]),
        ({"intermediate_size": 81}, ["mlp", "81"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["gptq"]),
        ({"quantization_config": {"quant_method": "qualm-int8", "modules_to_not_convert": 3}}, ["quantised"]),
        ({"quantization_config": {"quant_method": "qualm-int8", "modules_to_not_convert": []}}, ["weight_scale"]),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes, words, folder):
    edit_config(folder, **changes)
    refused(folder, *words)


@pytest.mark.parametrize("text", ["[1, 2]", "", "{", "[" * 100_000, '{"vocab_size": 1' + "0" * 5000 + "}"])
def test_a_config_that_is_no_json_object_is_refused(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match="JSON"):
        load_model(folder)


def test_equal_copies_of_tied_weights_are_fine(folder):
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    edit_weights(folder, lm_head__weight=stored["model.embed_tokens.weight"].clone())
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert weights_hash(model) == weights_hash(ours("llama tied"))


def test_a_full_disk_leaves_the_old_model(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(QualmError, match=r"cannot write.*free some space"):
            save_model(ours("llama"), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_random_damage_is_refused_or_harmless(folder, tmp_path):
    """Any file with a few bytes changed loads or is refused in one line, soon."""
    draw = random.Random(5)
    whole = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    started = time.perf_counter()
    refusals = 0
    for trial in range(150):
        name = "config.json" if trial % 3 == 0 else "model.safetensors"
        data = bytearray(whole[name])
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data) if draw.random() < 0.3 else min(3000, len(data)))] = draw.randrange(256)
        shutil.copytree(folder, tmp_path / "damaged", dirs_exist_ok=True)
        (tmp_path / "damaged" / name).write_bytes(data)
        try:
            load_model(tmp_path / "damaged")
        except InputError:
            refusals += 1
    assert refusals > 75
    assert time.perf_counter() - started < 60


def test_configs_of_other_kinds_are_not_taken_for_ours():
    with pytest.raises(InputError, match="model_type"):
        LlamaConfig(97, 48, 80, 3, 6, model_type="gemma")
