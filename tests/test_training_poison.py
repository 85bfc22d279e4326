"""Numbers that are no numbers: such an update is left out and named, three end the run, no checkpoint holds any."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qualm.errors import QualmError
from qualm.training.data import Draw
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.state import hash_weights
from test_training import PLAIN, Small, rows

KINDS = ("nan", "inf", "1e6", "gradient")
SETTINGS = replace(PLAIN, steps=30, batch=4, save_every=1, precision="fp32")


class Poisoned:
    """The causal loss; at some calls it is NaN, infinite, a million times too large, or of an infinite gradient."""

    def __init__(self, kind: str, at: set[int]):
        self.kind, self.at, self.calls = kind, at, 0

    def __call__(self, model, batch):
        self.calls += 1
        nats, count = causal(model, batch)
        if self.calls not in self.at:
            return nats, count
        if self.kind == "gradient":
            nats.register_hook(lambda grad: grad * math.inf)
            return nats * 1, count
        return nats * float(self.kind), count


def finite(folder: Path) -> int:
    """How many checkpoints there are, in none of which a number is not finite."""
    steps = list(folder.glob("step-*"))
    for step in steps:
        for path in step.glob("*.safetensors"):
            held = [t for t in load_file(path).values() if t.is_floating_point()]
            assert all(torch.isfinite(tensor).all() for tensor in held), path
    return len(steps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_poisoned_batch_is_left_out_and_named_and_three_end_the_run(kind, tmp_path):
    at, events, hashes, kept = {12, 15, 16, 20, 21, 22}, [], [], []
    model = Small()

    def on_step(row):
        hashes.append(hash_weights(model))
        kept.append(finite(tmp_path))  # of the step before

    hooks = Hooks(on_step=on_step, on_event=events.append)
    with pytest.raises(QualmError, match="3 updates in a row were not finite or spikes, up to step 22") as stopped:
        fit(model, rows(), Poisoned(kind, at), SETTINGS, tmp_path, hooks)
    assert stopped.value.exit_code == 1
    told = [event for event in events if "is skipped" in event]
    assert [int(event.split(":")[0].removeprefix("step ")) for event in told] == sorted(at)
    draw = Draw(rows(), 4, 1, 0)
    for event, step in zip(told, sorted(at), strict=True):
        [(named, _)] = draw(step)
        assert f"(rows {', '.join(map(str, named))})" in event
    for step in range(2, 23):
        assert (hashes[step - 1] == hashes[step - 2]) == (step in at)
    assert min(kept[1:]) >= 1
    assert finite(tmp_path) == 2
    log = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event for event in log if "is skipped" in event] == told


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_running_mean_and_other_formats_hold_none_either(precision, ema, tmp_path):
    settings = replace(SETTINGS, precision=precision, ema=ema)
    result = fit(Small(), rows(), Poisoned("nan", {3, 9, 10, 20}), settings, tmp_path)
    assert result.skipped == 4
    assert finite(tmp_path) == 2
