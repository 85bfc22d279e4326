"""What lies inside `.gz`, `.zst`, `.bz2` and `.zip`, as streams that stop where a bomb would go on.

Nothing is unpacked ahead of what is read. A stream that gives more than `ratio` times what it took is refused, once it
has given a megabyte.
"""

import bz2
import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO

from qualm.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED = (".gz", ".zst", ".bz2")
ARCHIVE = ".zip"
_FREE = 1 << 20  # bytes that any file may unpack to
_TAKEN, _GIVEN = 1 << 16, 1 << 18  # bytes read and unpacked at a time
_WINDOW = 27  # the logarithm of the most bytes that a zstd file may ask to be held: 128 MB
_MEMBERS = 100_000


class _Gzip:
    """zlib's own object, which keeps what it has not used yet where bz2's and zstd's ask for nothing more."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _fresh(suffix: str) -> Any:
    if suffix == ".gz":
        return _Gzip()
    if suffix == ".bz2":
        return bz2.BZ2Decompressor()
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW})


class Unpacked(io.RawIOBase):
    """The content of a packed stream of one or several members. Raises InputError for damage, a cut end or a bomb."""

    def __init__(self, stream: BinaryIO, suffix: str, where: str, ratio: int):
        self._stream, self._suffix, self._where, self._ratio = stream, suffix, where, ratio
        self._inner, self._rest, self._ready = _fresh(suffix), b"", b""
        self._took = self._gave = 0
        self._started = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._more():
            pass
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        self._gave += len(part)
        if self._gave > max(self._ratio * self._took, _FREE):
            what = f"unpacks to more than {self._ratio} times its size"
            raise InputError(what, where=self._where, then="unpack it yourself, or raise --ratio")
        return len(part)

    def _more(self) -> bool:
        """Unpack some; False at the end."""
        if self._inner.eof:
            self._rest, self._inner, self._started = self._inner.unused_data, _fresh(self._suffix), False
        data, self._rest = self._rest, b""
        if not data and self._inner.needs_input:
            data = self._stream.read(_TAKEN)
            self._took += len(data)
            if not data:
                if self._started:
                    raise InputError("ends in the middle", where=self._where, then="fetch it again")
                return False
        if not self._started and not (data := data.lstrip(b"\0")):  # padding after the last member
            return True
        self._started = True
        try:
            self._ready = self._inner.decompress(data, _GIVEN)
        except (zlib.error, OSError, ValueError, zstd.ZstdError) as error:
            raise InputError(f"is damaged ({error})"[:200], where=self._where, then="fetch it again") from error
        return True


def unpacked(stream: BinaryIO, name: str, where: str, ratio: int) -> tuple[BinaryIO, str]:
    """(the stream inside all packings that the name tells, the name without them)."""
    path = PurePosixPath(name)
    while path.suffix.lower() in PACKED:
        stream = io.BufferedReader(Unpacked(stream, path.suffix.lower(), where, ratio), _TAKEN)
        path = path.with_suffix("")
    return stream, str(path)


class _Counted(io.RawIOBase):
    """A member of an archive; what all members gave is counted together."""

    def __init__(self, stream: IO[bytes], given: list[int], most: int, where: str):
        self._stream, self._given, self._most, self._where = stream, given, most, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            part = self._stream.read(len(buffer))
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
            raise InputError(f"is damaged ({error})"[:200], where=self._where, then="pack it again") from error
        buffer[: len(part)] = part
        self._given[0] += len(part)
        if self._given[0] > self._most:
            raise InputError(
                "unpacks to too many times its size", where=self._where, then="unpack it, or raise --ratio"
            )
        return len(part)


def members(stream: BinaryIO, where: str, ratio: int) -> Iterator[tuple[str, BinaryIO | InputError]]:
    """(name, content) of each file in an archive; for one that cannot be opened, why.

    Raises InputError if it is no archive, and where all that was read of it is more than `ratio` times its size.
    """
    try:
        size = stream.seek(0, io.SEEK_END)
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"is no archive that can be read ({error})"[:200], where=where) from error
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > _MEMBERS:
        raise InputError(f"holds more than {_MEMBERS} files", where=where, then="unpack it")
    given, most = [0], max(ratio * size, _FREE)
    for info in infos:
        name = info.filename
        try:
            content = archive.open(info)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, struct.error) as error:
            yield name, InputError(f"cannot be unpacked ({error})"[:200], where=f"{where}/{name}")
            continue
        with content:
            yield name, io.BufferedReader(_Counted(content, given, most, f"{where}/{name}"), _TAKEN)
