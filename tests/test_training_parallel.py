"""Several processes make what one makes: the same losses, each row once; what ends one ends all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from qualm.cli import _launch
from qualm.cli.processes import Processes
from qualm.errors import MissingExtra, QualmError
from qualm.models.store import load_model
from qualm.training.parallel import Ranks

busy = pytest.mark.timeout(600)  # each process loads torch
RECIPE = "--size 30k --length 24 --vocab 300 --precision fp32 --threads 1 --batch 5 --eval-every 100 --save-every 20"
STEPS = 80


@pytest.fixture(scope="module")
def happened(tmp_path_factory):
    program = Path(__file__).with_name("ranks.py")
    command = [sys.executable, str(program), str(tmp_path_factory.mktemp("ranks") / "runs")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


# -- the same as on one process


@busy
@pytest.mark.parametrize("case", ["llama", "rnn", "bert", "few", "shard"])
def test_losses_and_norms_are_those_of_one_process(case, happened):
    """Batches of 5 over 2 processes (a state carried from batch to batch; rows without a target), of 2 over 3;
    weights spread over 2."""
    one, first, *others = happened["curves"][case]
    assert len(one) == len(first) == 17
    assert first[:-1] == pytest.approx(one[:-1], rel=1e-6)
    assert {weights[-1] for weights in others} == {first[-1]}  # the processes keep in step bit for bit
    assert first[:-1] != one[:-1] or case == "rnn"  # else only one was there: the order of a sum shows


@busy
@pytest.mark.parametrize("kind", ["plain", "shard"])
def test_noise_is_each_processs_own_and_comes_back(kind, happened):
    noise = happened["noise"][kind]
    assert noise["drawn"][0] != noise["drawn"][1]
    assert noise["rest"] == noise["whole"][6:]  # bit for bit from step 3 on


@busy
@pytest.mark.parametrize("kind", ["plain", "shard"])
def test_who_is_asked_to_stop_stops_all_after_the_same_step(kind, happened):
    noise = happened["noise"][kind]
    assert [told["code"] for told in noise["stopped"]] == [75, 75]
    assert all("stopped after step 3 of 8" in told["error"] for told in noise["stopped"])
    assert "step-000003" in noise["steps"]


# -- on another number of processes


@busy
@pytest.mark.parametrize("case", ["llama", "rnn", "shard"])
def test_two_then_one_then_two_processes_follow_the_curve_of_one(case, happened):
    told = happened["sizes"][case]
    assert len(told["one"]) == 30
    assert told["losses"] == pytest.approx(told["one"], rel=1e-4)


@busy
@pytest.mark.parametrize("case", ["llama", "shard"])
def test_every_row_is_seen_once_an_epoch_whatever_the_number_of_processes(case, happened):
    seen = Counter(map(tuple, happened["sizes"][case]["seen"]))
    assert set(seen.values()) == {1}
    assert Counter(epoch for epoch, _ in seen) == {0: 37, 1: 37, 2: 37, 3: 37, 4: 2}


@busy
def test_another_number_is_refused_with_the_words_to_type(happened):
    [told] = happened["sizes"]["llama"]["refused"]
    assert "world_size was 2 and is now 1" in told["error"]
    assert "say --nproc 2 again, or --no-strict" in told["error"]


# -- faults


@busy
@pytest.mark.parametrize("kind", ["killed", "killed_sharded"])
def test_a_killed_process_ends_the_others(kind, happened):
    told, nothing = happened["faults"][kind]
    assert nothing is None
    assert "another process of this run has ended" in told["error"]
    assert told["seconds"] < 30


@busy
def test_a_full_disk_is_told_of_and_ends_all(happened):
    first, other = happened["faults"]["full"]
    assert "No space left on device" in first["error"]
    assert "another process" in other["error"]


@busy
def test_processes_with_other_data_are_refused(happened):
    assert all("unlike settings, data or weights" in told["error"] for told in happened["faults"]["unlike"])


@busy
def test_what_cannot_be_spread_is_refused(happened):
    for of_a_family, with_settings in happened["faults"]["refused"]:
        assert "a Bert cannot be spread over processes; leave out --shard" in of_a_family
        assert "no ema" in with_settings


@busy
def test_a_number_that_is_none_on_one_process_stops_all_from_learning_it(happened):
    first, other = happened["faults"]["poison"]
    assert first
    assert all("the update is skipped (rows" in event for event in first)
    assert other == []  # one process speaks


# -- tuning


@busy
@pytest.mark.parametrize("case", ["classify", "seq2seq", "prefer"])
def test_tuning_on_two_processes_has_the_curve_of_one(case, happened):
    """An encoder's labels, an adapter, preferences; losses, norms and what validation reads at the end."""
    told = happened["tunings"][case]
    for kind in ("two", "shard"):
        if kind in told:
            first, other = told[kind]
            assert len(first) == len(told["one"]) == 18
            assert first[:-1] == pytest.approx(told["one"][:-1], rel=1e-5)
            assert other[-1] == first[-1]
    assert "shard" in told or case == "classify"  # an encoder is not spread


@busy
@pytest.mark.parametrize("case", ["classify", "seq2seq", "prefer"])
def test_tuning_on_two_processes_goes_on_bit_for_bit(case, happened):
    told = happened["tunings"][case]
    assert [stopped["code"] for stopped in told["stopped"]] == [75, 75]
    assert told["rest"][0] == told["two"][0][6:]


# -- the command line


def begin(notes: Path, folder: Path, *words: str, by: tuple[str, ...] = ("-m", "qualm")) -> subprocess.Popen:
    command = [sys.executable, *by, "train", str(notes), "-o", str(folder), "--steps", str(STEPS), *RECIPE.split()]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *words], env=environment(), stdout=pipe, stderr=pipe, text=True)


def log(folder: Path) -> list[tuple]:
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["norm"], row.get("validation")) for row in rows]


@pytest.fixture(scope="module")
def alone(notes, tmp_path_factory):
    """A model that two processes made, undisturbed."""
    folder = tmp_path_factory.mktemp("alone") / "model"
    run = begin(notes, folder, "--nproc", "2")
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert out.strip() == str(folder)
    assert err.count("documents to learn from") == 1  # one process speaks
    return folder


def kill_one(run: subprocess.Popen, folder: Path) -> None:
    """SIGKILL to one of the processes, once there is a checkpoint."""
    until = time.monotonic() + 200
    while not (folder / "run" / "step-000020").exists():
        assert time.monotonic() < until
        assert run.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


@busy
@linux
def test_killed_and_restarted_by_itself_it_makes_the_same_bit_for_bit(alone, notes, tmp_path):
    run = begin(notes, tmp_path / "model", "--nproc", "2", "--restarts", "1")
    kill_one(run, tmp_path / "model")
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "a process was killed (signal 9); starting again (0 more if need be)" in err
    assert "goes on from step" in err
    assert log(tmp_path / "model") == log(alone)
    first, second = (folder / "model.safetensors" for folder in (alone, tmp_path / "model"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@busy
@linux
def test_killed_without_restarts_it_ends_with_one_line_and_goes_on_when_run_again(alone, notes, tmp_path):
    run = begin(notes, tmp_path / "model", "--nproc", "2", "-q")
    kill_one(run, tmp_path / "model")
    began = time.monotonic()
    _, err = run.communicate(timeout=300)
    assert time.monotonic() - began < 60
    assert run.returncode == 1
    assert err == "qualm: a process was killed (signal 9); run it again to go on from the last checkpoint\n"
    run = begin(notes, tmp_path / "model", by=("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "qualm"))
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert log(tmp_path / "model") == log(alone)


@pytest.mark.slow
@busy
@linux
def test_sigterm_stops_all_after_saving_and_another_number_needs_a_word(alone, notes, tmp_path):
    run = begin(notes, tmp_path / "model", "--nproc", "2", "-q")
    while not (tmp_path / "model" / "run" / "step-000020").exists():
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 75
    assert err.count("qualm: stopped after step") == 1
    run = begin(notes, tmp_path / "model", "--no-strict", "--json")
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert json.loads(out)["steps"] == STEPS
    for mine, theirs in zip(log(tmp_path / "model"), log(alone), strict=True):
        assert mine[1] == pytest.approx(theirs[1], rel=1e-4)


@busy
def test_a_sharded_checkpoint_is_a_model_folder(alone, notes, tmp_path):
    run = begin(notes, tmp_path / "model", "--nproc", "2", "--shard", "-q")
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert [row[1] for row in log(tmp_path / "model")] == pytest.approx([row[1] for row in log(alone)], rel=1e-5)
    steps = sorted((tmp_path / "model" / "run").glob("step-*"))
    assert len(list(steps[-1].glob("moments-*"))) == 2  # a file a process
    last, made, other = (load_model(folder).state_dict() for folder in (steps[-1], tmp_path / "model", alone))
    assert all(torch.equal(last[name], made[name]) for name in made)
    assert all(torch.allclose(other[name], made[name], rtol=1e-3, atol=1e-4) for name in made)


@pytest.mark.slow
@busy
@linux
def test_a_spread_model_that_was_killed_goes_on_bit_for_bit(notes, tmp_path):
    whole = begin(notes, tmp_path / "whole", "--nproc", "2", "--shard", "-q")
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    run = begin(notes, tmp_path / "model", "--nproc", "2", "--shard", "--restarts", "1")
    kill_one(run, tmp_path / "model")
    began = time.monotonic()
    _, err = run.communicate(timeout=300)
    assert time.monotonic() - began < 60
    assert run.returncode == 0, err
    assert "starting again" in err
    assert log(tmp_path / "model") == log(tmp_path / "whole")
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "model")]
    assert made[0] == made[1]


@pytest.mark.slow
@busy
@linux
def test_a_tuning_on_two_processes_that_was_killed_goes_on_bit_for_bit(small_model, tmp_path):
    rows = [{"prompt": f"Ana has {i}", "completion": f" red hens and {i % 3} owls"} for i in range(80)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--steps", "80", "--save-every", "20", "--eval-every", "40", "--threads", "1", "--precision", "fp32"]

    def start(folder: Path, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "qualm", "tune", str(small_model), str(tmp_path / "rows.jsonl")]
        command += ["--task", "seq2seq", "-o", str(folder), "--nproc", "2", *words, *more]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    out, err = whole.communicate(timeout=300)
    assert (whole.returncode, out.strip()) == (0, str(tmp_path / "whole")), err
    run = start(tmp_path / "model", "--restarts", "1")
    kill_one(run, tmp_path / "model")
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "starting again" in err
    assert log(tmp_path / "model") == log(tmp_path / "whole")
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "model")]
    assert made[0] == made[1]


HUNG_UP = """
from pathlib import Path
from qualm.cli._launch import joined
from qualm.training.parallel import Ranks

with joined():
    import torch.distributed.nn.functional  # its defaults are the group that there is when it is imported

    Ranks().wait()
print(*(thread.joinpath("comm").read_text() for thread in Path("/proc/self/task").iterdir()))
"""


@busy
@linux
def test_no_thread_of_the_group_outlives_it():
    """One that lets go of a tensor while Python ends aborts the process, with all its work done."""
    store = _launch._store()
    shared = environment() | {"MASTER_ADDR": _launch.HERE, "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    command = [sys.executable, "-c", HUNG_UP]
    runs = [subprocess.Popen(command, env=shared | {"RANK": r}, stdout=subprocess.PIPE, text=True) for r in "01"]
    for run in runs:
        names, _ = run.communicate(timeout=300)
        assert run.returncode == 0
        assert "python" in names
        assert "gloo" not in names


@busy
def test_what_all_processes_meet_is_told_once(tmp_path):
    run = begin(tmp_path / "nowhere", tmp_path / "model", "--nproc", "2")
    _, err = run.communicate(timeout=300)
    assert run.returncode == 4
    assert err.count("qualm:") == 1
    assert "no such file or folder" in err


def test_wrong_numbers_and_torches_without_gloo_are_refused(qualm, monkeypatch):
    assert qualm("train", "notes", "-o", "model", "--nproc", "0").code == 2
    assert qualm("train", "notes", "-o", "model", "--nproc", "2", "--warmup", "3").code == 2
    monkeypatch.setattr(_launch.dist, "is_gloo_available", lambda: False)
    told = qualm("train", "notes", "-o", "model", "--nproc", "2")
    assert told.code == MissingExtra.exit_code
    assert "no gloo; say --nproc 1" in told.err


def test_no_port_to_meet_on_is_said(qualm, monkeypatch):
    def no_port(*_: object, **__: object) -> None:
        raise RuntimeError("the server socket has failed to listen\nand a stack")

    monkeypatch.setattr(_launch.dist, "TCPStore", no_port)
    with pytest.raises(QualmError, match=r"no port to meet on \(the server socket has failed to listen\)"):
        _launch.start(Processes(nproc=2), [])
    assert qualm("train", "notes", "-o", "model", "--nproc", "2").code == 1


def test_half_an_environment_of_torchrun_is_refused(qualm, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = qualm("train", "notes", "-o", "model")
    assert told.code == 2
    assert "start with torchrun, or unset it" in told.err


def test_one_process_agrees_with_itself():
    ranks = Ranks()
    ranks.wait()
    ranks.agree("anything")
    assert ranks.first
    assert ranks.same(3) == 3
    assert not ranks.any(False)
    assert ranks.each({}) == ranks.join({}) == ranks.split({}) == {}
