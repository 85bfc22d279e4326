"""Books and documents that are archives inside: refused before they are unpacked if they are bombs."""

import struct
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from qualm.corpus.formats.base import File
from qualm.errors import InputError

_FREE = 4 << 20  # bytes that any may unpack to


def checked(raw: bytes, file: File) -> ZipFile:
    """The archive. What it says of its sizes is what `zipfile` reads at most. Raises InputError if it is none, or a
    bomb."""
    try:
        archive = ZipFile(BytesIO(raw))
    except (BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"is no {file.suffix} file ({error})"[:200], where=file.where) from error
    total = sum(info.file_size for info in archive.infolist())
    if total > max(_FREE, file.settings.ratio * len(raw)):
        what = f"unpacks to more than {file.settings.ratio} times its size"
        raise InputError(what, where=file.where, then="raise --ratio if that is right")
    return archive
