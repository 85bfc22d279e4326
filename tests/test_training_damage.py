"""Checkpoints that were damaged are seen and passed over; old ones go only when newer ones stand; one run a folder."""

import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qualm.errors import InputError, QualmError, Stopped
from qualm.training.checkpoint import Checkpoints, claimed, find_fault
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from test_training_resume import SETTINGS, final, log, net, rows

# -- damage


def damaged(path: Path, rng: random.Random) -> bytes:
    """The file with one byte changed, or cut short; what it was before is returned."""
    content = path.read_bytes()
    place = rng.randrange(len(content))
    changed = bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(changed) if rng.random() < 0.7 else content[:place])
    return content


def test_damage_anywhere_in_the_newest_is_seen_said_and_passed_over(tmp_path):
    """200 places, every file in turn: a bit that is turned, or the rest cut off."""
    fit(net(), rows(), causal, SETTINGS, tmp_path)
    newest, rng, events = tmp_path / "step-000012", random.Random(0), []
    places, files = Checkpoints(tmp_path, events.append), sorted(newest.iterdir())
    assert {f.name for f in files} == {"manifest.json", "model.safetensors", "training.json", "training.safetensors"}
    for number in range(200):
        file = files[number % len(files)]
        before = damaged(file, rng)
        assert places.newest() == 9, f"{file.name}, try {number}"
        file.write_bytes(before)
        assert places.newest() == 12
    assert len(events) == 200
    assert all(str(newest) in event and "it is passed over" in event for event in events)


def test_a_damaged_newest_is_passed_over_and_said(tmp_path):
    whole = net()
    fit(whole, rows(), causal, SETTINGS, tmp_path / "whole")
    folder, taken = tmp_path / "cut", []
    hooks = Hooks(on_step=taken.append, should_stop=lambda: len(taken) == 10)
    with pytest.raises(Stopped):
        fit(net(), rows(), causal, SETTINGS, folder, hooks)
    (folder / "step-000010" / "training.json").unlink()
    again, events = net(), []
    fit(again, rows(), causal, SETTINGS, folder, Hooks(on_event=events.append))
    assert "training.json is missing" in events[0]
    assert "from step 9" in events[1]
    assert final(again) == final(whole)
    assert log(folder) == log(tmp_path / "whole")
    assert not find_fault(folder / "step-000012")


def test_with_no_whole_checkpoint_nothing_is_overwritten(tmp_path):
    fit(net(), rows(), causal, SETTINGS, tmp_path)
    for path in tmp_path.glob("step-*"):
        (path / "manifest.json").write_text("{")
    kept = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="none of the checkpoints is whole"):
        fit(net(), rows(), causal, SETTINGS, tmp_path)
    assert sorted(path for path in tmp_path.iterdir() if path.name != "log.jsonl") == kept


def test_a_damaged_best_is_not_taken_for_the_result(tmp_path):
    readings = iter([3.0, 1.0, 2.0])
    fit(net(), rows(), causal, SETTINGS, tmp_path, Hooks(lambda model: next(readings)))
    (tmp_path / "step-000008" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"best checkpoint cannot be used: model.safetensors is damaged"):
        fit(net(), rows(), causal, SETTINGS, tmp_path, Hooks(lambda model: next(readings)))


# -- what is removed, and who may


def test_whoever_reads_while_old_ones_are_removed_finds_a_whole_one(tmp_path):
    """A reader that takes the newest over and over, while a run saves after each step and removes all but two."""
    settings, over, told = replace(SETTINGS, steps=50, save_every=1, eval_every=100), threading.Event(), []

    def read() -> None:
        reader = Checkpoints(tmp_path, lambda event: None)
        while not over.is_set():
            step = newest_of(reader)
            if step is not None or told:
                told.append(step)

    thread = threading.Thread(target=read)
    tmp_path.mkdir(exist_ok=True)
    thread.start()
    fit(net(), rows(), causal, settings, tmp_path, Hooks(on_step=lambda row: time.sleep(0.002)))
    over.set()
    thread.join()
    assert len(told) > 20
    assert None not in told
    assert len(set(told)) > 10  # the reader was there while they came and went
    assert told == sorted(told)
    assert Checkpoints(tmp_path, print).steps() == [50, 49]


def newest_of(places: Checkpoints) -> int | None:
    """As a reader does it: one that was removed under its eyes has a newer one behind it, so it looks again."""
    for _ in range(3):
        steps = places.steps()
        for step in steps:
            if not find_fault(places.path(step)):
                return step
        if not steps:
            return None
    return None


HOLDER = """
import fcntl, sys, time
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holding():
    """`holding(folder)` starts a process that is taken for another run there."""
    started = []

    def hold(folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, str(folder / ".lock")]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_run_in_the_same_folder_is_refused(holding, tmp_path):
    other = holding(tmp_path)
    with pytest.raises(QualmError, match="another run is writing here"):
        fit(net(), rows(), causal, SETTINGS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    other.kill()
    other.wait()
    fit(net(), rows(), causal, SETTINGS, tmp_path)


def test_a_thread_of_the_same_process_is_another_run(tmp_path):
    told = []

    def second() -> None:
        try:
            fit(net(), rows(), causal, SETTINGS, tmp_path)
        except QualmError as error:
            told.append(str(error))

    with claimed(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another run is writing here" in told[0]


def test_a_second_command_on_a_folder_changes_nothing_there(holding, qualm, notes, tmp_path):
    words = ["--steps", 2, "--size", "30k", "--vocab", 300, "--length", 24, "--threads", 1, "-q"]
    assert qualm("train", notes, "-o", "m", *words).code == 0
    holding(tmp_path / "m" / "run")
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "m").rglob("*"))}
    for name in ("a.txt", "b.txt"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text(f"another text for another run: {name}")
    done = qualm("train", tmp_path / "other", "-o", "m", *words)
    assert done.code == 1
    assert done.err == "qualm: m/run: another run is writing here; wait for it, or name another folder\n"
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "m").rglob("*"))} == before
