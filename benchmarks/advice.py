"""`qualm advise` against what really comes: seconds and memory of runs of different family and size.

    python benchmarks/advice.py [SECONDS] [FAMILY ...]

Each run is predicted by a probe of three seconds, then trained for about SECONDS in a process of its own, whose peak
memory is read. Prints one line a run; acceptance is a prediction within 25 % of the time. At one thread
(OMP_NUM_THREADS=1) both are processor time, in which what else runs on the machine counts less; else time on the wall.
"""

import json
import resource
import subprocess
import sys
import time

import torch

from qualm.cli.memory import keep_memory
from qualm.training.advice import measured, needed, trial
from qualm.training.loop import fit
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

RUNS = (
    ("llama", 1_300_000, 128, 8),
    ("bert", 3_000_000, 128, 8),
    ("t5", 2_000_000, 128, 8),
    ("gpt", 6_000_000, 256, 4),
    ("rnn", 4_000_000, 64, 16),
)


def recipe_of(family: str, size: int, length: int, batch: int, steps: int = 1) -> Recipe:
    settings = TrainSettings(steps=steps, batch=batch, eval_every=10**9)
    return Recipe(size=size, family=family, length=length, vocab=2048, train=settings)


def run(family: str, size: int, length: int, batch: int, steps: int) -> None:
    model, rows, loss = trial(recipe_of(family, size, length, batch))
    result = fit(model, rows, loss, recipe_of(family, size, length, batch, steps).train)
    print(json.dumps([result.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def main(seconds: float, *families: str) -> None:
    print("family  parameters  steps  predicted s  measured s  error  predicted MB  measured MB")
    for family, size, length, batch in (each for each in RUNS if each[0] in families or not families):
        recipe = recipe_of(family, size, length, batch)
        step = measured(recipe)
        steps = max(20, round(seconds / step))
        model, _, _ = trial(recipe)
        memory = needed(recipe, model.config.parameters)
        words = [sys.executable, __file__, "--run", family, *map(str, (size, length, batch, steps))]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        taken, most = json.loads(told.splitlines()[-1])
        off = 100 * (steps * step / taken - 1)
        count = f"{model.config.parameters:,}"
        print(
            f"{family:6s} {count:>11s} {steps:6d} {steps * step:12.1f} {taken:11.1f} {off:+5.0f}% "
            f"{memory / 1e6:13.0f} {most / 1e6:12.0f}",
            flush=True,
        )


if __name__ == "__main__":
    keep_memory()  # as `qualm train` and `qualm advise` do
    if torch.get_num_threads() == 1:
        time.perf_counter = time.process_time  # what the loop reads
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, *sys.argv[2:])
