"""Does any file crash, hang or fill the memory of what collects it? Spoilt files of every format, from seeds.

    python benchmarks/corpus_fuzz.py [files of each format] [seed] [format ...]

Prints a line a format: how many files were spoilt, how many still gave documents, how many were skipped or cut short
with a reason or have lines that could not be used, how many were not named (which must be none), how often a reader
was ended or died, the longest that one file took, and the most memory that this process, which also makes the files,
and a reader, which begins as its copy, have held so far. Files are cut short, changed, spliced, replaced by noise,
given false sizes, written in other encodings and nested a hundred thousand deep; every fortieth is a bomb of its
format or holds a line of a hundred megabytes.
"""

import bz2
import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from backports import zstd

sys.path.insert(0, str(Path(__file__).resolve().parent))

import corpus_files as files

from qualm.corpus import Collecting, collect
from qualm.corpus.formats.base import Taken

SECONDS, MEMORY = 5.0, 2**29  # what the readers may take
LARGE = 100_000_000


@dataclass
class Outcome:
    """Of one format."""

    files: int = 0
    used: int = 0
    skipped: int = 0
    unnamed: int = 0
    ended: int = 0
    slowest: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        own, readers = (
            resource.getrusage(who).ru_maxrss / 1000 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        counts = f"{self.files:7}{self.used:7}{self.skipped:9}{self.unnamed:9}{self.ended:7}"
        return f"{counts}{self.slowest:10.2f}{own:9.0f}{readers:9.0f}"


def bomb(suffix: str, number: int) -> bytes:
    """A file that unpacks to a hundred megabytes, or holds that much in one line or element."""
    line = (b"x" * LARGE, b'{"text": "' + b"y" * LARGE + b'"}', b"<p>" * (LARGE // 4), b"\0" * LARGE)[number % 4]
    name = suffix.rpartition(".")[2]
    if name in ("gz", "zst", "bz2"):
        return {"gz": gzip.compress, "zst": zstd.compress, "bz2": bz2.compress}[name](line)
    if name == "zip":
        inner = files.zip_({"a.txt": line})
        return (inner, files.zip_({"a.zip": inner, "b.zip": inner}), inner[:-40] + b"\xff" * 18 + inner[-22:])[
            number % 3
        ]
    if name == "docx":
        return files.zip_({"[Content_Types].xml": line, "word/document.xml": line})
    if name == "epub":
        return files.zip_({"META-INF/container.xml": line})
    if name == "tmx":
        entities = b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        head = b'<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa">' + entities + b"]><tmx><body><tu>"
        return head + b"<tuv xml:lang='en'><seg>&j;</seg></tuv></tu></body></tmx>"
    return line


def fuzzed(suffix: str, count: int, seed: int) -> Outcome:
    """Collect `count` spoilt files of one format, one folder at a time."""
    rng, outcome = random.Random(f"{suffix} {seed}"), Outcome()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make = files.makers(folder)[suffix]
        plenty = [" ".join(rng.choices(files.TEXTS, k=20)) for _ in range(40)]
        good = [make(files.TEXTS), make(plenty)]
        names = set()
        for i in range(count):
            name = f"{i:04}{suffix}"
            content = bomb(suffix, i // 40) if i % 40 == 39 else rng.choice(files.WAYS)(rng.choice(good), rng)
            (folder / name).write_bytes(content)
            names.add(name)
        taken: list[Taken] = []
        start = time.perf_counter()

        def tell(each: Taken) -> None:
            nonlocal start
            now = time.perf_counter()
            outcome.slowest, start = max(outcome.slowest, now - start), now
            taken.append(each)

        for document in collect([folder], Collecting(seconds=SECONDS, memory=MEMORY), tell):
            document.key  # noqa: B018  it is Unicode
            json.dumps(document.meta, allow_nan=False)
    outcome.files = count
    told: dict[str, list[Taken]] = {}
    for each in taken:
        told.setdefault(each.name.partition("/")[0], []).append(each)
    outcome.unnamed = len(names - set(told)) + sum(not (e.documents or e.reason) for e in taken)
    outcome.used = sum(any(e.documents for e in each) for each in told.values())
    outcome.skipped = sum(any(e.reason or e.bad for e in each) for each in told.values())
    outcome.ended = sum(e.reason.startswith(("ended its reader", "took longer")) for e in taken)
    outcome.reasons.update(e.reason.partition(" (")[0][:40] for e in taken if e.reason)
    return outcome


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:3]]
    count, seed = [*numbers, *(200, 0)[len(numbers) :]]
    heads = ("files", "used", "skipped", "unnamed", "ended", "slowest s", "own MB", "reader")
    print(f"{'format':14}" + "".join(f"{h:>{w}}" for h, w in zip(heads, (7, 7, 9, 9, 7, 10, 9, 9), strict=True)))
    every = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        suffixes = sys.argv[3:] or list(files.makers(Path(folder)))
    for suffix in suffixes:
        outcome = fuzzed(suffix, count, seed)
        print(
            f"{suffix:14}{outcome}  {'; '.join(f'{n} {name}' for name, n in outcome.reasons.most_common(4))}",
            flush=True,
        )
        for name in ("files", "used", "skipped", "unnamed", "ended"):
            setattr(every, name, getattr(every, name) + getattr(outcome, name))
        every.slowest = max(every.slowest, outcome.slowest)
    print(f"{'all':14}{every}")
    sys.exit(1 if every.unnamed else 0)


if __name__ == "__main__":
    main()
