"""Chunks: the documents of a corpus in files of a few megabytes, each written whole or not at all.

A chunk is a piece of the `documents.jsonl` that comes out in the end. Beside it lies `.notes`: what was told of its
documents, and as its last line the tally.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qualm.corpus.documents import Document
from qualm.corpus.notes import Note, Tell, as_record
from qualm.files import writing

SIZE = 4 * 2**20  # bytes of text in a chunk
Change = Callable[[Iterable[Document], Tell], Iterable[Document]]


@dataclass
class Tally:
    """What went through one step: documents and UTF-8 bytes, in and out; dropped by reason, changed by kind."""

    read: int = 0
    bytes_read: int = 0
    written: int = 0
    bytes_written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def came(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.read += 1
            self.bytes_read += document.bytes
            yield document

    def went(self, document: Document) -> None:
        self.written += 1
        self.bytes_written += document.bytes

    def told(self, note: Note) -> None:
        if note.dropped:
            self.dropped[note.reason] += 1
        else:
            self.changed.update(note.counts)

    def then(self, later: "Tally") -> "Tally":
        """Of two passes of one step over the same documents."""
        out = (later.written, later.bytes_written)
        return Tally(self.read, self.bytes_read, *out, self.dropped + later.dropped, self.changed + later.changed)

    def beside(self, other: "Tally") -> "Tally":
        """Of one pass over these and other documents."""
        return Tally(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def change(target: Path, source: Path, function: Change) -> None:
    """Write the chunk `target`: the documents of `source` that `function(documents, tell)` gives."""
    write(target, function, read_chunk(source))


def write(target: Path, function: Change, documents: Iterable[Document]) -> Tally:
    """Write what a function gives of documents as a chunk, its notes first, so that a chunk that is there is whole."""
    tally = Tally()
    with writing(target) as kept, writing(notes_of(target)) as log:

        def tell(note: Note) -> None:
            tally.told(note)
            log.write(_line(vars(note)))

        for document in function(tally.came(documents), tell):
            tally.went(document)
            kept.write(record_line(document))
        log.write(_line(vars(tally)))
    return tally


def write_all(
    folder: Path, documents: Iterable[Document] | Callable[[Tell], Iterable[Document]], name: str = "chunk"
) -> list[Path]:
    """Documents as chunks of about SIZE bytes of text, in order; what is told while they are read goes with them."""
    told: list[Note] = []
    rest = iter(documents(told.append) if callable(documents) else documents)
    made: list[Path] = []
    first = next(rest, None)
    while first or told:
        made.append(folder / f"{name}-{len(made):05d}")
        write(made[-1], partial(_piece, told), [] if first is None else _some(first, rest))
        first = next(rest, None)
    return made


def _piece(told: list[Note], documents: Iterable[Document], tell: Tell) -> Iterator[Document]:
    yield from documents
    while told:
        tell(told.pop(0))


def _some(first: Document, rest: Iterator[Document]) -> Iterator[Document]:
    yield first
    size = first.bytes
    while size < SIZE and (document := next(rest, None)):
        size += document.bytes
        yield document


def read_chunk(path: Path) -> Iterator[Document]:
    """The documents of a chunk, in order, each with the place that it was first read from."""
    with path.open("rb") as file:
        for line in file:
            record = json.loads(line)
            provenance = record.pop("provenance")
            if len(provenance) > 1:
                record["provenance"] = provenance
            text, messages = record.pop("text", ""), tuple(record.pop("messages", ()))
            yield Document(record.pop("id"), text, messages, provenance.get("source", ""), record)


def read_chunks(paths: Iterable[Path]) -> Iterator[Document]:
    for path in paths:
        yield from read_chunk(path)


def read_notes(chunk: Path) -> Iterator[Note]:
    """What was told of the documents of a chunk."""
    for line in _note_lines(chunk)[:-1]:
        yield Note(**json.loads(line))


def read_tally(chunks: Sequence[Path]) -> Tally:
    """What went through one pass over these chunks."""
    total = Tally()
    for chunk in chunks:
        told = json.loads(_note_lines(chunk)[-1])
        told |= {name: Counter(told[name]) for name in ("dropped", "changed")}
        total = total.beside(Tally(**told))
    return total


def notes_of(chunk: Path) -> Path:
    return chunk.with_name(f"{chunk.name}.notes")


def record_line(document: Document) -> str:
    return _line(as_record(document, provenance_of(document)))


def provenance_of(document: Document) -> dict[str, Any]:
    """Where a document was read first, however many folders of ours it went through."""
    earlier = document.meta.get("provenance")
    return earlier if isinstance(earlier, dict) else {"source": document.source}


def _note_lines(chunk: Path) -> list[bytes]:
    return notes_of(chunk).read_bytes().splitlines()


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
