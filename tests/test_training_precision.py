"""Formats of arithmetic, layers compiled or computed twice: what is learnt stays the same, and is resumed exactly."""

import json
from dataclasses import replace

import pytest
import torch

from qualm import registry
from qualm.errors import QualmError, Stopped, UsageError
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.training import state
from qualm.training.data import TensorRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.objectives import OBJECTIVES
from qualm.training.precision import Precision, choose, layers, prepared
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings
from qualm.training.size import build

CPU = torch.device("cpu")
VOCAB = 24
PLAIN = TrainSettings(steps=12, batch=4, lr=1e-2, threads=1, warmup=0, schedule="constant", save_every=3)


def llama(**config) -> Llama:
    return Llama(LlamaConfig(VOCAB, 16, 32, 2, 2, tie_word_embeddings=True, initializer_range=0.2, **config))


def rows() -> TensorRows:
    ids = torch.randint(VOCAB, (32, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 1::2] = ids[:, :-1:2]
    return TensorRows(ids)


# -- formats


def test_a_cpu_decides_by_a_probe_and_says_so(monkeypatch):
    monkeypatch.setattr("qualm.training.precision.choose", choose)
    made, events = Precision("auto", CPU), []
    assert made.name in ("fp32", "bf16")
    assert "times" in made.why
    fit(llama(), rows(), causal, replace(PLAIN, steps=1, threads=0), hooks=Hooks(on_event=events.append))
    assert events == [f"precision: {made.name}, as {made.why}"]


def test_a_probe_decides_by_what_is_faster(monkeypatch):
    for half, name in ((0.1, "bf16"), (0.9, "fp32"), (9.0, "fp32")):
        times = {torch.float32: 1.0, torch.bfloat16: half}
        monkeypatch.setattr("qualm.training.precision._seconds", lambda dtype, threads, times=times: times[dtype])
        assert choose(CPU)[0] == name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_a_format_learns_and_resumes_bit_for_bit(precision, tmp_path):
    settings = replace(PLAIN, precision=precision)
    whole, again, plain = llama(), llama(), llama()
    result = fit(whole, rows(), causal, settings, tmp_path / "whole")
    exact = fit(plain, rows(), causal, replace(PLAIN, precision="fp32"))
    assert result.loss == pytest.approx(exact.loss, rel=0.05)
    assert result.loss != exact.loss
    assert all(weight.dtype == torch.float32 for weight in whole.parameters())
    stops = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        fit(llama(), rows(), causal, settings, tmp_path / "cut", Hooks(should_stop=lambda: next(stops)))
    fit(again, rows(), causal, settings, tmp_path / "cut")
    assert state.hash_weights(again) == state.hash_weights(whole)


def test_another_format_is_refused_and_an_open_one_takes_what_was_used(tmp_path):
    with pytest.raises(Stopped):
        stop = Hooks(should_stop=lambda: True)
        fit(llama(), rows(), causal, replace(PLAIN, precision="bf16"), tmp_path, stop)
    with pytest.raises(QualmError, match="precision was bf16 and is now fp32"):
        fit(llama(), rows(), causal, replace(PLAIN, precision="fp32"), tmp_path)
    events = []
    fit(llama(), rows(), causal, replace(PLAIN, precision="auto"), tmp_path, Hooks(on_event=events.append))
    facts = json.loads((tmp_path / "step-000012" / "training.json").read_text())
    assert facts["machine"]["precision"] == "bf16"
    assert not any("does not go on" in event for event in events)


def test_a_loss_scaled_too_far_is_scaled_back_and_no_update_is_lost(monkeypatch):
    monkeypatch.setattr("qualm.training.precision.FIRST", 2.0**30)
    skipped = []
    hooks = Hooks(on_step=lambda row: skipped.append(row["loss"] is None))
    result = fit(llama(), rows(), causal, replace(PLAIN, steps=40, precision="fp16"), hooks=hooks)
    assert 3 < result.skipped < 25  # more in a row than a run bears otherwise
    assert all(skipped[:4])
    assert not any(skipped[-5:])
    assert result.loss < 3.2


def test_a_scale_rises_after_many_good_updates_and_is_kept():
    made = Precision("fp16", CPU)
    before = made.scale
    assert made.settle(good=False)
    assert made.scale == before / 2
    for _ in range(1000):
        assert not made.settle(good=True)
    assert made.scale == before
    other = Precision("fp16", CPU)
    other.restore({"scaler": torch.tensor([8.0, 3])})
    assert (other.scale, other.good) == (8.0, 3)
    assert not Precision("bf16", CPU).settle(good=False)


# -- layers computed twice, and compiled


class Kept:
    """Bytes that the backward pass keeps."""

    def __init__(self):
        self.seen: dict[int, int] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.seen[storage.data_ptr()] = storage.nbytes()
        return tensor


def gradients(model, recompute: bool) -> tuple[float, list[torch.Tensor], int]:
    model.zero_grad()
    torch.manual_seed(0)
    kept = Kept()
    with prepared(model, False, recompute), torch.autograd.graph.saved_tensors_hooks(kept, lambda t: t):
        nats, _ = causal(model, rows().batch(*[torch.arange(16).numpy()] * 2))
    nats.backward()
    return nats.item(), [p.grad.clone() for p in model.parameters()], sum(kept.seen.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_computed_twice_have_the_same_gradients_and_keep_less(dropout):
    drops = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    model = Gpt(GptConfig(VOCAB, 32, 4, 2, 64, **drops)).train()
    nats, grads, kept = gradients(model, recompute=False)
    again, same, fewer = gradients(model, recompute=True)
    assert nats == pytest.approx(again, rel=1e-6)
    for a, b in zip(grads, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert fewer < 0.6 * kept
    assert not any("forward" in vars(layer) for layer in layers(model))


def families() -> list[str]:
    found = [(name, registry.find("models", name)) for name in registry.names("models")]
    return [name for name, kind in found if any(objective.fits(kind) for objective in OBJECTIVES.values())]


@pytest.mark.parametrize("family", families())
def test_every_family_trains_in_bf16_with_layers_computed_twice(family, notes, tmp_path):
    settings = replace(PLAIN, steps=2, batch=2, precision="bf16", recompute=bool(layers(build(family, 1, 300))))
    recipe = Recipe(size=1, family=family, length=24, vocab=300, validate=50, train=settings)
    result = train(notes, tmp_path / "half", recipe).result
    exact = train(notes, tmp_path / "whole", replace(recipe, train=replace(settings, precision="fp32"))).result
    assert result.best == pytest.approx(exact.best, rel=0.02)


def test_what_has_no_layers_is_said():
    model = build("rnn", 1, VOCAB)
    with pytest.raises(UsageError, match="no list of layers"):
        fit(model, rows(), causal, replace(PLAIN, recompute=True))
    assert len(layers(llama())) == 2
    assert len(layers(build("t5", 2, 300))) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:The .grad attribute")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the compiler's own doing
def test_compiled_layers_compute_the_same():
    plain, compiled = llama(), llama()
    fit(plain, rows(), causal, PLAIN)
    with prepared(compiled, True, False):
        assert all(layer._compiled_call_impl for layer in layers(compiled))
    fit(compiled, rows(), causal, replace(PLAIN, compile=True))
    assert not any(layer._compiled_call_impl for layer in layers(compiled))
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert list(plain.state_dict()) == list(compiled.state_dict())
