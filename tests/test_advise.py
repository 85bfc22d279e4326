"""Advice: the size that fits time, text and memory; figures that hold; a reason for each."""

import functools
import json
from dataclasses import replace

import pytest
import torch

from qualm.errors import UsageError
from qualm.training import advice
from qualm.training.advice import FAMILIES, HALF, KNOWN, Machine, Wish, activations, advise, law, measured, trial
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

MACHINE = Machine(threads=1, memory=8e9, precision="fp32", peak=1e11)
TINY = Recipe(size=30_000, length=16, vocab=300, train=TrainSettings(steps=1, batch=2, threads=1))


@pytest.fixture
def quick(monkeypatch):
    """A machine that reaches HALF of its peak at every size, and is not measured."""
    steps = []

    def step(recipe):
        steps.append(recipe)
        depth = advice.depth_of(recipe.size, recipe.family, recipe.vocab, recipe.length)
        config = advice.config_of(recipe.family, depth, recipe.vocab, recipe.length)
        return 3 * advice._row_flops(recipe.family, config, recipe.length) * recipe.train.batch / (HALF * MACHINE.peak)

    sizes = functools.cache(advice.config_of)
    monkeypatch.setattr(advice, "config_of", sizes)
    monkeypatch.setattr(advice, "measured", step)
    monkeypatch.setattr(advice, "look", lambda wish: replace(MACHINE, memory=wish.memory or MACHINE.memory))
    monkeypatch.setattr(advice, "activations", lambda recipe: 1e8)
    return steps


def test_the_law_is_that_of_the_paper():
    """Chinchilla, 70 B parameters and 1.4 T tokens: 1.69 + 0.083 + 0.163."""
    assert law(70e9, 1.4e12) == pytest.approx(1.936, abs=0.005)
    assert law(1e9, 1e10) > law(2e9, 1e10) > law(2e9, 2e10)


def test_more_time_and_more_text_ask_for_more_model(quick):
    hours = [advise(Wish(tokens=1e9, hours=h)).plan.parameters for h in (0.1, 2, 40)]
    tokens = [advise(Wish(tokens=t, hours=40)).plan.parameters for t in (1e5, 1e7, 1e9)]
    assert hours == sorted(set(hours))
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("task", FAMILIES)
def test_the_plan_keeps_to_the_time_the_text_and_the_memory(task, quick):
    wish = Wish(task, tokens=3e6, hours=0.5, memory=1e9)
    given = advise(wish)
    plan = given.plan
    assert plan.family == FAMILIES[task]
    assert plan.seconds <= 1800 * 1.01
    assert plan.steps * plan.batch * plan.length <= 4 * wish.tokens * 1.01
    assert plan.memory <= 1e9
    assert plan.parameters == advice.config_of(plan.family, plan.depth, plan.vocab, plan.length).parameters
    assert len(given.reasons) >= 5
    assert str(plan.steps) in given.command or given.choice == "start from"
    json.dumps(given.document(), allow_nan=False)


def test_a_pretrained_model_is_advised_where_it_fits_and_not_where_it_does_not(quick):
    fits, short = advise(Wish("classify", tokens=1e4, hours=5)), advise(Wish("classify", tokens=1e8, hours=0.1))
    assert fits.choice == "start from"
    assert "bert-base-uncased" in fits.command
    assert short.choice == "train"
    assert short.command.startswith("qualm train")
    assert "hours" in short.reasons[-1]
    assert "bert-base-chinese" in advise(Wish("classify", "zh", tokens=1e4, hours=5)).command
    assert "multilingual" in advise(Wish("classify", "fi", tokens=1e4, hours=5)).command
    assert set(KNOWN) == set(FAMILIES.values())


def test_what_cannot_be_is_said(quick):
    with pytest.raises(UsageError, match="no task is named 'dance'"):
        Wish("dance")
    with pytest.raises(UsageError, match="must be above 0"):
        Wish(hours=0)
    with pytest.raises(UsageError, match="the least model takes"):
        advise(Wish(memory=1e6))


@pytest.mark.parametrize("family", sorted(set(FAMILIES.values())))
def test_a_trial_is_the_recipe_that_will_be_trained(family, monkeypatch):
    monkeypatch.setattr(advice, "PROBE", 0.05)
    recipe = replace(TINY, family=family)
    model, rows, _ = trial(recipe)
    depth = advice.depth_of(recipe.size, family, 300, 16)
    assert model.config.parameters == advice.config_of(family, depth, 300, 16).parameters
    assert len(rows) >= 2
    assert 0 < measured(recipe) < 10


def test_activations_grow_with_the_batch():
    small, large = (activations(replace(TINY, train=replace(TINY.train, batch=b))) for b in (2, 8))
    assert 3 < large / small < 4.5


def test_the_verb_prints_a_command_and_json(qualm, quick):
    done = qualm("advise", "--tokens", "2M", "--hours", "0.1", "--memory", "4GB")
    assert done.code == 0, done.err
    assert "qualm train DATA" in done.out
    assert "English web text" in done.err
    document = json.loads(qualm("advise", "--json").out)
    assert document["schema"] == "qualm.advise/1"
    assert document["plan"]["steps"] > 0
    assert qualm("advise", "--memory", "much").code == 2
    assert qualm("advise", "--tokens", "many").code == 2


def test_this_machine_can_be_looked_at():
    machine = advice.look(Wish())
    assert machine.threads == torch.get_num_threads()
    assert machine.peak > 1e8
    assert machine.memory > 1e8
