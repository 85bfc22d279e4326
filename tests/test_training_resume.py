"""A run that is stopped, killed or robbed of its disk goes on as if nothing had been; what does not fit is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from qualm import registry
from qualm.errors import InputError, QualmError, Stopped
from qualm.files import read_json, write_json
from qualm.models.llama import Llama, LlamaConfig
from qualm.training import state
from qualm.training.checkpoint import seal
from qualm.training.data import TensorRows, next_token
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings

busy = pytest.mark.timeout(1500)  # hundreds of short runs: half a minute on a quiet machine, far more on a busy one
SETTINGS = TrainSettings(steps=12, batch=4, accumulate=2, lr=1e-2, eval_every=4, save_every=3, threads=1)


class Net(nn.Module):
    linear_head = "out"

    def __init__(self):
        super().__init__()
        self.embed, self.drop, self.out = nn.Embedding(16, 8), nn.Dropout(0.2), nn.Linear(8, 16)

    def hidden(self, ids):
        return self.drop(torch.tanh(self.embed(ids)))

    def head(self, hidden):
        return self.out(hidden)


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def llama() -> nn.Module:
    return Llama(LlamaConfig(16, 32, 64, 2, 2, tie_word_embeddings=True))


def rows(seed: int = 1) -> TensorRows:
    return TensorRows(torch.randint(16, (30, 9), generator=torch.Generator().manual_seed(seed)))


def validate(model: nn.Module) -> float:
    with torch.no_grad():
        return float(causal(model, next_token(rows(2).rows))[0])


def log(folder: Path) -> list[tuple]:
    """The log without its clock."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [tuple(v for k, v in row.items() if k not in ("seconds", "tokens_per_second")) for row in read]


def final(model: nn.Module) -> str:
    return state.hash_weights(model)


# -- exact resume


@pytest.mark.parametrize("make", [net, llama])
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(make, tmp_path):
    whole = make()
    result = fit(whole, rows(), causal, SETTINGS, tmp_path / "whole", Hooks(validate))
    for stop in (1, 3, 4, 7, 11):
        folder, taken = tmp_path / str(stop), []
        hooks = Hooks(validate, taken.append, should_stop=lambda taken=taken, stop=stop: len(taken) == stop)
        with pytest.raises(Stopped):
            fit(make(), rows(), causal, SETTINGS, folder, hooks)
        torch.manual_seed(99)  # nothing of the caller's may matter
        torch.rand(stop)
        again = make()
        resumed = fit(again, rows(), causal, SETTINGS, folder, Hooks(validate))
        assert final(again) == final(whole)
        assert log(folder) == log(tmp_path / "whole")
        assert replace(resumed, seconds=0) == replace(result, seconds=0)


def test_the_comparison_would_see_a_random_state_that_was_not_kept(tmp_path, monkeypatch):
    whole = net()
    fit(whole, rows(), causal, SETTINGS, tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(net(), rows(), causal, SETTINGS, tmp_path / "cut", Hooks(should_stop=lambda: True))
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    again = net()
    fit(again, rows(), causal, SETTINGS, tmp_path / "cut")
    assert final(again) != final(whole)


def test_a_finished_run_is_not_run_again(tmp_path):
    model, again, taken = net(), net(), []
    fit(model, rows(), causal, SETTINGS, tmp_path, Hooks(validate))
    result = fit(again, rows(), causal, SETTINGS, tmp_path, Hooks(validate, taken.append))
    assert not taken
    assert result.steps == 12
    assert final(again) == final(model)


def test_rows_after_the_checkpoint_and_half_rows_are_cut_from_the_log(tmp_path):
    fit(net(), rows(), causal, SETTINGS, tmp_path / "whole", Hooks(validate))
    taken = []
    with pytest.raises(RuntimeError):
        fit(net(), rows(), causal, SETTINGS, tmp_path / "cut", Hooks(validate, lambda r: fail_at(r, 8, taken)))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert [row["step"] for row in taken][-1] == 8
    fit(net(), rows(), causal, SETTINGS, tmp_path / "cut", Hooks(validate))
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def fail_at(row, step: int, taken: list) -> None:
    taken.append(row)
    if row["step"] == step:
        raise RuntimeError("the power went")


# -- kills, deaths and full disks


@pytest.fixture(scope="module")
def crashes(tmp_path_factory):
    return crash(tmp_path_factory.mktemp("crashes"), trials=6)


def crash(place: Path, trials: int, name: str = "crashes.py") -> dict:
    memory = Path("/dev/shm")  # where there is one, the disk's speed does not matter
    if memory.is_dir() and os.access(memory, os.W_OK):
        place = memory / f"qualm-crashes-{os.getpid()}"
    place.mkdir(exist_ok=True)
    try:
        program = Path(__file__).with_name(name)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(program), str(place), str(trials)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(place)


def check_kills(kills: dict, least: int) -> None:
    assert kills["training"] >= least  # or the test would prove nothing
    assert kills["saving"] >= least
    assert kills["unequal"] == 0
    assert kills["unusable"] == 0
    assert kills["lost"] <= 8  # one interval between saves
    assert kills["orphans"] == 0


@busy
def test_killed_at_random_it_ends_as_if_left_alone(crashes):
    check_kills(crashes["kills"], 5)


@busy
def test_a_saver_that_writes_in_place_does_not_pass(crashes):
    naive = crashes["naive"]
    assert naive["training"] + naive["saving"] > 0
    assert naive["unusable"] + naive["unequal"] > 0


@busy
def test_death_at_any_point_of_a_save_leaves_the_old_or_the_new(crashes):
    faults = crashes["faults"]
    assert faults["points"] == sum(faults["calls"].values()) >= 20
    assert {"open", "write", "fsync", "rename", "replace", "unlink"} <= faults["calls"].keys()
    assert faults["fallen_back"] == 0  # never beyond the checkpoint before
    assert faults["unusable"] == faults["unequal"] == faults["orphans"] == 0


@busy
def test_a_failing_disk_at_any_point_of_a_save_is_said_and_hurts_nothing(crashes):
    """Full, broken, closed to us, or read-only, in turn."""
    check_faults(crashes["faults"], each=1)


def check_faults(faults: dict, each: int) -> None:
    assert faults["failed"] == each * faults["points"] >= 20 * each
    assert faults["unclear"] == faults["harmed"] == faults["unusable"] == faults["unequal"] == faults["orphans"] == 0


@pytest.mark.slow
@busy
def test_fifty_kills_and_each_error_at_each_point(tmp_path):
    happened = crash(tmp_path / "many", trials=15)
    assert sum(happened["kills"][where] for where in ("early", "training", "saving")) >= 50
    check_kills(happened["kills"], 10)
    check_faults(happened["faults"], each=4)


@pytest.mark.parametrize("every", [45, pytest.param(1, marks=pytest.mark.slow)])
@busy
def test_a_disk_that_fails_at_any_call_of_a_whole_training_is_said_and_hurts_nothing(every, tmp_path):
    found = crash(tmp_path / "disk", every, "crashes_disk.py")
    assert {"open", "write", "fsync", "rename", "replace", "mkdir", "chmod"} <= found["calls"].keys()
    assert found["failed"] + found["unmoved"] == -(-sum(found["calls"].values()) // every)
    assert found["failed"] > 9 * found["unmoved"]
    assert found["unclear"] == found["harmed"] == found["unequal"] == found["orphans"] == []


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
@busy
def test_every_family_killed_at_random_ends_as_if_left_alone(kills, tmp_path):
    happened = crash(tmp_path / "families", kills, "crashes_families.py")
    families, naive = happened["families"], happened["in place"]
    assert {name.split()[0] for name in families} == set(registry.names("models")) - {"bilstm"}  # learns no plain text
    assert "rnn stateful" in families
    for name, found in families.items():
        assert found["unequal"] == found["unusable"] == found["unloadable"] == 0, (name, found)
        assert found["training"] + found["saving"] > 0, (name, found)
    landed = {where: sum(found[where] for found in families.values()) for where in ("training", "saving")}
    assert landed["training"] >= 5  # or the test would prove nothing
    assert landed["saving"] >= (6 if kills == 2 else 10)
    assert naive["saving"] > 0
    assert naive["unloadable"] + naive["unusable"] + naive["unequal"] > 0  # writing in place does not pass


# -- what does not fit


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": replace(SETTINGS, lr=2e-2)}, r"settings.lr was 0.01 and is now 0.02"),
        ({"settings": replace(SETTINGS, seed=1)}, "settings.seed"),
        ({"settings": replace(SETTINGS, steps=13)}, "settings.steps"),
        ({"data": rows(5)}, "data.content"),
        ({"model": llama}, r"model\.\w+ was None"),
        ({"model": lambda: Net()}, "start.weights"),
    ],
)
def test_another_run_is_refused_with_the_field_that_changed(change, named, tmp_path):
    with pytest.raises(Stopped):
        fit(net(), rows(), causal, SETTINGS, tmp_path, Hooks(should_stop=lambda: True))
    made = {"settings": SETTINGS, "data": rows(), "model": net, **change}
    with pytest.raises(InputError, match=named) as error:
        fit(made["model"](), made["data"], causal, made["settings"], tmp_path)
    assert "step-000001" in error.value.where
    assert error.value.exit_code == 4


def test_other_threads_or_torch_are_refused_unless_asked_for(tmp_path):
    with pytest.raises(Stopped):
        fit(net(), rows(), causal, SETTINGS, tmp_path, Hooks(should_stop=lambda: True))
    with pytest.raises(QualmError, match="threads was 1 and is now 2"):
        fit(net(), rows(), causal, replace(SETTINGS, threads=2), tmp_path)
    facts = read_json(tmp_path / "step-000001" / "training.json")
    facts["machine"]["torch"] = "1.0"
    write_json(tmp_path / "step-000001" / "training.json", facts)
    seal(tmp_path / "step-000001")
    with pytest.raises(QualmError, match="torch was"):
        fit(net(), rows(), causal, SETTINGS, tmp_path)
    events = []
    fit(net(), rows(), causal, replace(SETTINGS, strict=False), tmp_path, Hooks(on_event=events.append))
    assert "does not go on bit for bit" in events[0]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QualmError, match="cannot save"):
        fit(net(), rows(), causal, SETTINGS, tmp_path / "file" / "run")


# -- what is kept


def test_the_last_two_and_the_best_are_kept(tmp_path):
    readings = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    settings = replace(SETTINGS, steps=20)
    model, best = net(), []

    def read(trained):
        best.append(state.hash_weights(trained))
        return next(readings)

    fit(model, rows(), causal, settings, tmp_path, Hooks(read))
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-000008", "step-000018", "step-000020"}
    assert final(model) == best[1]
    assert read_json(tmp_path / "step-000020" / "training.json")["progress"]["best_step"] == 8


def test_a_checkpoint_can_be_read_by_whoever_may_read_the_folder(tmp_path):
    fit(net(), rows(), causal, SETTINGS, tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "step-000012").iterdir()}
    assert modes == {(tmp_path / "step-000012").stat().st_mode & 0o666}
