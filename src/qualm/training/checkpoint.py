"""Checkpoints that are whole or not there, whatever moment the process dies at.

A checkpoint is a directory `step-000100/`, built under a temporary name, synced, and renamed into place; its
`manifest.json`, written last, holds the SHA-256 of every file. Resuming takes the newest whose hashes hold. An older
one is removed only after a newer one stands, and is renamed first, so that half of it is never taken for a whole.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError

from qualm.errors import InputError, QualmError
from qualm.files import changing, hash_file, hash_json, sync_folder, write_text

try:
    import fcntl
except ImportError:  # Windows has no such lock; two runs on one folder go unnoticed there
    fcntl = None  # type: ignore[assignment]

FORMAT, VERSION = "qualm.checkpoint", 1
NAME = re.compile(r"step-(\d{6,})")


HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())  # the folders that are claimed here


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made, as long as this lasts; inside it may be claimed again.

    Raises QualmError if another run is there, or it cannot be made.
    """
    if folder.resolve() in HELD.get():
        yield
        return
    with changing(folder, "save a checkpoint", "then run again"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    held = HELD.set(HELD.get() | {folder.resolve()})
    try:
        _lock(lock, folder)
        yield
    finally:
        HELD.reset(held)
        os.close(lock)


def _lock(handle: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise QualmError(
            "another run is writing here", where=str(folder), then="wait for it, or name another folder"
        ) from error


class Checkpoints:
    """The checkpoints of one run in `folder`, locked against a second run while it is open.

    `on_event` is told of every damaged checkpoint that is passed over.
    """

    def __init__(self, folder: Path, on_event: Callable[[str], None]):
        self.folder, self.on_event = folder, on_event

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(claimed(self.folder))
            with self._changing("remove what a run left that was killed"):
                for left in self.folder.glob(".*.tmp"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            self.open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.open.close()

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """All steps that have a checkpoint, whole or damaged, newest first."""
        found = (NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def save(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the checkpoint of `step`; `fill` writes its files into a folder.

        Raises QualmError if the disk is full or fails; the checkpoints that stood before still stand.
        """
        final = self.path(step)
        building = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            with self._changing("save a checkpoint"):
                building.mkdir()
                fill(building)
                seal(building)
                if final.exists():  # damaged, or of a later time that was lost
                    self._remove(step)
                building.rename(final)
                sync_folder(self.folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def newest(self) -> int | None:
        """The newest step whose checkpoint is whole; None if there is none at all.

        Raises InputError if there are checkpoints, but none can be used.
        """
        steps = self.steps()
        for step in steps:
            fault = find_fault(self.path(step))
            if not fault:
                return step
            self.on_event(f"{self.path(step)}: {fault}; it is passed over")
        if steps:
            raise InputError(
                "none of the checkpoints is whole", where=str(self.folder), then="remove the folder to start anew"
            )
        return None

    def prune(self, keep: set[int]) -> None:
        """Remove all checkpoints but the last two and those in `keep`."""
        with self._changing("remove an old checkpoint"):
            for step in self.steps()[2:]:
                if step not in keep:
                    self._remove(step)

    def _remove(self, step: int) -> None:
        path = self.path(step)
        gone = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)

    @contextmanager
    def _changing(self, act: str) -> Iterator[None]:
        then = "then run again"
        try:
            with changing(self.folder, act, then):
                yield
        except SafetensorError as error:  # which keeps the reason in its words
            raise QualmError(
                f"cannot {act}: {error}", where=str(self.folder), then=f"free some space, {then}"
            ) from error


def seal(folder: Path) -> None:
    """Sync every file of `folder`, then write the manifest of their hashes and sync that too."""
    files = {}
    for path in _files(folder):
        path.chmod(folder.stat().st_mode & 0o666)  # safetensors writes for the owner alone
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    write_text(folder / "manifest.json", _manifest(files))


def find_fault(folder: Path) -> str:
    """What is wrong with a sealed folder: a file missing, cut short or changed; "" if nothing is."""
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        files = json.loads(text)["files"]
        if text != _manifest(files):
            return "its manifest is damaged"
    except FileNotFoundError:
        return "its manifest is missing"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its manifest is damaged"
    except OSError as error:
        return f"its manifest cannot be read ({error.strerror})"
    for name, file in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        try:
            if path.stat().st_size != file["bytes"] or hash_file(path) != file["sha256"]:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _manifest(files: dict[str, Any]) -> str:
    content = {"format": FORMAT, "version": VERSION, "files": files}
    return json.dumps({**content, "hash": hash_json(content)}, indent=2) + "\n"


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json")
