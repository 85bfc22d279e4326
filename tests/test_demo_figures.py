"""The demo's planted model in full: what was planted is read back, and the mends do what they are for."""

import json

import numpy as np
import pytest

from qualm.cli._journey import Journey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    Journey(folder, folder / "cache", print, lambda *_: None, pretrained=False).run()
    return json.loads((folder / "report.json").read_text())["subjects"][0]


def limit(subject, name):
    return next(m for m in subject["limits"] if m["name"] == name)


def change(subject, label, name):
    proof = next(p for p in subject["proofs"] if p["label"].lower().startswith(label))
    return next(c for c in proof["changes"] if c["name"] == name)


def ranks(values):
    return np.array([np.mean([x < v for x in values]) + np.mean([x <= v for x in values]) for v in values])


def test_knowledge_is_where_it_was_planted(subject):
    parts = limit(subject, "knowledge")["parts"]
    chance = (2 / 40 + 1 / 30) / 3  # towns, firms, trades
    assert parts["taught"]["value"] >= 0.9
    assert parts["never seen"]["low"] <= chance <= parts["never seen"]["high"]


def test_retrieval_lifts_what_was_never_seen_and_placebo_passages_do_not(subject):
    real = change(subject, "retrieval", "knowledge")["parts"]["never seen"]
    placebo = change(subject, "retrieval (arm placebo)", "knowledge")["parts"]["never seen"]
    assert real["after"]["value"] - real["before"]["value"] >= 0.4
    assert placebo["after"]["value"] - placebo["before"]["value"] <= 0.02


def test_the_calculator_lifts_arithmetic(subject):
    assert change(subject, "calculator", "arithmetic")["difference"] >= 0.3
    assert change(subject, "calculator", "arithmetic")["verdict"] == "better"


def test_the_bias_that_was_planted_is_read_and_halved_for_nothing(subject):
    assert limit(subject, "bias")["figures"]["correlation with the planted odds"] > 0.9
    bias, fluency = (change(subject, "counterfactual", name) for name in ("bias", "perplexity"))
    assert bias["after"]["value"] <= bias["before"]["value"] / 2
    assert fluency["harmless"]


def test_exposure_rises_with_the_dose(subject):
    parts = limit(subject, "memorisation")["parts"]
    doses = [0 if name == "never told" else int(name.split()[0]) for name in parts]
    exposures = [part["value"] for part in parts.values()]
    assert np.corrcoef(ranks(doses), ranks(exposures))[0, 1] > 0.9


def test_temperature_calibrates_and_changes_no_answer(subject):
    error = change(subject, "temper", "calibration")
    assert error["after"]["value"] <= 0.6 * error["before"]["value"]
    knowledge = change(subject, "temper", "knowledge")
    assert knowledge["difference"] == 0
    assert knowledge["fixed"] == knowledge["broken"] == 0
