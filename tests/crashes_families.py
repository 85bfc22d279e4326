"""Kill the training of every family that learns from plain text, and compare what it ends with to a run left alone.

`python tests/crashes_families.py FOLDER KILLS` prints what happened as JSON. No family is named here. A program of its
own for the same reason as crashes.py, whose way of killing it takes.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crashes import PHASES, SAVING, TRAINING, Shared, fork, kill, naive, newest_whole, slow_disk, watch_saves
from qualm import registry
from qualm.errors import UsageError
from qualm.files import hash_file
from qualm.models.store import load_model
from qualm.training.loop import Hooks
from qualm.training.objectives import objective_of
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings

STEPS, EVERY = 18, 3
SETTINGS = TrainSettings(steps=STEPS, batch=4, eval_every=6, save_every=EVERY, threads=1, precision="fp32", lr=1e-2)


def families() -> list[Recipe]:
    """Each family with its usual objective, recurrent ones also with a state carried on."""
    found = []
    for family in registry.names("models"):
        for objective in ("", "stateful"):
            recipe = Recipe(30_000, family, objective, length=24, vocab=300, held_out=0.2, dropout=0.1, train=SETTINGS)
            try:
                objective_of(recipe)
            except UsageError:
                continue
            found.append(recipe)
    return found


def text(place: Path) -> Path:
    place.mkdir(parents=True)
    lines = [{"text": f"the owl {i} sat in tree {i * 7 % 13} and sang to moon {i % 5}"} for i in range(60)]
    (place / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def run(data: Path, folder: Path, recipe: Recipe, shared: Shared) -> None:
    watch_saves(shared)

    def on_step(row: Any) -> None:
        shared.set(TRAINING, row["step"])
        time.sleep(0.002)

    train(data, folder, recipe, Hooks(on_step=on_step))


def outcome(folder: Path) -> tuple:
    log = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [(row["step"], row["loss"], row["norm"], row.get("validation")) for row in log]
    return rows, hash_file(folder / "model.safetensors")


def kills(place: Path, recipe: Recipe, count: int, saver: Callable[[], None] = lambda: None) -> dict[str, int]:
    """SIGKILL `count` times, every other time aimed into a save, each time going on; then a last run to the end."""
    rng = random.Random(f"{recipe.family} {recipe.objective}")
    found = dict.fromkeys((*PHASES, "unequal", "unusable", "unloadable"), 0)
    data, shared, began = text(place / "text"), Shared(), time.perf_counter()

    def work(folder: Path, shared: Shared) -> None:
        slow_disk()
        saver()
        run(data, folder, recipe, shared)

    os.waitpid(fork(lambda: work(place / "alone", shared)), 0)
    seconds, save_seconds = time.perf_counter() - began, shared.get()[2] / (STEPS / EVERY)
    trial = place / "trial"
    for number in range(count):
        shared = Shared()
        child = fork(lambda shared=shared: work(trial, shared))
        aim, pause = (SAVING, save_seconds) if number % 2 else (TRAINING, seconds / 4)
        phase, _ = kill(child, shared, aim, rng.uniform(0, pause))
        found[PHASES[phase]] += 1
        found["unloadable"] += not loads(trial / "run")
        if (trial / "config.json").exists():  # it came to its end in spite of the kills: once more
            found["unequal"] += outcome(trial) != outcome(place / "alone")
            shutil.rmtree(trial)
    _, status = os.waitpid(fork(lambda: work(trial, Shared())), 0)
    if status:
        found["unusable"] += 1
    else:
        found["unequal"] += outcome(trial) != outcome(place / "alone")
    return found


def loads(folder: Path) -> bool:
    """Whether the newest whole checkpoint is a model, and no newer one is there that is not whole."""
    names = sorted(path.name for path in folder.glob("step-*"))
    if not names:
        return True
    step = newest_whole(folder)
    if not step:
        return False
    load_model(folder / f"step-{step:06d}")
    return names[-1] == f"step-{step:06d}"


if __name__ == "__main__":
    home, count = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    warm = families()
    train(text(home / "warm"), home / "warmed", warm[0])
    happened = {f"{r.family} {r.objective}".strip(): kills(home / f"{r.family}{r.objective}", r, count) for r in warm}
    print(json.dumps({"families": happened, "in place": kills(home / "naive", warm[0], 4, naive)}))
