"""Kill a training run in every way a machine can, and compare what it ends with to a run that was left alone.

`python tests/crashes.py FOLDER TRIALS` prints what happened as JSON. It is a program of its own because
it forks: torch is imported once, then every run is a child that can be killed. How far a child is stands in memory
shared with it, so that a kill can be aimed and counted.
"""

import errno
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from qualm.errors import QualmError
from qualm.training import checkpoint, state
from qualm.training.checkpoint import Checkpoints
from qualm.training.data import TensorRows, next_token
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings

STEPS, EVERY, SHORT = 120, 8, 40
SETTINGS = TrainSettings(steps=STEPS, batch=4, lr=1e-2, eval_every=12, save_every=EVERY, threads=1)
BEFORE, TRAINING, SAVING, DONE = range(4)
PHASES = ("early", "training", "saving", "done")
DIED = 77


class Net(nn.Module):
    """With dropout, so that the random state matters."""

    linear_head = "out"

    def __init__(self):
        super().__init__()
        self.embed, self.drop, self.out = nn.Embedding(16, 48), nn.Dropout(0.2), nn.Linear(48, 16)

    def hidden(self, ids):
        return self.drop(torch.tanh(self.embed(ids)))

    def head(self, hidden):
        return self.out(hidden)


class Shared:
    """(phase, step, seconds spent in saves) in memory that parent and child both see."""

    def __init__(self):
        self.memory, self.seconds = mmap.mmap(-1, 24), 0.0

    def set(self, phase: int, step: int) -> None:
        self.memory[:24] = struct.pack("qqd", phase, step, self.seconds)

    def get(self) -> tuple[int, int, float]:
        return struct.unpack("qqd", self.memory[:24])


def run(folder: Path, shared: Shared, steps: int = STEPS, stop: int = 0) -> None:
    """The training run; goes on with what lies in `folder`, and leaves its final weights there."""
    torch.manual_seed(0)
    model = Net()
    ids = torch.randint(16, (40, 9), generator=torch.Generator().manual_seed(1))
    readings = TensorRows(ids[:8])

    def validate(trained: nn.Module) -> float:
        with torch.no_grad():
            return float(causal(trained, next_token(readings.rows))[0])

    def on_step(row) -> None:
        shared.set(TRAINING, row["step"])
        if steps == STEPS:
            time.sleep(0.001)

    watch_saves(shared)
    hooks = Hooks(validate, on_step, should_stop=lambda: shared.get()[1] == stop > 0)
    fit(model, TensorRows(ids), causal, replace(SETTINGS, steps=steps), folder, hooks)
    (folder / "final").write_text(state.hash_weights(model))
    shared.set(DONE, steps)


def watch_saves(shared: Shared) -> None:
    """Have every save noted, and how long it takes."""
    saving = Checkpoints.save

    def save(self, step, fill):
        shared.set(SAVING, step)
        began = time.perf_counter()
        saving(self, step, fill)
        shared.seconds += time.perf_counter() - began
        shared.set(TRAINING, step)

    Checkpoints.save = save


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except QualmError as error:
        sys.stderr.write(f"{error}\n")
    finally:
        os._exit(code)
    return 0


def outcome(folder: Path) -> tuple:
    """What must not depend on the kills: every loss and reading in the log, and the final weights."""
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tuple((r["step"], r["loss"], r["norm"], r.get("validation")) for r in log), (folder / "final").read_text()


def alone(folder: Path, steps: int, prepare: Callable[[], None] = lambda: None) -> tuple:
    """What a run ends with that nobody disturbs, its seconds, and the seconds of one save."""
    began, shared = time.perf_counter(), Shared()

    def work() -> None:
        prepare()
        run(folder, shared, steps)

    os.waitpid(fork(work), 0)
    return outcome(folder), time.perf_counter() - began, shared.get()[2] / (steps / EVERY)


def slow_disk() -> None:
    """Writing takes a while, as on a busy disk: files are seen half written, syncs wait."""
    whole, sync = state.save_file, os.fsync

    def save_file(tensors, path, *rest):
        whole(tensors, path, *rest)
        os.truncate(path, Path(path).stat().st_size // 2)
        time.sleep(0.01)
        whole(tensors, path, *rest)

    def fsync(handle):
        time.sleep(0.002)
        sync(handle)

    state.save_file, os.fsync = save_file, fsync


def kills(folder: Path, saver: Callable[[], None] = lambda: None, trials: int = 6, each: int = 4) -> dict:
    """SIGKILL at random moments, half of them aimed into a save; then a last run to the end."""
    rng, found = random.Random(0), dict.fromkeys((*PHASES, "unequal", "unusable", "lost", "orphans"), 0)
    expected, seconds, save_seconds = alone(folder / "alone", STEPS, slow_disk)

    def work(trial: Path, shared: Shared) -> None:
        slow_disk()
        saver()
        run(trial, shared)

    for number in range(trials):
        trial, reached = folder / f"trial-{number}", 0
        for attempt in range(each):
            aim, pause = (SAVING, save_seconds) if attempt % 2 else (TRAINING, seconds / 8)
            shared = Shared()
            child = fork(lambda trial=trial, shared=shared: work(trial, shared))
            phase, step = kill(child, shared, aim, rng.uniform(0, pause))
            found[PHASES[phase]] += 1
            reached = max(reached, step)
            found["lost"] = max(found["lost"], reached - newest_whole(trial))
        _, status = os.waitpid(fork(lambda trial=trial: work(trial, Shared())), 0)
        if status:
            found["unusable"] += 1
        elif outcome(trial) != expected:
            found["unequal"] += 1
        found["orphans"] += len(list(trial.glob(".*.tmp")))
    return found


def kill(child: int, shared: Shared, aim: int, pause: float) -> tuple[int, int]:
    """SIGKILL a child `pause` seconds after it came to the phase `aim`; where it was: (phase, step)."""
    while shared.get()[0] not in (aim, DONE) and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0002)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return shared.get()[:2]


def newest_whole(folder: Path) -> int:
    return max((int(p.name[5:]) for p in folder.glob("step-*") if not checkpoint.find_fault(p)), default=0)


def naive() -> None:
    """What many trainers do: write in place, take the newest folder, trust it."""

    def save(self, step, fill):
        self.path(step).mkdir(exist_ok=True)
        fill(self.path(step))

    Checkpoints.save = save
    Checkpoints.newest = lambda self: next(iter(self.steps()), None)


# -- faults: die, or meet an error, after the n-th call that changes the disk


REMEDIES = {errno.ENOSPC: "free some space", errno.EIO: "look at the disk"}
REMEDIES |= dict.fromkeys((errno.EACCES, errno.EROFS), "make it writable")
ERRORS = tuple(REMEDIES)
CHANGES = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod")


def arm(at: int, act: Callable[[str], None], count: list[str]) -> None:
    """Patch the calls that change the disk, so that `act` is called after (odd: before) call number at // 2. A write
    has come half through by then.
    """

    def wrap(name: str, call: Callable) -> Callable:
        def patched(*args, **settings):
            if (name == "mkdir" and Path(args[0]).is_dir()) or (name == "unlink" and nothing_at(args[0], **settings)):
                return call(*args, **settings)  # changes nothing
            number = len(count)
            count.append(name)
            if at == 2 * number + 1:
                act(name)
            result = call(*args, **settings)
            if at == 2 * number:
                act(name)
            return result

        return patched

    def half_written(tensors, path, *rest):
        number = len(count)
        whole(tensors, path, *rest)
        if at in (2 * number, 2 * number + 1):
            os.truncate(path, Path(path).stat().st_size // 2)
            act("write")
        count.append("write")

    def opened(path, mode="r", *args, **settings):
        if mode.startswith("r"):
            return opening(path, mode, *args, **settings)
        number = len(count)
        count.append("open")
        if at == 2 * number + 1:
            act("open")
        file = opening(path, mode, *args, **settings)
        if at == 2 * number:
            act("open")
        file.write = halves(file, file.write)
        return file

    def halves(file, write):
        def halved(data):
            number = len(count)
            count.append("write")
            if at in (2 * number, 2 * number + 1):
                write(data[: len(data) // 2])
                file.flush()
                act("write")
            return write(data)

        return halved

    whole, opening = state.save_file, Path.open
    state.save_file, Path.open = half_written, opened
    for name in CHANGES:
        setattr(os, name, wrap(name, getattr(os, name)))


def nothing_at(path: str, dir_fd: int | None = None) -> bool:
    return dir_fd is None and not os.path.lexists(path)


def arm_at_step(at: int, act: Callable[[str], None], count: list[str], step: int = 32) -> None:
    """Arm when the save of `step` begins: older checkpoints stand then, and one is removed after it."""
    saving = Checkpoints.save

    def save(self, now, fill):
        if now == step:
            arm(at, act, count)
        saving(self, now, fill)

    Checkpoints.save = save


def faults(folder: Path, all_errors: bool = False) -> dict:
    """Die at each point of a save; then meet an error of the disk at each; each time run again to the end."""
    words = ("points", "unequal", "unusable", "fallen_back", "failed", "unclear", "harmed", "orphans")
    found: dict = dict.fromkeys(words, 0)
    expected, *_ = alone(folder / "alone", SHORT)
    ready = folder / "ready"
    os.waitpid(fork(lambda: run(ready, Shared(), SHORT, stop=24)), 0)
    count: list[str] = []
    counted = folder / "counted.json"

    def count_calls() -> None:
        arm_at_step(-1, lambda name: None, count)
        stop = len(CHANGES)  # of one save only
        saving = Checkpoints.prune

        def prune(self, keep):
            saving(self, keep)
            if count:
                counted.write_text(json.dumps(count))
                os._exit(stop)

        Checkpoints.prune = prune
        run(shutil.copytree(ready, folder / "counted"), Shared(), SHORT)

    os.waitpid(fork(count_calls), 0)
    calls = json.loads(counted.read_text())
    found["calls"] = {name: calls.count(name) for name in sorted(set(calls))}
    for at in range(0, 2 * len(calls), 2):
        trial = shutil.copytree(ready, folder / f"die-{at}")
        found["points"] += _dies(trial, at)
        found["fallen_back"] += newest_whole(trial) < 24
        _finish(trial, expected, found)
    for at in range(1, 2 * len(calls), 2):
        for error in ERRORS if all_errors else (ERRORS[at // 2 % len(ERRORS)],):
            _meets(shutil.copytree(ready, folder / f"meets-{at}-{error}"), at, error, expected, found)
    return found


def _dies(trial: Path, at: int) -> bool:
    def work() -> None:
        arm_at_step(at, lambda name: os._exit(DIED), [])
        run(trial, Shared(), SHORT)

    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1]) == DIED


def fails_with(error: int) -> Callable[[str], None]:
    def fail(name: str) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def _meets(trial: Path, at: int, error: int, expected: tuple, found: dict) -> None:
    """The disk fails at one point of a save: the run must end with a clear error, and nothing older may be hurt."""
    said = trial.with_suffix(".said")

    def work() -> None:
        arm_at_step(at, fails_with(error), [])
        try:
            run(trial, Shared(), SHORT)
        except QualmError as told:
            said.write_text(str(told))
            raise

    status = os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
    words = said.read_text() if said.exists() else ""
    found["failed"] += 1
    found["unclear"] += not (status == 1 and f"{os.strerror(error)}; {REMEDIES[error]}" in words)
    found["harmed"] += bool([p for p in trial.glob("step-*") if checkpoint.find_fault(p)])
    found["harmed"] += not (trial / "step-000024").exists()
    _finish(trial, expected, found)


def _finish(trial: Path, expected: tuple, found: dict) -> None:
    _, status = os.waitpid(fork(lambda: run(trial, Shared(), SHORT)), 0)
    if status:
        found["unusable"] += 1
    elif outcome(trial) != expected:
        found["unequal"] += 1
    found["orphans"] += len(list(trial.glob(".*.tmp")))
    shutil.rmtree(trial)


def warm(folder: Path) -> None:
    """Have torch import what it imports at first use, once, in the parent."""
    fit(Net(), TensorRows(torch.zeros(4, 3, dtype=torch.long)), causal, TrainSettings(steps=1, batch=2), folder)


if __name__ == "__main__":
    place, trials = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    warm(place / "warm")
    found = faults(place / "faults", all_errors=trials > 10)
    happened = {"kills": kills(place / "kills", trials=trials), "faults": found}
    happened["naive"] = kills(place / "naive", naive, max(3, trials // 3))
    print(json.dumps(happened))
