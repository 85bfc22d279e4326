"""A run is gone on with by what began it: another setting, text, tokenizer or model is refused by name, or told of."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

import qualm
from qualm.config import to_dict
from qualm.errors import InputError, QualmError, Stopped
from qualm.files import read_json, write_json
from qualm.teaching import Tuning, tune
from qualm.tokens.train import train_bpe
from qualm.training.loop import Hooks
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings
from test_training_adapters import made
from test_tuning import reviews, written

SETTINGS = TrainSettings(steps=4, batch=4, eval_every=2, save_every=2, threads=1, precision="fp32")
RECIPE = Recipe(size=30_000, length=24, vocab=300, held_out=0.2, train=SETTINGS)

# Every field, with a value that is not the one above. A new field is to be put here.
OTHER = {
    "size": 400_000,
    "family": "gpt",
    "start": "other",
    "objective": "stateful",
    "dropout": 0.1,
    "keys": {"rms_norm_eps": "1e-4"},
    "length": 16,
    "vocab": 280,
    "tokenizer": "brought",
    "held_out": 0.4,
    "validate": 100,
    "apart": False,
    "hidden": 0.3,
    "goldfish": 4,
    "smoothing": 0.1,
    "token_dropout": 0.1,
    "bpe_dropout": 0.1,
    "teacher": "teacher",
    "temperature": 3.0,
    "mix": 0.7,
}
OTHER_SETTINGS = {
    "steps": 5,
    "epochs": 1.0,
    "batch": 5,
    "accumulate": 2,
    "lr": 1e-3,
    "warmup": 0.5,
    "schedule": "linear",
    "min_lr": 0.2,
    "optimiser": "sgd",
    "weight_decay": 0.2,
    "beta1": 0.8,
    "beta2": 0.9,
    "clip": 0.5,
    "ema": 0.9,
    "spike": 5.0,
    "seed": 1,
    "eval_every": 1,
    "save_every": 1,
    "patience": 1,
    "precision": "bf16",
    "compile": True,
    "recompute": True,
    "threads": 2,
}
FREE = {
    "device": "the machine's part says where it ran",
    "strict": "only says whether other threads are refused",
    "shard": "goes with several processes",
}


def stopping(after: int) -> Hooks:
    stops = iter([False] * (after - 1) + [True])
    return Hooks(should_stop=lambda: next(stops))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """`begun(recipe)` is the folder of a run that was stopped after three steps, and the text that it learns from."""
    root = tmp_path_factory.mktemp("begun")
    rows = [{"text": f"the owl {i} sat in tree {i * 7 % 13} and sang to moon {i % 5}"} for i in range(120)]
    (root / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, seed in (("teacher", 0), ("other", 1)):
        train(root / "a.jsonl", root / name, replace(RECIPE, train=replace(SETTINGS, steps=1, seed=seed)))
    train_bpe(["a wholly different text about owls, trees and moons"] * 9, 290).save(root / "brought")
    folders: dict[str, Path] = {}

    def begin(recipe: Recipe) -> tuple[Path, Path]:
        key = json.dumps(to_dict(recipe))
        if key not in folders:
            folders[key] = root / str(len(folders))
            with pytest.raises(Stopped):
                train(root / "a.jsonl", folders[key], recipe, stopping(3))
        return root / "a.jsonl", folders[key]

    return begin


def test_every_field_is_looked_at():
    assert OTHER.keys() == {f.name for f in fields(Recipe)} - {"train"}
    assert OTHER_SETTINGS.keys() | FREE.keys() == {f.name for f in fields(TrainSettings)}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_another_recipe_is_refused_by_name(name, begun):
    before = RECIPE
    if name == "objective":
        before = replace(RECIPE, family="rnn")
    if name == "hidden":
        before = replace(RECIPE, family="bert")
    if name in ("temperature", "mix"):
        before = replace(RECIPE, teacher=begun(RECIPE)[0].parent / "teacher")
    if name == "start":
        before = Recipe(start=begun(RECIPE)[0].parent / "teacher", length=24, held_out=0.2, train=SETTINGS)
    data, folder = begun(before)
    value = data.parent / OTHER[name] if name in ("tokenizer", "teacher", "start") else OTHER[name]
    with pytest.raises(InputError, match=r"was .* and is now .*; use the old one, or name another folder") as refused:
        train(data, folder, replace(before, **{name: value}))
    assert refused.value.exit_code == 4
    assert "step-000003" in refused.value.where


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # what compiling imports
@pytest.mark.parametrize("name", sorted(OTHER_SETTINGS))
def test_another_setting_is_refused_by_name(name, begun):
    data, folder = begun(RECIPE)
    value = {name: OTHER_SETTINGS[name], **({"steps": None} if name == "epochs" else {})}
    with pytest.raises(QualmError, match=f"{name} was .* and is now '?{OTHER_SETTINGS[name]}"):
        train(data, folder, replace(RECIPE, train=replace(SETTINGS, **value)))


def test_held_out_text_that_changed_is_refused(begun, tmp_path):
    (tmp_path / "held.txt").write_text("an owl sat in a tree")
    recipe = replace(RECIPE, held_out=tmp_path / "held.txt")
    data, folder = begun(recipe)
    (tmp_path / "held.txt").write_text("another owl sat in a tree")
    with pytest.raises(InputError, match=r"held_out\.documents was"):
        train(data, folder, recipe)


def test_on_another_machine_it_goes_on_with_a_word_and_a_warning(begun, tmp_path):
    data, folder = begun(replace(RECIPE, train=replace(SETTINGS, seed=7)))
    settings, events = replace(SETTINGS, seed=7, threads=2), []
    with pytest.raises(QualmError, match=r"threads was 1 and is now 2.*say --threads 1 again, or --no-strict"):
        train(data, folder, replace(RECIPE, train=settings))
    train(data, folder, replace(RECIPE, train=replace(settings, strict=False)), Hooks(on_event=events.append))
    assert "threads was 1 and is now 2: the run does not go on bit for bit" in events


# -- tuning


@pytest.fixture
def tuned(tmp_path):
    """A tuning that was stopped: the folder of its model, of its rows, and itself as a function."""
    made("bert", tmp_path / "base")
    rows = tmp_path / "rows"
    written(rows, reviews(40), "train.jsonl")
    written(rows, reviews(60)[40:], "validation.jsonl")

    def go_on(hooks: Hooks = Hooks(), **change) -> None:
        tuning = Tuning("classify", train=TuneSettings(steps=4, batch=8, threads=1, save_every=2, eval_every=2))
        tune(qualm.load(tmp_path / "base"), rows, tmp_path / "out", replace(tuning, **change), hooks)

    with pytest.raises(Stopped):
        go_on(stopping(3))
    return tmp_path / "base", rows, go_on


def test_a_tuning_goes_on_with_its_own_rows_alone(tuned):
    _, rows, go_on = tuned
    for name, said in (("validation", r"held_out\.records was"), ("train", r"data\.records was")):
        before = (rows / f"{name}.jsonl").read_text()
        written(rows, reviews(41)[1:], f"{name}.jsonl")
        with pytest.raises(InputError, match=said):
            go_on()
        (rows / f"{name}.jsonl").write_text(before)
    with pytest.raises(InputError, match=r"data\.length was"):
        go_on(length=20)
    with pytest.raises(InputError, match=r"settings\.lr was"):
        go_on(train=TuneSettings(steps=4, batch=8, threads=1, save_every=2, eval_every=2, lr=1e-3))
    go_on()


def test_a_tuning_goes_on_with_its_own_model_and_tokenizer_alone(tuned):
    base, _, go_on = tuned
    config = read_json(base / "config.json")
    write_json(base / "config.json", {**config, "hidden_dropout_prob": 0.3})
    with pytest.raises(InputError, match=r"model\.hidden_dropout_prob was .* and is now 0.3"):
        go_on()
    write_json(base / "config.json", config)
    known = read_json(base / "tokenizer.json")
    known["model"]["merges"] = known["model"]["merges"][:-3]
    write_json(base / "tokenizer.json", known)
    with pytest.raises(InputError, match=r"(tokenizer\.hash|data\.\w+) was"):
        go_on()
