"""Leaks: which documents hold an n-gram of a test set (Brown et al. 2020, arXiv 2005.14165, appendix C)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from qualm.corpus.documents import read
from qualm.corpus.notes import whole
from qualm.corpus.records import KINDS, read_records
from qualm.corpus.settings import Deduping
from qualm.files import hash_tree
from qualm.text.grams import grams, words

SHORTEST = 8  # words of a text that can be looked for


@dataclass
class Tests:
    """The n-grams of test sets, by their length: the whole of texts shorter than `ngram`."""

    ngram: int
    names: list[str] = field(default_factory=list)
    _added: dict[int, list[tuple[np.ndarray, int]]] = field(default_factory=dict)
    _sorted: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        hashes = words(text).hashes
        if len(hashes) >= SHORTEST:
            n = min(self.ngram, len(hashes))
            self._added.setdefault(n, []).append((grams(hashes, n), len(self.names)))
            self.names.append(name)

    def settle(self) -> None:
        """Sort what was added; the first of two texts with the same n-gram is the one that is named."""
        for n, added in self._added.items():
            keys = np.concatenate([hashes for hashes, _ in added])
            numbers = np.repeat(np.array([number for _, number in added]), [len(hashes) for hashes, _ in added])
            keys, first = np.unique(keys, return_index=True)
            self._sorted[n] = keys, numbers[first]

    def find(self, text: str) -> str:
        """The first n-gram of a text that stands in a test set, and where; "" for none."""
        if not self.names:
            return ""
        found = words(text)
        for n, (keys, numbers) in self._sorted.items():
            if len(found) >= n:
                own = grams(found.hashes, n)
                at = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
                if len(hits := np.flatnonzero(keys[at] == own)):
                    first = int(hits[0])
                    shown = " ".join(text[found.starts[first] : found.ends[first + n - 1]].split())
                    return f"{self.names[int(numbers[at[first]])]}: {shown!r} ({len(hits)} of {n} words)"
        return ""


def tests_of(settings: Deduping) -> Tests:
    """What is looked for; it is kept for the next chunk. Raises InputError for a file that cannot be read."""
    return _tests(settings.evaluation, settings.ngram, tuple(hash_tree(path) for path in settings.evaluation))


@lru_cache(maxsize=2)
def _tests(paths: tuple[Path, ...], ngram: int, hashes: tuple[str, ...]) -> Tests:
    made = Tests(ngram)
    for path in paths:
        for name, text in _texts(path):
            made.add(name, text)
    made.settle()
    return made


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """(name:place, text) of each text in a test set: every field of a record, every document of a folder."""
    if path.suffix in KINDS:
        for record in read_records(path)[0]:
            for name, value in record.items():
                if isinstance(value, str):
                    yield f"{Path(record.where).name} {name}", value
    else:
        for document in read(path):
            yield f"{path.name} {document.id}", whole(document)
