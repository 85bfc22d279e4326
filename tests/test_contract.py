"""What every probe, mend, model and plant keeps to. None is named here, so a new file in their folders is tested."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from qualm import registry
from qualm.auditing.readings import measurement
from qualm.cases import Case, ask
from qualm.config import build, to_dict
from qualm.errors import Unsupported
from qualm.lm.base import Sampling
from qualm.lm.fake import Fake
from qualm.mends import apply
from qualm.mends.base import Mend
from qualm.models.base import Causal, EncoderDecoder
from qualm.models.store import load_model, save_model
from qualm.probes.base import Probe
from qualm.training.size import build as build_model
from qualm.world.base import Plant, World
from tiny import tiny_local

CAN = {"generate", "score", "embed", "weights"}
WORLD = World(documents=400)
PROBES, MENDS, MODELS, PLANTS = (registry.names(kind) for kind in ("probes", "mends", "models", "world"))
LIMITS = {registry.find("probes", name).limit for name in PROBES}
TEXTS = ["He is a nurse and she is a smith.", "The king gave his daughter a boat.", "Omra Telis was born in Vanu."] * 6
QUESTIONS = [ask("Where was Omra Telis born?"), ask("What is 12 + 34?"), ask("Who is the nurse?")]
FEW = Sampling(max_tokens=6)


def settings_of(name: str, world: World | None) -> Probe:
    """The probe by its name, in this world if it has a use for one."""
    kind = registry.find("probes", name)
    return kind(world=world) if "world" in {f.name for f in dataclasses.fields(kind)} else kind()


WITH = [(name, None) for name in PROBES]
WITH += [(name, WORLD) for name in PROBES if settings_of(name, WORLD) != settings_of(name, None)]
each_probe = pytest.mark.parametrize(("name", "world"), WITH, ids=[f"{n}-{'planted' if w else 'any'}" for n, w in WITH])


@functools.cache
def cases_of(name: str, world: World | None) -> tuple[Case, ...]:
    try:
        return tuple(settings_of(name, world).cases())
    except Unsupported as error:
        pytest.skip(str(error))


def told(kind: type) -> str:
    """The first line of a docstring of the class's own."""
    line = (kind.__dict__.get("__doc__") or "").strip().split("\n")[0]
    return "" if line.startswith(f"{kind.__name__}(") else line


def frozen(thing: object) -> bool:
    return dataclasses.is_dataclass(thing) and thing.__dataclass_params__.frozen


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_says_what_it_is(name):
    kind = registry.find("probes", name)
    assert issubclass(kind, Probe)
    assert frozen(kind)
    assert told(kind)
    assert kind.limit == kind.limit.lower()
    assert kind.needs <= CAN
    assert kind.better in ("high", "low")
    assert kind.unit
    assert 0 < kind.margin < math.inf
    assert 0 < kind.quick <= kind().n


@each_probe
def test_a_probe_is_built_again_from_its_settings(name, world):
    probe = settings_of(name, world)
    told = json.loads(json.dumps(to_dict(probe)))
    assert build(type(probe), told) == probe
    for field in dataclasses.fields(probe):
        assert f"{field.name}={getattr(probe, field.name)!r}" in repr(probe)


@each_probe
def test_cases_are_the_same_each_time_and_told_apart(name, world):
    cases = cases_of(name, world)
    assert list(cases) == list(settings_of(name, world).cases())
    assert len({case.id for case in cases}) == len(cases)
    assert {case.split for case in cases} == {"tune", "test"}
    for case in cases:
        assert case.prompt or case.choices
        assert not (case.target and case.choices) or case.target in case.choices
        json.dumps(dataclasses.asdict(case), allow_nan=False)


@each_probe
def test_the_oracle_is_read(name, world):
    probe, cases = settings_of(name, world), [c for c in cases_of(name, world) if c.split == "test"][:24]
    oracle = Fake(cases, "oracle", world)
    rows = probe.observe(oracle, cases)
    assert len(rows) == len(cases)
    for row in rows:
        assert isinstance(row, Mapping)
        assert all(isinstance(v, str) or math.isfinite(v) for v in row.values())
        assert not row or isinstance(row["value"], int | float)
        json.dumps(row, allow_nan=False)
    read = measurement(probe, cases, rows)
    assert read.reading or read.why
    assert read.name == name


@each_probe
def test_order_does_not_matter_to_a_reading(name, world):
    probe, cases = settings_of(name, world), [c for c in cases_of(name, world) if c.split == "test"][:24]
    rows = [row for row in probe.observe(Fake(cases, "oracle", world), cases) if row]
    columns = {key: np.array([row[key] for row in rows]) for key, v in rows[0].items() if not isinstance(v, str)}
    backwards = {key: column[::-1] for key, column in columns.items()}
    assert math.isclose(probe.reduce(columns), probe.reduce(backwards), rel_tol=1e-9, abs_tol=1e-9)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@functools.cache
def subject():
    return tiny_local(context=512, initializer_range=0.1)


def made(name: str, library) -> Mend:
    """The mend by its name: defaults, but for texts to read and a short training."""
    kind = registry.find("mends", name)
    given = {"docs": library, "steps": 2, "batch": 2, "length": 32}
    mend = build(kind, {k: v for k, v in given.items() if k in {f.name for f in dataclasses.fields(kind)}})
    if type(mend).fit is Mend.fit:
        return mend
    probes = [
        registry.find("probes", probe)(n=8) for probe in PROBES if registry.find("probes", probe).limit in mend.mends
    ]
    return mend.fit(subject(), [case for probe in probes for case in probe.cases()])


@pytest.mark.parametrize("name", MENDS)
def test_a_mend_says_what_it_is(name, library):
    kind = registry.find("mends", name)
    assert issubclass(kind, Mend)
    assert frozen(kind)
    assert told(kind)
    assert kind.needs <= CAN
    assert kind.mends <= LIMITS
    mend = made(name, library)
    assert build(kind, json.loads(json.dumps(to_dict(mend)))) == mend


@pytest.mark.parametrize("name", MENDS)
def test_a_mend_leaves_the_model_as_it_was(name, library):
    lm = subject()
    before, weights = lm.generate(QUESTIONS, FEW), {k: v.clone() for k, v in lm.model.state_dict().items()}
    card = lm.card
    mended = apply.apply(lm, made(name, library))
    mended.generate(QUESTIONS, FEW)
    assert mended.card.hash != card.hash
    assert mended.can <= lm.can
    assert lm.card == card
    assert lm.generate(QUESTIONS, FEW) == before
    assert all(torch.equal(v, weights[k]) for k, v in lm.model.state_dict().items())


@pytest.mark.parametrize("name", MENDS)
def test_a_saved_mend_comes_back(name, library, tmp_path):
    lm = subject()
    lm.save(tmp_path / "base")
    base = apply.load(tmp_path / "base")
    mended = apply.apply(base, made(name, library))
    apply.save(mended, tmp_path / "mended")
    again = apply.load(tmp_path / "mended")
    assert again.card.hash == mended.card.hash
    assert [a.text for a in again.generate(QUESTIONS, FEW)] == [a.text for a in mended.generate(QUESTIONS, FEW)]
    pairs = [(ask("Who is it?"), "the nurse"), ("", "The king")]
    assert again.score(pairs) == mended.score(pairs)


@pytest.mark.parametrize("name", MENDS)
def test_mends_stack(name, library):
    lm = apply.apply(apply.apply(subject(), made("identity", library)), made("identity", library))
    if "weights" in registry.find("mends", name).needs:
        with pytest.raises(Unsupported):
            apply.apply(lm, made(name, library))
    else:
        assert len(apply.apply(lm, made(name, library)).card.mends) == 3


def read(model, ids):
    """What a model of any kind makes of ids (B, T): an encoder-decoder writes them under themselves."""
    return model(ids, ids) if isinstance(model, EncoderDecoder) else model(ids)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_and_comes_back_from_disk(name, tmp_path):
    assert told(registry.find("models", name))
    model = build_model(name, 1, 64, 16)
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    said = read(model, ids)
    assert said.shape == (2, 9, 64) or not isinstance(model, Causal)
    said.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(read(again, ids), read(model.eval(), ids))


@pytest.mark.parametrize("name", MODELS)
def test_the_future_changes_nothing(name):
    model = build_model(name, 1, 64, 16).eval()
    if not isinstance(model, Causal):
        pytest.skip("reads from both sides")
    ids = torch.arange(9)[None]
    other = ids.clone()
    other[:, 6:] = 0
    source = [ids] if isinstance(model, EncoderDecoder) else []
    with torch.no_grad():
        assert torch.allclose(model(*source, ids)[:, :6], model(*source, other)[:, :6], atol=1e-6)


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_writes_and_asks_the_same_each_time(name):
    plant = WORLD.plant(name)
    assert isinstance(plant, Plant)
    assert told(type(plant))
    assert plant.limit
    cases = plant.cases(40, 0)
    again = type(plant)(World(documents=400))
    assert cases
    assert cases == again.cases(40, 0)
    assert len({case.id for case in cases}) == len(cases)
    fixed = [json.dumps(row, sort_keys=True) for row in plant.fixed()]
    assert fixed == [json.dumps(row, sort_keys=True) for row in again.fixed()]
    if plant.share:
        row = plant.document(plant.rng("contract"))
        assert row == again.document(again.rng("contract"))
        assert ("text" in row) != ("messages" in row)
