"""Files that are either whole or not there: written to a temporary name, synced, renamed. And content hashes."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from qualm.errors import InputError, QualmError

CLOSED = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable")
REMEDIES = {**CLOSED, errno.EIO: "look at the disk"}  # of all else that keeps one from writing: free some space


@contextlib.contextmanager
def changing(where: Path | str, act: str = "write", then: str = "or name another place") -> Iterator[None]:
    """Raises QualmError, which says what to do about it, where the disk is full, failing or closed to us."""
    try:
        yield
    except OSError as error:
        mend = REMEDIES.get(error.errno or 0, "free some space")
        raise QualmError(
            f"cannot {act}: {error.strerror or error}", where=str(where), then=f"{mend}, {then}"
        ) from error


@contextlib.contextmanager
def writing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; on a clean exit sync it and rename it into place.

    On any error the temporary file is removed and what stood at `path` before is untouched.
    A full or failing disk raises QualmError naming the file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with changing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what went wrong first is told
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    with writing(path) as file:
        file.write(text)


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Raises InputError naming the file, and the line if it is not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path)) from error
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise InputError(f"not a JSON file ({error})", where=str(path)) from error


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(path: Path | str) -> str:
    """A hash of a file, or of all files in a folder with their names. Raises InputError if there is neither."""
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), then="check the path")
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return hash_json([[p.relative_to(path).as_posix(), hash_file(p)] for p in inside])


def hash_json(value: Any) -> str:
    """A short content hash (128 bits, hex) of anything JSON can say, keys sorted."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
