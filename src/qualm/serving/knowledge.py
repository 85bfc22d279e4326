"""Knowledge bases: documents that answers may rest on. A base belongs to the key that made it; no other key sees it.

OWNER/BASE/FILE below one folder, each file as it was sent. What a file says is read once, in a process of its own where
its format can hang, and a file that cannot be read is not kept.
"""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import Request

from qualm.corpus.collecting import collect
from qualm.corpus.settings import Collecting
from qualm.corpus.taking import is_known
from qualm.errors import InputError, QualmError
from qualm.files import writing
from qualm.mends.retrieval import Library, Passage, Retrieval, cut
from qualm.serving.errors import Refusal

BASE, FILE = re.compile(r"[\w-]{1,64}"), re.compile(r"[^/\\\x00-\x1f]{1,128}")
BASES, FILES, BYTES = 16, 200, 256 * 2**20  # that one key may keep
READING = Collecting(strict=True, largest=64 * 2**20)


def owner(request: Request) -> str:
    """The folder of who asks: of the key's name a hash, so that no name leads out of the folder."""
    key = request.scope["state"]["key"]
    return hashlib.blake2b(key.name.encode(), digest_size=12).hexdigest() if key is not None else "everyone"


@dataclass
class Base:
    """The files of one knowledge base, the passages they were cut into, and the index over all of them."""

    folder: Path
    files: dict[str, list[Passage]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    index: Library | None = None

    def passages(self) -> Library:
        """The index, made anew where files came or went."""
        with self.lock:
            if self.index is None:
                found = [passage for name in sorted(self.files) for passage in self.files[name]]
                self.index = Library(found, Retrieval(docs=self.folder))
            return self.index

    def told(self) -> dict[str, Any]:
        files = [{"name": name, "passages": len(self.files[name])} for name in sorted(self.files)]
        return {"id": self.folder.name, "object": "knowledge", "files": files}

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())


class Knowledge:
    """All knowledge bases of a server."""

    def __init__(self, folder: Path | None = None):
        self.kept = folder is not None
        self._folder = folder.resolve() if folder else None
        self._bases: dict[tuple[str, str], Base] = {}
        self._lock = Lock()

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="qualm-knowledge-"))
        return self._folder

    def bases(self, who: str) -> list[Base]:
        """The bases of one key, those of an earlier server in this folder included."""
        place = self._folder / who if self._folder else None
        if place is None or not place.is_dir():
            return []
        names = sorted(path.name for path in place.iterdir() if path.is_dir() and BASE.fullmatch(path.name))
        return [self._base(who, name) for name in names]

    def find(self, who: str, name: str) -> Base:
        """Raises Refusal if there is no such base."""
        if (who, name) not in self._bases and name not in (base.folder.name for base in self.bases(who)):
            raise Refusal(
                404, f"there is no knowledge base {name[:64]!r}", param="knowledge", code="knowledge_not_found"
            )
        return self._base(who, name)

    def put(self, who: str, name: str, file: str, content: bytes) -> Base:
        """Add a file, or write it anew. Raises Refusal for names that are none, what cannot be read, and too much."""
        if not BASE.fullmatch(name):
            raise Refusal(
                400, "a knowledge base is named by letters, digits, - and _", param="base", code="invalid_value"
            )
        if not FILE.fullmatch(file) or file.startswith(".") or not is_known(file):
            raise Refusal(400, f"{file[:64]!r}: files of this kind are not read", param="file", code="invalid_value")
        if len(self.bases(who)) >= BASES and not (self.folder / who / name).is_dir():
            raise Refusal(400, f"{BASES} knowledge bases are there already", param="base", code="too_many")
        base = self._base(who, name)
        with base.lock:
            if len(base.files) >= FILES and file not in base.files:
                raise Refusal(400, f"{FILES} files are in it already", param="file", code="too_many")
            if base.bytes + len(content) > BYTES:
                raise Refusal(413, f"it would hold more than {BYTES} bytes", param="file", code="body_too_large")
            passages = self._read(base, file, content)
            with writing(base.folder / file, "wb") as kept:
                kept.write(content)
            base.files[file], base.index = passages, None
        return base

    def remove(self, who: str, name: str, file: str) -> Base:
        """Take a file out; the base goes with its last one."""
        base = self.find(who, name)
        with base.lock:
            if file not in base.files:
                raise Refusal(404, f"there is no file {file[:64]!r} in it", param="file", code="file_not_found")
            del base.files[file]
            base.index = None
            (base.folder / file).unlink(missing_ok=True)
            if not base.files:
                base.folder.rmdir()
                del self._bases[who, name]
        return base

    def close(self) -> None:
        """Take away what was kept for this server only."""
        if not self.kept and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _base(self, who: str, name: str) -> Base:
        with self._lock:
            if (who, name) not in self._bases:
                folder = self.folder / who / name
                folder.mkdir(parents=True, exist_ok=True)
                files = {path.name: read(path) for path in sorted(folder.iterdir()) if is_known(path.name)}
                self._bases[who, name] = Base(folder, files)
            return self._bases[who, name]

    def _read(self, base: Base, file: str, content: bytes) -> list[Passage]:
        with tempfile.TemporaryDirectory(prefix="qualm-file-") as folder:
            path = Path(folder) / file
            path.write_bytes(content)
            try:
                return read(path)
            except QualmError as error:
                self._forget(base)
                raise Refusal(400, f"{file}: {error.what}", param="file", code="unreadable_file") from error

    def _forget(self, base: Base) -> None:
        """A base that never got a file leaves nothing."""
        if not base.files:
            base.folder.rmdir()
            self._bases = {where: each for where, each in self._bases.items() if each is not base}


def read(path: Path) -> list[Passage]:
    """The passages of a file. Raises QualmError if it cannot be read or says nothing."""
    found = [passage for document in collect([path], READING) for passage in cut(document)]
    if not found:
        raise InputError("holds no text", where=path.name)
    return found
