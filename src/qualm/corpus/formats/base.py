"""What a format is: from the bytes of one file to documents, a stream with bounds on everything it holds."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from qualm.corpus.document import Document
from qualm.corpus.settings import Collecting
from qualm.errors import InputError
from qualm.text import encoding

SAMPLE = 256 * 1024  # bytes from which an encoding is told
TOLD = 20  # malformed lines of a file that are named; all are counted


@dataclass
class Taken:
    """What became of one file. `records` are its lines, rows or entries, `bad` those left out, `bad_at` the first."""

    name: str
    format: str = ""
    encoding: str = ""
    bytes: int = 0
    sha256: str = ""
    documents: int = 0
    records: int = 0
    mended: int = 0
    bad: int = 0
    bad_at: list[str] = field(default_factory=list)
    reason: str = ""  # why it was skipped, or where it was cut short


@dataclass
class File:
    """One file as a format reads it: `name` as its documents are called after it, `where` as errors name it."""

    name: str
    where: str
    suffix: str
    stream: BinaryIO
    settings: Collecting
    taken: Taken
    path: Path | None = None  # where its bytes lie on a disk, unpacked

    def bad(self, place: int | str, error: InputError) -> None:
        """A record that cannot be used: left out and counted. Raises it if nothing may be passed over."""
        if self.settings.strict:
            raise error
        self.taken.bad += 1
        if len(self.taken.bad_at) < TOLD:
            self.taken.bad_at.append(f"{place}: {error.what}"[:300])

    def whole(self) -> bytes:
        """All of it. Raises InputError if that is more than a document may have."""
        most = self.settings.largest
        data = self.stream.read(most + 1)
        if len(data) > most:
            raise InputError(f"larger than {most} bytes", where=self.where, then="raise --largest, or break it up")
        return data

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, line with its end); a byte order mark is dropped. A line that is too long or that cannot be decoded
        is bad, and never held whole."""
        stream, codec = self._decided()
        most = self.settings.largest
        for number, raw in enumerate(iter(lambda: stream.readline(most + 1), b""), 1):
            where = f"{self.where}:{number}"
            if len(raw) > most:
                while not raw.endswith(b"\n") and (raw := stream.readline(1 << 20)):
                    pass
                self.bad(number, InputError(f"a line longer than {most} bytes", where=where, then="break it up"))
                continue
            try:
                line = raw.decode(codec)
            except UnicodeDecodeError as error:
                name = "UTF-8" if codec == "utf-8" else codec
                what = f"not {name} ({error.reason} at byte {error.start + 1} of the line)"
                self.bad(number, InputError(what, where=where, then="convert the file to UTF-8"))
                continue
            yield number, line.removeprefix("\ufeff") if number == 1 else line

    def _decided(self) -> tuple[BinaryIO, str]:
        """(the stream from its beginning, how its lines are decoded): what is wide is made UTF-8 on the way."""
        if not self.settings.repair:
            return self.stream, "utf-8"
        head = self.stream.read(SAMPLE)
        codec = encoding.detect(head, whole=len(head) < SAMPLE)
        if codec is None:
            raise InputError("is no text in any encoding that is known", where=self.where)
        self.taken.encoding = codec
        stream = io.BufferedReader(Rejoined(head, self.stream), SAMPLE)
        if codec.startswith(("utf-16", "utf-32")):
            return io.BufferedReader(Recoded(stream, codec, self.where), SAMPLE), "utf-8"
        return stream, codec

    def text(self, raw: bytes) -> str:
        """Bytes as text: UTF-8, or what they are found to be. Raises InputError if that is nothing sound."""
        codec = encoding.detect(raw, whole=True) if self.settings.repair else "utf-8"
        if codec is None:
            raise InputError("is no text in any encoding that is known", where=self.where)
        self.taken.encoding = self.taken.encoding or codec
        try:
            return raw.decode(codec).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            what = f"not {codec} ({error.reason} at byte {error.start + 1})"
            raise InputError(what, where=self.where, then="convert the file to UTF-8") from error

    def document(self, place: int | str, text: str, **meta: Any) -> Iterator[Document]:
        """One document of a text that a parser gave, or none if it is blank."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if text.strip():
            name = f"{self.name}:{place}" if place else self.name
            yield Document(name, text, source=name, meta={key: value for key, value in meta.items() if value})


class Format(ABC):
    """A format by its file names' endings. `apart`: read in a process of its own, which may be ended."""

    suffixes: ClassVar[tuple[str, ...]]
    apart: ClassVar[bool] = False

    @abstractmethod
    def read(self, file: File) -> Iterator[Document]:
        """The documents of a file, in order. Raises InputError where it cannot be read on."""


class Rejoined(io.RawIOBase):
    """Bytes that were read already, and the stream they came from."""

    def __init__(self, head: bytes, rest: BinaryIO):
        self._head, self._at, self._rest = head, 0, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._at < len(self._head):
            part = self._head[self._at : self._at + len(buffer)]
            self._at += len(part)
        else:
            part = self._rest.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class Recoded(io.RawIOBase):
    """UTF-16 or UTF-32 as UTF-8. Raises InputError where it cannot be decoded."""

    def __init__(self, stream: BinaryIO, codec: str, where: str):
        self._stream, self._where, self._ready = stream, where, b""
        self._decoder = encoding.decoder(codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            raw = self._stream.read(1 << 16)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise InputError(f"not {error.encoding} ({error.reason})", where=self._where) from error
            self._ready = text.encode("utf-8", "replace")
            if not raw:
                break
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
