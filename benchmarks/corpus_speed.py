"""How fast a corpus is made, beside the programs that others would use: by turns, on the same input, in one process.

`python benchmarks/corpus_speed.py [ROUNDS]` prints medians and ratios. It needs datasketch, rensa and fastokens.
"""

import random
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qualm.corpus import Deduping, Document, dedup
from qualm.corpus.marking import Marks, copies, write_marks
from qualm.corpus.stages import Work
from qualm.text import language
from qualm.tokens.fast import encoder
from qualm.tokens.train import train_bpe

NEAR = 0.7


def by_turns(rounds: int, peers: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Median seconds of each, by the clock and of the processor (of all threads), taken in turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, run in peers.items():
            start, busy = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - start, time.process_time() - busy))
    return {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in taken.items()}


def told(what: str, amount: float, unit: str, seconds: dict[str, tuple[float, float]]) -> None:
    ours = next(iter(seconds.values()))
    for name, (clock, busy) in seconds.items():
        rates = f"{amount / clock:10,.1f} {unit} by the clock ({clock / ours[0]:5.2f} x)"
        print(f"{what:10} {name:31} {rates} {amount / busy:10,.1f} of processor ({busy / ours[1]:5.2f} x)", flush=True)


def documents(count: int) -> list[str]:
    """Texts of about 2 kB; one in five is a copy of another with one word in a hundred changed."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 9))) for _ in range(20_000)]
    made: list[str] = []
    for _ in range(count):
        if made and rng.random() < 0.2:
            text = [w if rng.random() > 0.01 else rng.choice(words) for w in rng.choice(made).split()]
        else:
            text = rng.choices(words, k=330)
        made.append(" ".join(text))
    return made


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]


def near(rounds: int) -> None:
    import datasketch
    import rensa

    texts = documents(2_000)
    given = [Document(str(i), text) for i, text in enumerate(texts)]
    found: dict[str, int] = {}

    def finding() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_marks(Path(folder, "marks"), given, True)
            marks = Marks([Path(folder, "marks")])
            found["ours"] = len(list(copies(marks.equal(Work(Path(folder))), marks, NEAR)))

    def ours() -> None:
        found["ours, dedup()"] = len(texts) - len(list(dedup(given, Deduping(near=NEAR))))

    def of_rensa() -> None:
        index, dropped = rensa.RMinHashLSH(NEAR, 128, 16), 0
        for i, text in enumerate(texts):
            made = rensa.RMinHash(128, 42)
            made.update(shingles(text))
            if any(made.jaccard(kept[j]) >= NEAR for j in index.query(made)):
                dropped += 1
            else:
                index.insert(i, made)
                kept[i] = made
        found["rensa"] = dropped

    def of_datasketch() -> None:
        index, dropped = datasketch.MinHashLSH(threshold=NEAR, num_perm=128), 0
        for i, text in enumerate(texts):
            made = datasketch.MinHash(num_perm=128)
            made.update_batch([shingle.encode() for shingle in shingles(text)])
            if index.query(made):
                dropped += 1
            else:
                index.insert(str(i), made)
        found["datasketch"] = dropped

    kept: dict[int, Any] = {}
    peers = {"ours, finding copies": finding, "ours, dedup() through files": ours}
    peers |= {"rensa, RMinHash and its LSH": of_rensa, "datasketch, MinHash and its LSH": of_datasketch}
    seconds = by_turns(rounds, peers)
    told("near-dedup", sum(map(len, texts)) / 1e6, "MB/s", seconds)
    print(f"           found: {found}", flush=True)


def code(size: int) -> list[str]:
    made: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if size > 0 and "site-packages" not in path.parts and (text := path.read_text("utf-8", errors="ignore")):
            made.append(text)
            size -= len(text.encode())
    return made


def ids(rounds: int) -> None:
    texts = code(20_000_000)
    tokens = train_bpe(texts[::5], 8192)
    peers = {
        "ours, encoder made anew": lambda: [ids.astype(np.uint16) for ids in encoder(tokens)(texts)],
        "tokenizers, encode_batch_fast": lambda: [
            e.ids for e in tokens.plain.encode_batch_fast(texts, add_special_tokens=False)
        ],
        "tokenizers, encode_batch": lambda: [e.ids for e in tokens.plain.encode_batch(texts, add_special_tokens=False)],
    }
    told("ids", sum(len(text.encode()) for text in texts) / 1e6, "MB/s", by_turns(rounds, peers))


def languages(rounds: int) -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    words = [word for text in code(400_000) for word in text.split() if word.isalpha()]
    rng = random.Random(2)
    texts = [" ".join(rng.choices(words, k=35))[:200] for _ in range(2_000)]
    peers = {
        "ours": lambda: [language.identify(text) for text in texts],
        "py3langid, classify": lambda: [model.classify(text) for text in texts],
    }
    told("language", len(texts), "texts/s", by_turns(rounds, peers))


if __name__ == "__main__":
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for part in (near, ids, languages):
        part(turns)
