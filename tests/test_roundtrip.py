"""The round trip: a model served over HTTP and audited through Endpoint reads what it reads when asked directly."""

from collections.abc import Mapping
from dataclasses import asdict

import pytest

from qualm.auditing.run import audit
from qualm.auditing.types import Measurement
from qualm.cases import is_read
from qualm.lm import fake, wire
from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.lm.endpoint import Endpoint
from qualm.lm.load import load_base
from qualm.registry import find, names
from qualm.world.base import World
from server import served
from tiny import tiny_local

WORLD = World(documents=100, taught=16, strangers=16)
SIZES = {"memorisation": 3, "calibration": 24, "knowledge": 24}


def probes(*, only_generate: bool = False) -> list:
    kinds = {name: find("probes", name) for name in names("probes")}
    wanted = [name for name, kind in kinds.items() if not kind.live and not (only_generate and "score" in kind.needs)]
    return [kinds[name](n=SIZES.get(name, 12)) for name in wanted]


@pytest.fixture(scope="module")
def local() -> CausalLM:
    bare = tiny_local(context=640)
    return CausalLM(bare.model, bare.tokens, name="tiny", about={"world": asdict(WORLD)})


@pytest.fixture(scope="module")
def here(local):
    return audit(local, probes())


def alike(one: Mapping, other: Mapping) -> bool:
    numbers = {key for key, value in one.items() if isinstance(value, float)}
    same = {key: value for key, value in one.items() if key not in numbers}
    return (
        one.keys() == other.keys()
        and same == {key: value for key, value in other.items() if key not in numbers}
        and all(one[key] == pytest.approx(other[key], abs=1e-3, rel=1e-4) for key in numbers)
    )


def agrees(one: Measurement, other: Measurement) -> None:
    assert (one.name, one.probe, one.cases, one.why) == (other.name, other.probe, other.cases, other.why)
    assert len(one.rows) == len(other.rows) > 0
    for row, its in zip(one.rows, other.rows, strict=True):
        assert alike(row, its)
    if one.reading:
        numbers = [(m.reading.value, m.reading.low, m.reading.high) for m in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-4)


def test_a_local_model_reads_the_same_over_http(local, here):
    with served(local) as service:
        endpoint = load_base(f"{service.url}#tiny")
        assert isinstance(endpoint, Endpoint)
        assert endpoint.check() == ""
        assert endpoint.card.world == local.card.world
        there = audit(endpoint, probes())
    assert sum(m.reading is not None for m in here.measurements) >= 8
    assert {"perplexity", "calibration", "memorisation"} <= {m.name for m in here.measurements if m.reading}
    for name in (m.name for m in here.measurements):
        agrees(here[name], there[name])


def test_a_fake_reads_the_same_over_http_and_what_needs_scores_says_why_it_cannot():
    model = fake.Fake(fake.world_cases(WORLD), "confabulator", WORLD)
    with served(model, echo="ignored") as service:
        there = audit(Endpoint(service.url), probes())
        lack = Endpoint(service.url).check()
    direct = audit(model, probes(only_generate=True))
    assert direct["confabulation"].value == 1.0
    assert direct["arithmetic"].value == 1.0
    for each in direct.measurements:
        agrees(each, there[each.name])
    unmeasured = {m.name: m.why for m in there.measurements if m.reading is None}
    assert unmeasured.keys() == {"perplexity", "calibration", "memorisation", "bias"}
    assert all("score" in why for why in unmeasured.values())
    assert "no prompt log-probabilities under echo" in lack


@pytest.mark.parametrize("name", ["perplexity", "calibration", "knowledge", "bias", "reasoning", "memorisation"])
def test_what_stays_unread_is_counted_and_the_rest_is_read(local, here, monkeypatch, tmp_path, name):
    monkeypatch.setattr(wire, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(wire, "GIVE_UP", 10_000)
    (case, *_), (probe,) = here[name].cases, [each for each in probes() if type(each).__name__.lower() == name]
    asked = case.prompt if isinstance(case.prompt, str) else case.prompt[-1]["content"]
    with served(local, poison=asked or case.choices[0][:40]) as service:
        endpoint = Endpoint(service.url, retries=0)
        found = audit(endpoint, [probe], cache=tmp_path)[name]
        service.manners.poison = ""
        again = audit(endpoint, [probe], cache=tmp_path)[name]
    assert "no answer in 1 tries" in found.rows[0]["why"]
    assert 1 <= found.unread < len(found.rows) - 1
    pairs = zip(found.rows, here[name].rows, strict=True)
    assert all(not is_read(row) or alike(row, its) for row, its in pairs)
    agrees(again, here[name])


def test_answers_with_settings_are_the_same_over_http(local):
    sampling = Sampling(12, temperature=0.9, top_k=9, top_p=0.9, min_p=0.02, seed=7, stop=("e", "\n"))
    prompts = ["The quick", "今天", "Where", *[case.prompt for case in fake.world_cases(WORLD)[:3]]]
    with served(local) as service:
        there = Endpoint(service.url).generate(prompts, sampling)
        streamed = ["".join(Endpoint(service.url).stream(prompt, sampling)) for prompt in prompts]
    direct = local.generate(prompts, sampling)
    assert [(a.text, a.finish, a.prompt_tokens, a.tokens) for a in there] == [
        (a.text, a.finish, a.prompt_tokens, a.tokens) for a in direct
    ]
    assert streamed == [a.text for a in direct]
