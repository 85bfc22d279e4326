"""One file to documents: unpacked, read by its format, mended; and what became of it, told."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from qualm import registry
from qualm.corpus.document import Document
from qualm.corpus.formats.base import File, Format, Taken
from qualm.corpus.notes import rewritten
from qualm.corpus.settings import Collecting
from qualm.corpus.unpacking import ARCHIVE, PACKED, members, unpacked
from qualm.errors import InputError, QualmError
from qualm.text import encoding

TellTaken = Callable[[Taken], None]


@cache
def kinds() -> dict[str, tuple[str, type[Format]]]:
    """Ending -> (name, format), of every file in `qualm.corpus.formats` and every plug-in."""
    found = {name: registry.find("corpus.formats", name) for name in registry.names("corpus.formats")}
    return {suffix: (name, kind) for name, kind in found.items() for suffix in kind.suffixes}


def suffix_of(name: str) -> str:
    """The ending that says what a file is, under those that say how it is packed: ".jsonl" of "a.jsonl.gz"."""
    path = PurePosixPath(name)
    while path.suffix.lower() in PACKED:
        path = path.with_suffix("")
    return path.suffix.lower()


def is_known(name: str) -> bool:
    return suffix_of(name) in kinds() or suffix_of(name) == ARCHIVE


def is_apart(name: str) -> bool:
    """Whether a file is read in a process of its own."""
    suffix = suffix_of(name)
    return suffix == ARCHIVE or (suffix in kinds() and kinds()[suffix][1].apart)


@dataclass(frozen=True)
class Taker:
    """Reads files in this process; `tell` learns what became of each, at its end.

    Where settings are strict, it raises InputError at the first thing that cannot be used.
    """

    settings: Collecting
    tell: TellTaken

    def file(self, path: Path, name: str) -> Iterator[Document]:
        taken = Taken(name)
        try:
            with path.open("rb") as stream:
                taken.bytes = path.stat().st_size
                yield from self.stream(stream, taken, str(path), path)
        except OSError as error:
            self.failed(taken, InputError(f"cannot be read: {error.strerror or error}", where=str(path)))

    def stream(
        self, stream: BinaryIO, taken: Taken, where: str, path: Path | None = None, depth: int = 0
    ) -> Iterator[Document]:
        """The documents in a stream of bytes that is called `taken.name`."""
        try:
            inner, plain = unpacked(stream, taken.name, where, self.settings.ratio)
            suffix = PurePosixPath(plain).suffix.lower()
            if suffix == ARCHIVE:
                yield from self._archive(inner, taken, where, depth)
            elif suffix not in kinds():
                then = "give .txt, .md, .jsonl or a folder"
                raise InputError(f"cannot read documents from a {suffix or 'nameless'} file", where=where, then=then)
            else:
                taken.format, kind = kinds()[suffix]
                lies = path if inner is stream else None
                file = File(taken.name, where, suffix, inner, self.settings, taken, lies)
                for document in _guarded(kind().read(file), where):
                    taken.documents += 1
                    yield self._mended(document, taken)
        except InputError as error:
            self.failed(taken, error)
            return
        if suffix != ARCHIVE:
            taken.reason = "" if taken.documents else "holds no text"
            self.tell(taken)

    def failed(self, taken: Taken, error: InputError) -> None:
        """A file that cannot be used, or not to its end. Raises the error where that is not passed over."""
        if self.settings.strict:
            raise error
        taken.reason = error.what[:300]
        self.tell(taken)

    def _archive(self, stream: BinaryIO, taken: Taken, where: str, depth: int) -> Iterator[Document]:
        """The documents of each file in it, but hidden ones and those of other kinds."""
        if depth >= self.settings.depth:
            raise InputError(f"archives in archives, deeper than {depth}", where=where, then="unpack it")
        if not stream.seekable():
            stream = io.BytesIO(_bounded(stream, self.settings.largest, where))
        count = 0
        for member, content in members(stream, where, self.settings.ratio):
            parts = PurePosixPath(member).parts
            if any(part.startswith((".", "__MACOSX")) for part in parts) or not is_known(member):
                continue
            count += 1
            inside = Taken(f"{taken.name}/{member}")
            if isinstance(content, InputError):
                self.failed(inside, content)
                continue
            yield from self.stream(content, inside, f"{where}/{member}", depth=depth + 1)
        if not count:
            raise InputError("holds no file of a kind that is read", where=where)

    def _mended(self, document: Document, taken: Taken) -> Document:
        made = rewritten(document, encoding.mended) if self.settings.repair else document
        taken.mended += made is not document
        return made


def _bounded(stream: BinaryIO, most: int, where: str) -> bytes:
    data = stream.read(most + 1)
    if len(data) > most:
        raise InputError(f"an archive larger than {most} bytes inside another", where=where, then="unpack it")
    return data


def _guarded(documents: Iterator[Document], where: str) -> Iterator[Document]:
    """What a parser of others raises, as the error of a file that cannot be used."""
    try:
        yield from documents
    except QualmError:
        raise
    except MemoryError as error:
        raise InputError("needs more memory than is allowed", where=where, then="raise --memory") from error
    except Exception as error:
        raise InputError(f"cannot be read ({type(error).__name__}: {error})"[:300], where=where) from error
