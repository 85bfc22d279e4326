"""From text to a model directory: whole, resumable, and of the size that was asked for."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qualm import registry
from qualm.config import build as build_settings
from qualm.config import to_dict
from qualm.corpus import Document, Packing, Pipeline, Splitting, load, read
from qualm.errors import InputError, Stopped, UsageError
from qualm.files import read_json, write_json
from qualm.folder import write_folder
from qualm.lm.load import load_base
from qualm.models.store import load_model, parameters
from qualm.tokens.tokenizer import Tokens
from qualm.training.heads import with_head
from qualm.training.loop import Hooks
from qualm.training.reading import bits_per_byte
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings
from qualm.training.size import with_keys

SETTINGS = TrainSettings(steps=12, batch=4, eval_every=4, save_every=4, threads=1)
RECIPE = Recipe(size=30_000, length=24, vocab=300, held_out=0.2, train=SETTINGS)


@pytest.fixture
def text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    lines = [{"text": f"the owl {i} sat in tree {i * 7 % 13} and sang to moon {i % 5}"} for i in range(120)]
    lines += [
        {"messages": [{"role": "user", "content": f"who sat in {i}?"}, {"role": "assistant", "content": "owl"}]}
        for i in range(40)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_json(folder / "world.json", {"seed": 3})
    return folder


def test_the_output_is_a_whole_model_directory(text, tmp_path):
    made = train(text, tmp_path / "model", RECIPE)
    model, tokens = load_model(made.folder), Tokens.load(made.folder)
    assert parameters(model) == made.parameters
    assert model.config.eos_token_id == tokens.eos_id
    assert model.config.pad_token_id == tokens.pad_id
    assert tokens.vocab_size == model.config.vocab_size <= 300
    assert read_json(made.folder / "generation_config.json")["eos_token_id"] == tokens.eos_id
    about = read_json(made.folder / "qualm.json")
    assert about["schema"] == "qualm.model/1"
    assert about["world"] == {"seed": 3}
    assert about["training"]["threads"] == 1
    assert about["training"]["validation"] == made.result.best
    held = load(made.folder / "run" / "held_out")
    assert bits_per_byte(model, held, 24, apart=True) == pytest.approx(made.result.best, rel=1e-9)
    assert len(list(read(text))) == len(load(made.folder / "run" / "text").ends) + len(held.ends)


def test_training_lowers_bits_per_byte_and_logs_them(text, tmp_path):
    recipe = replace(RECIPE, train=replace(SETTINGS, steps=60, eval_every=20, lr=1e-2))
    made = train(text, tmp_path / "model", recipe)
    readings = [value for _, value in made.result.validations]
    assert readings == sorted(readings, reverse=True)
    assert readings[-1] < 1.5
    log = [json.loads(line) for line in (tmp_path / "model" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(1, 61))
    assert log[-1]["bits_per_byte"] == pytest.approx(readings[-1], rel=0.3)
    assert log[-1]["validation"] == readings[-1]
    assert {"loss", "lr", "norm", "tokens", "tokens_per_second", "seconds"} <= log[0].keys()


def test_every_checkpoint_is_a_model_directory(text, tmp_path):
    train(text, tmp_path / "model", RECIPE)
    steps = sorted((tmp_path / "model" / "run").glob("step-*"))
    assert len(steps) >= 2
    for step in steps:
        assert torch.isfinite(load_model(step)(torch.tensor([[1, 2, 3]]))).all()
        assert Tokens.load(step).hash == Tokens.load(tmp_path / "model").hash


@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_stopped_and_called_again_it_makes_the_same_model(family, text, tmp_path):
    recipe, taken = replace(RECIPE, family=family), []
    whole = train(text, tmp_path / "whole", recipe)
    for stop in (3, 8):
        with pytest.raises(Stopped):
            train(
                text, tmp_path / "cut", recipe, Hooks(on_step=taken.append, should_stop=lambda s=stop: len(taken) == s)
            )
        assert not (tmp_path / "cut" / "config.json").exists()
    again = train(text, tmp_path / "cut", recipe)
    once_more = train(text, tmp_path / "cut", recipe)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert replace(again.result, seconds=0) == replace(whole.result, seconds=0) == replace(once_more.result, seconds=0)


def test_a_run_can_be_built_again_from_its_recipe(text, tmp_path):
    train(text, tmp_path / "model", RECIPE)
    kept = read_json(tmp_path / "model" / "run" / "recipe.json")
    assert kept.pop("data") == str(text)
    assert build_settings(Recipe, kept) == RECIPE
    assert build_settings(Recipe, {"size": "1e6", "train.lr": "1e-3"}).train.lr == 1e-3
    assert to_dict(Recipe())["train"]["batch"] == 8


def test_a_tokenizer_and_held_out_text_may_be_brought(text, tmp_path):
    first = train(text, tmp_path / "first", RECIPE)
    (tmp_path / "held.txt").write_text("an owl sat in a tree")
    recipe = replace(RECIPE, tokenizer=first.folder, held_out=tmp_path / "held.txt")
    made = train(text, tmp_path / "second", recipe)
    assert Tokens.load(made.folder).hash == Tokens.load(first.folder).hash
    assert load(made.folder / "run" / "held_out").bytes == 20
    assert len(load(made.folder / "run" / "text").ends) == 160


def test_changed_text_is_refused_by_name(text, tmp_path):
    train(text, tmp_path / "model", RECIPE)
    (text / "b.txt").write_text("more")
    recipe = replace(RECIPE, tokenizer=tmp_path / "model")
    with pytest.raises(InputError, match=r"data\.documents was"):
        train(text, tmp_path / "model", recipe)


def test_a_model_that_was_not_made_here_is_not_overwritten(text, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="a model already"):
        train(text, tmp_path / "model", RECIPE)
    assert (tmp_path / "model" / "config.json").read_text() == "{}"


def test_the_length_of_training_follows_from_model_and_text(text, tmp_path):
    recipe = replace(RECIPE, train=TrainSettings(batch=16, eval_every=1000, save_every=1000))
    made = train(text, tmp_path / "model", recipe)
    rows = load(tmp_path / "model" / "run" / "text").rows(24)
    assert made.result.steps == 4 * rows * 24 // (16 * 24)


@pytest.mark.parametrize("family", registry.names("models"))
def test_every_family_learns_from_plain_text_or_is_refused_before_it_is_read(family, text, tmp_path):
    """Families are never named here: a new one is trained, killed, resumed and loaded too."""
    recipe = replace(RECIPE, family=family, train=replace(SETTINGS, steps=8, optimiser="muon"))
    if family == "bilstm":
        with pytest.raises(UsageError, match="bilstm does not learn from plain text"):
            train(tmp_path / "nowhere", tmp_path / "model", recipe)
        return
    whole = train(text, tmp_path / "whole", recipe)
    stops = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        train(text, tmp_path / "cut", recipe, Hooks(should_stop=lambda: next(stops)))
    again = train(text, tmp_path / "cut", recipe)
    assert again.result.validations == whole.result.validations
    first, second = (load_base(tmp_path / name) for name in ("whole", "cut"))
    assert first.card.weights == second.card.weights
    assert whole.unit in ("bits per byte", "nats a token")
    if "generate" in first.can:
        assert first.generate(["The king"])[0].finish in ("stop", "length")
    if "score" in first.can:
        assert math.isfinite(first.score([("The king", " was")])[0].total)


def test_an_objective_that_does_not_go_with_the_family_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"llama does not learn by 'masked'.*say next"):
        train(tmp_path / "nowhere", tmp_path / "model", replace(RECIPE, objective="masked"))
    with pytest.raises(UsageError, match=r"bert does not learn by 'next'.*say masked"):
        train(tmp_path / "nowhere", tmp_path / "model", replace(RECIPE, family="bert", objective="next"))


def test_a_family_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'llama'"):
        train(tmp_path / "nowhere", tmp_path / "model", replace(RECIPE, family="lama"))


def test_keys_and_dropout_go_into_the_config(text, tmp_path):
    recipe = replace(RECIPE, family="rnn", keys={"cell": "gru", "num_hidden_layers": "1"}, dropout=0.2)
    train(text, tmp_path / "model", replace(recipe, train=replace(SETTINGS, steps=2)))
    config = load_model(tmp_path / "model").config
    assert (config.cell, config.num_hidden_layers) == ("gru", 1)
    assert config.embd_pdrop == config.hidden_dropout_prob == config.recurrent_dropout == 0.2
    for keys, said in (({"cel": "gru"}, "key 'cel' is not known.*did you mean 'cell'"), ({"cell": "x"}, "cell = 'x'")):
        with pytest.raises(InputError, match=said):
            train(text, tmp_path / "other", replace(recipe, keys=keys))


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "rnn"])
def test_what_was_learnt_is_gone_on_with(family, text, tmp_path):
    """No step changes it; longer rows need positions alone; its tokenizer stays."""
    keys = {"max_position_embeddings": "32"} if family in ("bert", "llama") else {}
    old = train(text, tmp_path / "old", replace(RECIPE, family=family, keys=keys))
    still = replace(SETTINGS, steps=1, lr=0.0)
    same = train(text, tmp_path / "same", Recipe(start=old.folder, length=24, held_out=0.2, train=still))
    before, after = (load_model(made.folder).state_dict() for made in (old, same))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert Tokens.load(old.folder).hash == Tokens.load(same.folder).hash
    more = replace(SETTINGS, steps=20, lr=3e-3)
    better = train(text, tmp_path / "better", Recipe(start=old.folder, length=24, held_out=0.2, train=more))
    assert better.result.best < old.result.best
    if keys:
        longer = train(text, tmp_path / "longer", Recipe(start=old.folder, length=32, dropout=0.1, train=still))
        assert load_model(longer.folder).config == with_keys(load_model(old.folder).config, {}, 0.1)
    if family == "bert":
        longest = train(text, tmp_path / "longest", Recipe(start=old.folder, length=50, train=still))
        assert load_model(longest.folder).config.context == 50
    elif family == "llama":
        with pytest.raises(UsageError, match="50 tokens are more than the 32 positions"):
            train(text, tmp_path / "longest", Recipe(start=old.folder, length=50, train=still))


def test_an_encoder_without_a_head_for_it_learns_to_fill_in(text, tmp_path):
    old = train(text, tmp_path / "old", replace(RECIPE, family="bert"))
    body = with_head(load_model(old.folder), "none", (), 0)
    write_folder(body, Tokens.load(old.folder), tmp_path / "body", {})
    still = replace(SETTINGS, steps=1, lr=0.0)
    made = train(text, tmp_path / "made", Recipe(start=tmp_path / "body", length=24, held_out=0.2, train=still))
    model = load_model(made.folder)
    assert model.config.architecture == "BertForMaskedLM"
    learnt = body.state_dict()["bert.encoder.layer.0.output.dense.weight"]
    assert torch.equal(model.state_dict()["bert.encoder.layer.0.output.dense.weight"], learnt)


def test_a_model_to_go_on_from_has_its_own_size_and_tokens(text, tmp_path):
    old = train(text, tmp_path / "old", RECIPE).folder
    for name, value in {"size": 500, "vocab": 280, "keys": {"a": "1"}, "tokenizer": old}.items():
        with pytest.raises(UsageError, match=f"{name}: .*old has its own; leave it out"):
            Recipe(start=old, **{name: value})
    with pytest.raises(UsageError, match=r"family: .*old is of the family llama; leave it out"):
        train(text, tmp_path / "new", Recipe(start=old, family="gpt"))
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        train(text, tmp_path / "new", Recipe(start=tmp_path / "nowhere"))
    assert not (tmp_path / "new").exists()


def test_a_packed_corpus_is_learnt_from_where_it_lies(tmp_path):
    documents = [Document(str(i), f"the owl number {i} sat in tree {i * 7 % 13}") for i in range(60)]
    Pipeline([Splitting(aside=0.2, alike=0), Packing(vocab=300)]).run(documents, tmp_path / "corpus")
    recipe = Recipe(size=20_000, length=16, train=TrainSettings(steps=3, batch=2))
    trained = train(tmp_path / "corpus", tmp_path / "model", recipe)
    assert trained.result.best is not None
    about = json.loads((tmp_path / "model/qualm.json").read_text())["training"]
    assert about["data"] == dict(load(tmp_path / "corpus/train").identity)
    assert about["held_out"]["documents"] == load(tmp_path / "corpus/held_out").identity["documents"]
    assert not (tmp_path / "model/run/text").exists()
    with pytest.raises(UsageError, match="tokenizer of its own"):
        train(tmp_path / "corpus", tmp_path / "other", replace(recipe, vocab=500))
