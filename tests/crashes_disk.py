"""Let the disk fail at every call of a whole `qualm train` that changes it, and see what is said and what is hurt.

`python tests/crashes_disk.py FOLDER EVERY` prints it as JSON: each EVERY-th call meets one of four errors, in turn. A
program of its own for the same reason as crashes.py.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from crashes import ERRORS, REMEDIES, arm, checkpoint, fails_with, fork
from crashes_families import outcome, text
from qualm.cli.app import main

SETTINGS = {"size": "30k", "length": 24, "vocab": 300, "batch": 4, "steps": 6, "eval-every": 2, "save-every": 2}
SETTINGS |= {"lr": 1e-2, "threads": 1, "precision": "fp32"}
WORDS = [*(str(word) for name, value in SETTINGS.items() for word in (f"--{name}", value)), "--quiet"]


def run(data: Path, folder: Path, said: Path, at: int = -2, error: int = 0, counted: Path | None = None) -> int:
    """The exit code of the command, whose words go into `said`."""

    def work() -> None:
        calls: list[str] = []
        told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        arm(at, fails_with(error), calls)
        code = main(["train", str(data), "-o", str(folder), *WORDS])
        sys.stdout.flush()
        sys.stderr.flush()
        if counted:
            os.write(os.open(counted, os.O_WRONLY | os.O_CREAT), json.dumps(calls).encode())
        os._exit(code)

    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


def orphans(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*.tmp")]


def meets(place: Path, data: Path, at: int, error: int, name: str, expected: tuple, found: dict) -> None:
    trial, said = place / f"{at}-{error}", place / f"{at}-{error}.said"
    code = run(data, trial, said, 2 * at + 1, error)
    told = said.read_text()
    line = f"{os.strerror(error)}; {REMEDIES[error]}"
    found["failed"] += code == 1
    found["unmoved"] += code == 0  # what failed was not needed: a temporary file that was to go, the page of the run
    clear = (code == 1 and line in told and told.count("\n") == 1) or (code == 0 and "Traceback" not in told)
    hurt = [p.name for p in trial.glob("run/step-*") if checkpoint.find_fault(p)]
    code = run(data, trial, said)
    same = code == 0 and outcome(trial) == expected
    left = orphans(trial)
    for key, bad in (("unclear", not clear), ("harmed", bool(hurt)), ("unequal", not same), ("orphans", bool(left))):
        if bad:
            found[key].append(f"{name} {at}, {os.strerror(error)}: {told.strip()[-300:]} {hurt} {left}")
    shutil.rmtree(trial, ignore_errors=True)


def faults(place: Path, every: int) -> dict:
    data = text(place / "text")
    assert run(data, place / "alone", place / "said", counted=place / "calls") == 0, (place / "said").read_text()
    calls, expected = json.loads((place / "calls").read_text()), outcome(place / "alone")
    found: dict = {"calls": {name: calls.count(name) for name in sorted(set(calls))}, "failed": 0, "unmoved": 0}
    found |= {"unclear": [], "harmed": [], "unequal": [], "orphans": []}
    for turn, at in enumerate(range(0, len(calls), every)):
        meets(place, data, at, ERRORS[turn % len(ERRORS)], calls[at], expected, found)
    return found


if __name__ == "__main__":
    home, step = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    assert main(["train", str(text(home / "warm")), "-o", str(home / "warmed"), *WORDS]) == 0
    print("\n" + json.dumps(faults(home / "faults", step)))
