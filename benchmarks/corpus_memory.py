"""The memory that a corpus takes while it is made: the most that all its processes held at once, by input size.

`python benchmarks/corpus_memory.py 5000 2 FOLDER` writes 5000 MB of made-up text into FOLDER, cleans, dedups, splits
and packs it by two processes, prints the peak (proportional set size, summed over the processes), and removes it. A
fourth number is the sentences of a document: what is held hangs on their number more than on their length.
"""

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

FILE = 100_000_000  # bytes
RECIPE = """
[[sources]]
path = "text"
[[steps]]
step = "clean"
[[steps]]
step = "dedup"
[[steps]]
step = "split"
[[steps]]
step = "pack"
sample = 20000000
"""


def write(folder: Path, size: int, sentences_each: int) -> None:
    """Documents of so many sentences of 75 bytes; one in ten is nearly a copy of the last, a footer under a third."""
    rng = random.Random(7)
    words = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 9))) for _ in range(100_000)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(6, 18))).capitalize() + "." for _ in range(300_000)]
    folder.mkdir(parents=True)
    number = written = 0
    while written < size:
        with (folder / f"{number:04d}.jsonl").open("w") as file:
            own = 0
            while own < min(FILE, size - written):
                text = " ".join(rng.choices(sentences, k=rng.randint(sentences_each // 2 + 1, sentences_each * 3 // 2)))
                line = json.dumps({"text": text + ("\nAll rights reserved by nobody." if rng.random() < 0.3 else "")})
                own += file.write(line + "\n")
                if rng.random() < 0.1:
                    own += file.write(json.dumps({"text": text + " " + rng.choice(words)}) + "\n")
        written, number = written + own, number + 1


def held(process: int) -> int:
    """Bytes of a process and of all that it started (proportional set size)."""
    total, todo = 0, [process]
    while todo:
        one = todo.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def main(megabytes: int, workers: int, folder: Path, sentences_each: int = 27) -> None:
    write(folder / "text", megabytes * 1_000_000, sentences_each)
    (folder / "recipe.toml").write_text(RECIPE)
    start, peak = time.monotonic(), 0
    command = [sys.executable, "-m", "qualm", "corpus", "build", str(folder / "recipe.toml"), "-o", str(folder / "out")]
    with subprocess.Popen([*command, "--workers", str(workers)]) as made:
        done = threading.Event()
        while not done.wait(0.5) and made.poll() is None:
            if (now := held(made.pid)) > peak:
                peak = now
                print(f"{time.monotonic() - start:6.0f} s  {peak / 1e6:,.0f} MB", flush=True)
    seconds = time.monotonic() - start
    print(f"{megabytes} MB by {workers} processes: peak {peak / 1e6:,.0f} MB, {seconds:,.0f} s, exit {made.returncode}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
