"""What is no model, or not quite one, is refused by every family: in one line that names the tensor or the key."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qualm import registry
from qualm.errors import InputError
from qualm.lm.load import load_path
from qualm.models.base import FIXED
from qualm.models.store import load_model, save_model
from qualm.training.size import build, config_of
from tiny import tiny_local, tiny_tokens

FAMILIES = registry.names("models")
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders with a tiny model of each family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        save_model(build(family, 1, 64, 16), folder)
    return folders


@pytest.fixture
def copied(saved, tmp_path):
    """`copied(family, state, config)`: the folder with its tensors and keys changed by these functions."""

    def copy(family: str, state=lambda held: held, config=lambda raw: raw) -> Path:
        folder = saved[family]
        save_file(state(load_file(folder / "model.safetensors")), tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(config(json.loads((folder / "config.json").read_text()))))
        return tmp_path

    return copy


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert caught.value.where.startswith(str(folder))
    assert caught.value.then
    assert "\n" not in str(caught.value)
    return str(caught.value)


def a_tensor(family: str, folder: Path) -> tuple[str, str]:
    """The name of a matrix that is not shared, in the file and in the model."""
    model = load_model(folder)
    shared = {*model.ties, *model.ties.values()}
    own = {type(model).rename(name, model.config): name for name in load_file(folder / "model.safetensors")}
    ours = next(
        n for n, w in model.named_parameters() if w.dim() > 1 and n in own and n.rpartition(".")[0] not in shared
    )
    return own[ours], ours


@each_family
def test_the_folder_as_it_is_loads(family, copied):
    load_model(copied(family))


@each_family
def test_a_missing_tensor_is_named(family, saved, copied):
    name, ours = a_tensor(family, saved[family])
    assert f"tensor '{ours}' is missing" in refused(copied(family, lambda s: {k: v for k, v in s.items() if k != name}))


@each_family
def test_an_extra_tensor_is_named(family, copied):
    told = refused(copied(family, lambda s: s | {"zebra.stripes": torch.ones(2)}))
    assert "zebra.stripes' is not known" in told


@each_family
def test_a_tensor_of_another_shape_is_named_with_both(family, saved, copied):
    name, ours = a_tensor(family, saved[family])
    told = refused(copied(family, lambda s: s | {name: s[name][:-1].contiguous()}))
    shape = list(load_file(saved[family] / "model.safetensors")[name].shape)
    assert f"tensor '{ours}' is" in told
    assert str(shape) in told
    assert str([shape[0] - 1, *shape[1:]]) in told


@each_family
def test_a_tensor_that_is_not_finite_is_named(family, saved, copied):
    name, ours = a_tensor(family, saved[family])
    assert f"tensor '{ours}' holds NaN" in refused(copied(family, lambda s: s | {name: s[name] * torch.nan}))


@each_family
def test_a_vocabulary_of_another_size_is_refused(family, copied):
    told = refused(copied(family, config=lambda raw: raw | {"vocab_size": 65}))
    assert "64" in told
    assert "65" in told


@each_family
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(family, copied):
    folder = copied(family)
    tiny_tokens().save(folder)
    with pytest.raises(InputError, match="vocabulary mismatch: the tokenizer has 480 tokens, the model 64"):
        load_path(folder)


@each_family
def test_a_key_that_is_not_known_is_named(family, copied):
    assert "'attention_zebra' is not known" in refused(copied(family, config=lambda raw: raw | {"attention_zebra": 1}))


@each_family
def test_a_key_that_would_change_the_mathematics_is_named(family, saved):
    """All keys that a family looks at but can do in few ways only."""
    kind = registry.find("models", family).config_class
    raw = json.loads((saved[family] / "config.json").read_text())
    fixed = {**FIXED, **kind.fixed}
    for key in fixed:
        with pytest.raises(InputError, match=key):
            kind.from_hf(raw | {key: "zebra"})


@each_family
def test_a_key_of_the_wrong_type_is_named(family, saved):
    kind = registry.find("models", family).config_class
    raw = json.loads((saved[family] / "config.json").read_text())
    for field in dataclasses.fields(kind):
        if field.name in raw and field.name not in kind.fixed and field.name != "model_type":
            with pytest.raises(InputError, match=field.name):
                kind.from_hf(raw | {field.name: {"zebra": [None]}})


@each_family
def test_a_key_that_decides_the_shapes_may_not_be_missing(family, saved):
    kind = registry.find("models", family).config_class
    raw = json.loads((saved[family] / "config.json").read_text())
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    assert needed
    for name in needed:
        if name in raw:
            with pytest.raises(InputError, match=f"'{name}' is missing"):
                kind.from_hf({k: v for k, v in raw.items() if k != name})


@each_family
def test_code_in_a_checkpoint_is_refused(family, saved):
    kind = registry.find("models", family).config_class
    raw = json.loads((saved[family] / "config.json").read_text())
    with pytest.raises(InputError, match=r"auto_map.*code.*never run"):
        kind.from_hf(raw | {"auto_map": {"AutoModel": "modeling.Zebra"}})


@pytest.mark.parametrize(("given", "near"), [("lama", "llama"), ("gpt3", "gpt2"), ("brt", "bert"), ("t55", "t5")])
def test_an_architecture_that_is_not_known_gets_the_nearest(given, near, copied):
    told = refused(copied("llama", config=lambda raw: raw | {"model_type": given}))
    assert f"model_type '{given}' is not known" in told
    assert f"did you mean '{near}'" in told


@each_family
def test_impossible_sizes_are_refused(family, saved):
    kind = registry.find("models", family).config_class
    raw = json.loads((saved[family] / "config.json").read_text())
    for size in (0, -1, 2**40):
        with pytest.raises(InputError, match="vocab_size"):
            kind.from_hf(raw | {"vocab_size": size})


@each_family
def test_what_the_dial_makes_is_a_config_that_is_read_back(family):
    config = config_of(family, 2, 96, 32, eos_token_id=3)
    again = type(config).from_hf(config.to_hf())
    assert again.to_hf() == config.to_hf()
    assert again.maths() == config.maths()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_hidden_layers": 1}, "tensor 'model.layers.1."),
        ({"num_hidden_layers": 3}, "tensor 'model.layers.2."),
        ({"vocab_size": 100}, "model.embed_tokens.weight"),
    ],
)
def test_the_command_line_says_so_in_one_line(change, named, qualm, tmp_path):
    tiny_local().save(tmp_path / "model")
    assert qualm("generate", "model", "x", "--max-tokens", 1).code == 0
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(raw | change))
    done = qualm("generate", "model", "x")
    assert done.code == InputError.exit_code
    assert done.out == ""
    assert done.err.startswith("qualm: model/config.json: ") or done.err.startswith("qualm: model: ")
    assert done.err.count("\n") == 1
    assert named in done.err
