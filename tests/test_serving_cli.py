"""`qualm serve`: what it serves under which names, and when it refuses to start."""

import json

import pytest

from qualm.lm.base import Sampling
from qualm.lm.endpoint import Endpoint
from qualm.mends.apply import load
from qualm.models._adapter_files import write_adapter
from qualm.serving.keys import Keys
from qualm.serving.run import background
from qualm.teaching import base_of
from qualm.training.adapters import adapt
from qualm.training.recipe import Lora
from serving import Counter
from test_training_adapters import shaken


@pytest.fixture
def started(qualm, monkeypatch):
    """`started("MODEL", ...)` is the house that the command would open, and how the command ended."""

    def start(*words):
        houses = []
        monkeypatch.setattr("qualm.serving.run.run", lambda house, listening: houses.append(house))
        done = qualm("serve", *words, "--port", "0")
        return houses[0] if houses else None, done

    return start


def test_a_model_is_served_before_and_after_its_mends(started, small_model, tmp_path):
    (tmp_path / "facts.txt").write_text("Ana lives in Bonn.")
    house, done = started(small_model, "--mend", f"retrieval docs={tmp_path / 'facts.txt'} k=2", "--mend", "calculator")
    assert done.code == 0, done.err
    assert list(house.models) == ["small", "small+retrieval", "small+retrieval+calculator"]
    assert "k=2" in house.models["small+retrieval"].lm.card.mends[0]
    assert "serving small, small+retrieval" in done.err


def test_adapters_go_by_the_names_of_their_folders(started, small_model, tmp_path):
    lm = load(small_model)
    for seed, name in enumerate(("one", "two")):
        write_adapter(shaken(adapt(lm.model, Lora(4), seed=seed)), base_of(lm), tmp_path / "adapters" / name, {})
    house, done = started(f"base={small_model}", "--adapters", tmp_path / "adapters")
    assert done.code == 0, done.err
    with background({name: served.lm for name, served in house.models.items()}) as running:
        there = {name: Endpoint(running.url, name).score([("Ana", " has")])[0].total for name in house.models}
    here = {name: lm.adapted(tmp_path / "adapters" / name).score([("Ana", " has")])[0].total for name in ("one", "two")}
    assert list(there) == ["base", "one", "two"]
    assert there == pytest.approx({"base": lm.score([("Ana", " has")])[0].total, **here}, abs=1e-5)
    assert len({round(each, 4) for each in there.values()}) == 3


def test_another_engine_is_served_behind_ours(started):
    with background([Counter()]) as running:
        house, _ = started("counter", "--engine", running.url, "--mend", "calculator")
        with background({name: served.lm for name, served in house.models.items()}) as ours:
            answer = Endpoint(ours.url, "counter").generate(["hello"], Sampling(3))[0]
    assert (answer.tokens, len(answer.text.split())) == (3, 3)


def test_a_key_is_made_and_is_good_for_the_server(started, qualm):
    told = json.loads(qualm("serve", "--keys", "keys.json", "--new-key", "ana", "--json").out)
    house, done = started("fake:oracle", "--host", "0.0.0.0", "--keys", "keys.json")
    assert done.code == 0, done.err
    assert house.keys.holder(f"Bearer {told['key']}").name == "ana"
    assert isinstance(house.keys, Keys)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no model to serve"),
        (["fake:oracle", "--host", "0.0.0.0"], 2, "without a key"),
        (["fake:oracle", "--api-key", "short"], 2, "8 to 512"),
        (["fake:oracle", "--api-key", "long-enough", "--keys", "k"], 2, "not both"),
        (["fake:oracle", "--keys", "missing.json"], 4, "no such file"),
        (["fake:oracle", "--mend", "nothing"], 2, "nothing"),
        (["fake:oracle", "--audits", "missing"], 2, "--audits"),
        (["fake:oracle", "--adapters", "."], 2, "no weights here"),
        (["fake:oracle", "--rows", "0"], 2, "rows"),
        (["fake:oracle", "fake:oracle"], 2, "two models"),
        (["--new-key", "ana"], 2, "--keys FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_served_is_said_on_one_line(started, words, code, said):
    house, done = started(*words)
    assert house is None
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
