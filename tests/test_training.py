"""The loop: what a step computes, when it stops, and what it does with numbers that are not finite."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qualm.errors import InputError, QualmError, Stopped, UsageError
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.training.data import Draw, TensorRows, order
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings, rate_at, rate_for
from qualm.training.state import weights

PLAIN = TrainSettings(steps=1, schedule="constant", warmup=0, lr=1e-2, clip=0, threads=1)


class Small(nn.Module):
    """Predicts from the last token alone."""

    def __init__(self, vocab: int = 20, width: int = 8):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embed = nn.Embedding(vocab, width)
        self.out = nn.Linear(width, vocab)
        for weight in self.parameters():
            weight.data.normal_(0, 0.5, generator=generator)

    def hidden(self, ids):
        return torch.tanh(self.embed(ids))

    def head(self, hidden):
        return self.out(hidden)


def rows(count: int = 64, length: int = 9, vocab: int = 20) -> TensorRows:
    ids = torch.randint(vocab, (count, length), generator=torch.Generator().manual_seed(2))
    ids[:, 1:] = torch.where(
        torch.rand(ids[:, 1:].shape, generator=torch.Generator().manual_seed(3)) < 0.7, ids[:, :1], ids[:, 1:]
    )
    return TensorRows(ids)


def ragged(count: int = 64) -> TensorRows:
    """Rows with very different numbers of targets, so that a mean of means is not the mean."""
    data = rows(count).rows.clone()
    for i in range(count):
        data[i, 2 + i % 7 :] = -100
    return TensorRows(data)


# -- a step


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 16), (2, 8), (8, 2)])
def test_accumulated_steps_equal_one_large_batch(batch, accumulate):
    settings = replace(PLAIN, steps=5, clip=0.5)
    whole, parts, seen = Small(), Small(), ([], [])
    fit(whole, ragged(), causal, replace(settings, batch=16), hooks=Hooks(on_step=seen[0].append))
    accumulated = replace(settings, batch=batch, accumulate=accumulate)
    fit(parts, ragged(), causal, accumulated, hooks=Hooks(on_step=seen[1].append))
    for a, b in zip(*seen, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["norm"] == pytest.approx(b["norm"], rel=1e-5)
        assert a["tokens"] == b["tokens"]
    for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [0.3, 10.0])
def test_a_step_is_the_textbook_one(clip):
    """Against torch's own mean loss, clipping and AdamW, written out."""
    data, ours, theirs = ragged(), Small(), Small()
    settings = replace(PLAIN, steps=4, batch=8, clip=clip, weight_decay=0.2)
    fit(ours, data, causal, settings)
    matrices = [theirs.embed.weight, theirs.out.weight]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": [theirs.out.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    draw = Draw(data, 8, 1, 0)
    for step in range(1, 5):
        ((places, _),) = draw(step)
        batch = data.rows[places]
        logits = theirs.head(theirs.hidden(batch[:, :-1].clamp(min=0)))
        nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-100).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "step", "share"),
    [
        (TrainSettings(steps=100, warmup=0.1), 1, 0.1),
        (TrainSettings(steps=100, warmup=0.1), 10, 1.0),
        (TrainSettings(steps=100, warmup=0.1), 55, 0.55),
        (TrainSettings(steps=100, warmup=0.1), 100, 0.1),
        (TrainSettings(steps=100, warmup=0, min_lr=0), 50, 0.5),
        (TrainSettings(steps=100, warmup=0, schedule="linear"), 50, 0.55),
        (TrainSettings(steps=100, warmup=0, schedule="constant"), 100, 1.0),
        (TrainSettings(steps=1, warmup=0.03), 1, 1.0),
        (TrainSettings(steps=2, warmup=1), 2, 1.0),
    ],
)
def test_the_schedule_has_these_values(settings, step, share):
    assert rate_at(step, settings.steps, 2e-3, settings) == pytest.approx(2e-3 * share)


def test_the_default_rate_falls_with_size():
    assert rate_for(1_200_000) == pytest.approx(3e-3)
    assert rate_for(124_000_000) == pytest.approx(6.4e-4, rel=0.01)


@pytest.mark.parametrize("make", [Llama, Gpt])
def test_one_batch_can_be_learnt_by_heart(make):
    if make is Llama:
        config = LlamaConfig(32, 32, 64, 2, 2, tie_word_embeddings=True, initializer_range=0.15)
    else:
        config = GptConfig(32, 32, 2, 2, n_positions=16, initializer_range=0.15)
    ids = torch.randint(32, (4, 13), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = torch.arange(4)  # or the rows could not be told apart
    result = fit(make(config), TensorRows(ids), causal, TrainSettings(steps=250, batch=4, lr=1e-2, weight_decay=0))
    assert result.loss < 0.01


# -- what is drawn


def test_every_row_is_drawn_once_an_epoch_in_another_order_each_time():
    draw = Draw(rows(37), batch=5, accumulate=3, seed=4)
    drawn = np.concatenate([part for step in range(1, 200) for part, _ in draw(step)])
    for epoch in range(len(drawn) // 37):
        assert sorted(drawn[epoch * 37 : (epoch + 1) * 37]) == list(range(37))
    assert drawn[:37].tolist() != drawn[37:74].tolist()
    assert order(37, 4, 0).tolist() == drawn[:37].tolist()
    assert order(37, 5, 0).tolist() != order(37, 4, 0).tolist()


def test_a_draw_depends_on_the_step_alone():
    forwards, other = Draw(rows(10), 4, 2, 0), Draw(rows(10), 4, 2, 0)
    kept = {step: np.concatenate(list(forwards(step)), 1).tolist() for step in range(1, 30)}
    for step in (29, 3, 17, 1):
        assert np.concatenate(list(other(step)), 1).tolist() == kept[step]


def test_a_batch_may_be_larger_than_the_data():
    ((drawn, _),) = Draw(rows(3), batch=8, accumulate=1, seed=0)(1)
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]


def test_epochs_become_steps():
    assert TrainSettings(epochs=2, batch=8, accumulate=2).total(100) == 13
    with pytest.raises(UsageError, match="how long"):
        TrainSettings().total(100)


# -- settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch": 0}, "batch"),
        ({"lr": -1.0}, "lr"),
        ({"warmup": 1.5}, "warmup"),
        ({"steps": 5, "epochs": 1.0}, "both given"),
        ({"lr": math.inf}, "lr"),
        ({"clip": math.nan}, "clip"),
    ],
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(UsageError, match=named):
        TrainSettings(**settings)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(InputError, match="no rows"):
        fit(Small(), TensorRows(torch.zeros(0, 5, dtype=torch.long)), causal, PLAIN)
    with pytest.raises(InputError, match="no weight"):
        fit(Small().requires_grad_(False), rows(), causal, PLAIN)


# -- validation


@pytest.mark.parametrize("kept_on_disk", [True, False])
def test_early_stopping_keeps_the_best_weights(kept_on_disk, tmp_path):
    readings = iter([5.0, 6.0, 6.0, 2.0, 4.0, 2.0, 6.0, 1.0])
    at_reading = []

    def validate(model):
        assert not model.training
        at_reading.append(model.out.weight.detach().clone())
        return next(readings)

    model, settings = Small(), replace(PLAIN, steps=100, eval_every=2, save_every=3, patience=3)
    result = fit(model, rows(), causal, settings, tmp_path if kept_on_disk else None, Hooks(validate=validate))
    assert (result.best, result.best_step, result.steps) == (2.0, 8, 14)
    assert result.validations == ((2, 5.0), (4, 6.0), (6, 6.0), (8, 2.0), (10, 4.0), (12, 2.0), (14, 6.0))
    assert torch.equal(model.out.weight, at_reading[3])
    assert not torch.equal(model.out.weight, at_reading[-1])
    assert model.training


def test_without_validation_the_last_weights_stay():
    seen, model = [], Small()
    result = fit(
        model,
        rows(),
        causal,
        replace(PLAIN, steps=3),
        hooks=Hooks(on_step=lambda r: seen.append(model.out.weight.clone())),
    )
    assert torch.equal(model.out.weight, seen[-1])
    assert result.best is None


# -- the caller's state


def test_the_caller_keeps_its_random_state_and_threads():
    model = Small()
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(model, rows(), causal, replace(PLAIN, steps=2, threads=threads + 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_frozen_weights_stay():
    model = Small()
    model.embed.requires_grad_(False)
    before = model.embed.weight.clone()
    fit(model, rows(), causal, replace(PLAIN, steps=3))
    assert torch.equal(model.embed.weight, before)


# -- numbers that are not finite


class Spoiled:
    """The causal loss, made NaN or infinite, in value or in gradient, at some calls."""

    def __init__(self, at: dict[int, str]):
        self.at, self.calls = at, 0

    def __call__(self, model, batch):
        self.calls += 1
        nats, count = causal(model, batch)
        spoil = self.at.get(self.calls)
        if spoil == "gradient":
            return nats + (model.out.bias * 0).sqrt().sum(), count  # finite, but its slope at 0 is not
        return (nats * float(spoil) if spoil else nats), count


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_and_told(kind, tmp_path):
    rows_seen, events, kept = [], [], []
    model = Small()

    def on_step(row):
        rows_seen.append(row)
        kept.append(model.out.weight.detach().clone())

    hooks = Hooks(on_step=on_step, on_event=events.append)
    result = fit(model, rows(), Spoiled({3: kind, 5: kind, 6: kind}), replace(PLAIN, steps=8), tmp_path, hooks)
    assert result.skipped == 3
    assert [r["step"] for r in rows_seen if r["loss"] is None] == [3, 5, 6]
    assert torch.equal(kept[1], kept[2])
    assert not torch.equal(kept[2], kept[3])
    assert all(torch.isfinite(w).all() for w in weights(model).values())
    assert [e.split(":")[0] for e in events] == ["step 3", "step 5", "step 6"]


def test_three_in_a_row_stop_the_run_and_the_last_checkpoint_stays(tmp_path):
    settings = replace(PLAIN, steps=20, save_every=2)
    with pytest.raises(QualmError, match="up to step 9") as error:
        fit(Small(), rows(), Spoiled({7: "nan", 8: "nan", 9: "nan"}), settings, tmp_path)
    assert error.value.exit_code == 1
    assert "lower the learning rate" in str(error.value)  # in another folder: here the settings are fixed
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-000006", "step-000008"}
    healed = fit(Small(), rows(), causal, settings, tmp_path)  # goes on from what was kept
    assert healed.steps == 20


def test_weights_that_overflowed_never_reach_a_checkpoint(tmp_path):
    def explode(row):
        if row["step"] == 5:
            model.out.weight.data[0, 0] = math.inf

    model = Small()
    with pytest.raises(QualmError, match=r"out.weight is not finite"):
        fit(model, rows(), causal, replace(PLAIN, steps=9, save_every=1), tmp_path, Hooks(on_step=explode))
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-000003", "step-000004"}


def test_a_huge_loss_is_clipped_and_goes_on():
    result = fit(Small(), rows(), Spoiled({3: "1e6"}), replace(PLAIN, steps=8, clip=1.0))
    assert result.skipped == 0
    assert result.loss < 4


# -- stopping on request


def test_a_stop_is_after_the_step_and_names_what_to_do(tmp_path):
    taken = []
    hooks = Hooks(on_step=taken.append, should_stop=lambda: len(taken) == 4)
    with pytest.raises(Stopped, match="after step 4 of 20") as error:
        fit(Small(), rows(), causal, replace(PLAIN, steps=20), tmp_path, hooks)
    assert error.value.exit_code == 75
    assert "run it again" in str(error.value)
    assert (tmp_path / "step-000004" / "manifest.json").exists()
