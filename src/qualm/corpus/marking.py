"""Marks of documents: what tells which are the same or nearly, in tables small enough to be sorted.

Of each document a key of its content and 14 of its MinHash bands (uint64; 0 where it has no words), and 16 bits of each
of the 112 hashes, to check what the bands bring together: 344 bytes on disk.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from qualm.corpus.chunks import read_chunk
from qualm.corpus.document import Document
from qualm.corpus.notes import whole
from qualm.corpus.stages import Work, load, read_together, save, together
from qualm.files import read_json, write_json
from qualm.text import minhash

CONTENT = 0  # the column of the key of the whole content
_GROUP = 256  # documents marked at once
_OPEN = 64  # files kept open


class Marks:
    """The marks of several chunks, their documents numbered through from 0; few are held at a time."""

    def __init__(self, files: Sequence[Path]):
        self.files = files
        self.starts = np.cumsum([0, *(len(load(_keys(file))) for file in files)])
        self._open: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def name(self, row: int) -> str:
        file, place = self._place(row)
        return self._get("names", file)[place]

    def alike(self, left: int, right: int) -> float:
        """The estimate of their similarity."""
        one, two = (self._get("signatures", file)[place] for file, place in map(self._place, (left, right)))
        return minhash.similarity(one, two)

    def content(self) -> np.ndarray:
        """The keys (documents,) uint64 of what they say."""
        return np.concatenate([np.zeros(0, np.uint64), *(load(_keys(file))[:, CONTENT] for file in self.files)])

    def equal(self, work: Work) -> np.ndarray:
        """Which documents share a key: `stages.read_together` of them."""
        return read_together(together(work, "equal", [_keys(file) for file in self.files]))

    def _place(self, row: int) -> tuple[int, int]:
        file = int(np.searchsorted(self.starts, row, "right")) - 1
        return file, row - int(self.starts[file])

    def _get(self, kind: str, number: int) -> Any:
        key, file = (kind, number), self.files[number]
        if key not in self._open:
            self._open[key] = load(_signatures(file)) if kind == "signatures" else read_json(file)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]


def mark(target: Path, chunk: Path, near: bool, prefix: str = "") -> None:
    """Write the marks of a chunk."""
    write_marks(target, read_chunk(chunk), near, prefix)


def write_marks(target: Path, documents: Iterable[Document], near: bool, prefix: str = "") -> None:
    """Write the keys of documents, their signatures, and last `target`, their names."""
    names = list[str]()
    keys = [np.zeros((0, 1 + minhash.BANDS * near), np.uint64)]
    signatures = [np.zeros((0, minhash.HASHES), np.uint16)]
    rest = iter(documents)
    while group := list(islice(rest, _GROUP)):
        names += [f"{prefix}{document.id}" for document in group]
        own = np.array([[content_key(document.key)] for document in group], np.uint64)
        if near:
            made, some = minhash.signatures([whole(document) for document in group])
            own = np.hstack((own, np.where(some[:, None], minhash.bands(made), np.uint64(0))))
            signatures.append(made.astype(np.uint16))
        keys.append(own)
    save(_keys(target), np.concatenate(keys))
    save(_signatures(target), np.concatenate(signatures))
    write_json(target, names)


def content_key(key: str) -> int:
    """64 bits of a document's key; never 0."""
    return int(key[:16], 16) or 1


def copies(equal: np.ndarray, marks: Marks, near: float) -> Iterator[tuple[int, int, float | None]]:
    """(document, the first that stays and is like it, how alike; None for equal) of each that is a copy, in order."""
    first = np.full(int(equal["group"].max(initial=0)) + 1, -1, np.int64)
    for row, slots, groups in _by_row(equal):
        known = first[groups]
        if slots[0] == CONTENT and known[0] >= 0:
            yield row, int(known[0]), None
            continue
        for candidate in np.unique(known[known >= 0]).tolist():
            alike = marks.alike(candidate, row)
            if alike >= near:
                yield row, candidate, alike
                break
        else:
            first[groups[known < 0]] = row


def clusters(equal: np.ndarray, marks: Marks, near: float) -> np.ndarray:
    """The first (documents,) of the cluster of each: those that are like it, like these, and so on."""
    above = np.arange(len(marks))

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = int(above[row])
        return row

    first = np.full(int(equal["group"].max(initial=0)) + 1, -1, np.int64)
    for row, slots, groups in _by_row(equal):
        known = first[groups]
        same = slots[0] == CONTENT and known[0] >= 0
        for candidate in [int(known[0])] if same else np.unique(known[known >= 0]).tolist():
            ends = top(candidate), top(row)
            if ends[0] != ends[1] and (same or marks.alike(candidate, row) >= near):
                above[max(ends)] = min(ends)
        first[groups[known < 0]] = row
    while (above[above] != above).any():
        above = above[above]
    return above


def _by_row(equal: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(row, its slots, their groups) of each row of a table of equal keys."""
    borders = np.flatnonzero(np.diff(equal["row"], prepend=-1, append=-1).astype(bool))
    for start, end in pairwise(borders.tolist()):
        yield int(equal["row"][start]), equal["slot"][start:end], equal["group"][start:end]


def _keys(marks: Path) -> Path:
    return marks.with_name(f"{marks.name}.keys")


def _signatures(marks: Path) -> Path:
    return marks.with_name(f"{marks.name}.signatures")
