"""A step of a pipeline over chunks, in passes whose every file is kept, so that a run that was killed goes on.

A step that looks at one document at a time is one pass. Those that must know all documents write small tables of each
chunk, bring equal keys together partition by partition of their hashes, and apply what comes out to each chunk again:
no more is held than a partition, and a few bytes of each key that stands more than once.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualm.corpus import chunks
from qualm.corpus.documents import Document
from qualm.corpus.notes import Tell
from qualm.corpus.workers import Run, here
from qualm.files import writing

LOAD = 1 << 22  # keys in a partition: about 150 MB while they are sorted
_SMALL = 1 << 16
TOGETHER = np.dtype([("row", "<u4"), ("slot", "u1"), ("group", "<u4")])
Passes = list[list[Path]]  # the chunks of each pass; the last ones are what comes out
Stage = Callable[["Work", list[Path], Any], Passes]


@dataclass(frozen=True)
class Work:
    """The folder of one step, and where its tasks run."""

    folder: Path
    run: Run = here

    def each(self, name: str, function: Callable[..., None], items: Iterable[tuple], *shared: Any) -> list[Path]:
        """One file an item, written by `function(target, *item, *shared)`; one that is there is not made again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = [(self.folder / f"{name}-{i:05d}", item) for i, item in enumerate(items)]
        for _ in self.run(function, [(target, *item, *shared) for target, item in wanted if not target.exists()]):
            pass
        return [target for target, _ in wanted]

    def once(self, name: str, function: Callable[..., None], *arguments: Any) -> Path:
        return self.each(name, function, [arguments])[0]

    def change(
        self, name: str, function: Callable[..., Iterable[Document]], items: Iterable[tuple], *shared: Any
    ) -> list[Path]:
        """One chunk an item (chunk, *more): what `function(documents, tell, *more, *shared)` gives of it."""
        return self.each(name, _changed, [(source, function, *more) for source, *more in items], *shared)


def each_document(
    function: Callable[..., Iterable[Document]], work: Work, sources: list[Path], settings: Any
) -> Passes:
    """The stage of a step that looks at one document at a time: `function(documents, settings, tell)`."""
    return [work.change("chunk", _stepped, [(source,) for source in sources], function, settings)]


def through(stage: Stage, documents: Iterable[Document], settings: Any, tell: Tell) -> Iterator[Document]:
    """A stage over documents that lie nowhere yet: they wait in a temporary folder, not in memory."""
    with tempfile.TemporaryDirectory(prefix="qualm-") as folder:
        passes = stage(Work(Path(folder)), chunks.write_all(Path(folder), documents, "given"), settings)
        for made in zip(*passes, strict=True):
            for chunk in made:
                for note in chunks.read_notes(chunk):
                    tell(note)
            yield from chunks.read_chunk(made[-1])


def partitions(rows: int) -> int:
    """How many partitions keep each below about LOAD of `rows` keys: a power of two."""
    return 1 << max(0, -(-rows // LOAD) - 1).bit_length()


def in_partition(keys: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Which of some keys (uint64) belong to partition `part` of `parts`: those with its highest bits."""
    return (keys >> np.uint64(1) >> np.uint64(63 - (parts.bit_length() - 1))) == np.uint64(part)


def together(work: Work, name: str, tables: Sequence[Path]) -> list[Path]:
    """Where keys of several tables are equal: a file a partition, of TOGETHER. A key of 0 is none.

    `row` counts the rows of all tables in order, `slot` is the column, and `group` the same for equal keys.
    """
    parts = partitions(sum(load(table).size for table in tables))
    return work.each(name, _together, [(part,) for part in range(parts)], parts, list(tables))


def read_together(parts: Sequence[Path]) -> np.ndarray:
    """The files of `together` as one table, ordered by row and slot; groups are numbered through from 0."""
    found, groups = [], 0
    for part in parts:
        table = np.array(load(part))
        table["group"] += np.uint32(groups)
        groups = int(table["group"].max()) + 1 if len(table) else groups
        found.append(table)
    whole = np.concatenate(found)
    return whole[np.lexsort((whole["slot"], whole["row"]))]


def save(target: Path, table: np.ndarray) -> None:
    with writing(target, "wb") as file:
        np.save(file, table, allow_pickle=False)


def load(path: Path) -> np.ndarray:
    """A table of `save`, mapped rather than read unless it is small."""
    return np.load(path, mmap_mode="r" if path.stat().st_size > _SMALL else None, allow_pickle=False)


def _together(target: Path, part: int, parts: int, tables: Sequence[Path]) -> None:
    keys, rows, slots, before = list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), 0
    for path in tables:
        table = np.array(load(path))
        table = table[:, None] if table.ndim == 1 else table
        row, slot = np.nonzero(in_partition(table, part, parts) & (table != 0))
        keys.append(table[row, slot])
        rows.append((row + before).astype(np.uint32))
        slots.append(slot.astype(np.uint8))
        before += len(table)
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    key = key[order]
    new = np.concatenate((np.ones(min(1, len(key)), bool), key[1:] != key[:-1]))
    several = ~(new & np.concatenate((new[1:], np.ones(min(1, len(key)), bool))))
    group = np.cumsum(new[several]) - 1
    made = np.zeros(len(group), TOGETHER)
    made["row"], made["slot"] = np.concatenate(rows)[order][several], np.concatenate(slots)[order][several]
    made["group"] = group
    save(target, made)


def _changed(target: Path, source: Path, function: Callable[..., Iterable[Document]], *arguments: Any) -> None:
    chunks.change(target, source, lambda documents, tell: function(documents, tell, *arguments))


def _stepped(
    documents: Iterable[Document], tell: Tell, function: Callable[..., Iterable[Document]], settings: Any
) -> Iterable[Document]:
    return function(documents, settings, tell)
