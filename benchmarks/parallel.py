"""Two processes of one thread against one process of two threads: tokens a second of `qualm train`, by turns.

    python benchmarks/parallel.py [ROUNDS]

Made-up lines; a Llama of 1.3 M weights, 8 rows of 256 tokens a step, fp32. Printed are the medians over all
steps but the first three of each run, and the range of the runs' medians. A minute on two quiet cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS, SKIPPED = 20, 3
TEXT = "the owl sat in a tree and sang to the moon while rain fell on green hills far away"
RECIPE = f"--size tiny --length 256 --vocab 2048 --batch 8 --steps {STEPS} --precision fp32 --eval-every 1000 -q"
KINDS = {
    "1 process x 2 threads": "--threads 2",
    "2 processes x 1 thread": "--nproc 2 --threads 1",
    "2 processes x 1 thread, --shard": "--nproc 2 --threads 1 --shard",
}


def speeds(data: Path, folder: Path, words: str) -> list[float]:
    command = [sys.executable, "-m", "qualm", "train", str(data), "-o", str(folder), *RECIPE.split(), *words.split()]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [row["tokens_per_second"] for row in rows[SKIPPED:]]


def main(rounds: int) -> None:
    taken: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "text.txt"
        words = TEXT.split()
        lines = (" ".join(words[i * j % len(words)] for j in range(3, 40)) + f" {i}.\n" for i in range(4000))
        data.write_text("".join(lines))
        for turn in range(rounds):
            for number, (kind, flags) in enumerate(KINDS.items()):
                taken[kind].append(speeds(data, Path(place) / f"{turn}-{number}", flags))
    for kind, runs in taken.items():
        middles = [statistics.median(run) for run in runs]
        middle = statistics.median(speed for run in runs for speed in run)
        print(f"{kind:34} {middle:8.0f} tokens/s  (runs {min(middles):.0f} to {max(middles):.0f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
