"""A chain of steps from documents to a folder: what is kept, what was dropped and why, and a manifest of it all.

`documents.jsonl` holds a record a document with its provenance, `dropped.jsonl` one for each that was dropped, and
`manifest.json`, written last, every step's settings and counts and the hashes of what was read and written. The same
documents, steps and versions give the same bytes.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qualm import __version__
from qualm.config import build, to_dict
from qualm.corpus.cleaning import clean
from qualm.corpus.deduping import dedup
from qualm.corpus.documents import Document
from qualm.corpus.filtering import filter_, keep
from qualm.corpus.notes import Note, as_record
from qualm.corpus.scrubbing import scrub
from qualm.corpus.settings import Cleaning, Deduping, Filtering, Keeping, Scrubbing, Settings
from qualm.errors import InputError
from qualm.files import hash_file, hash_json, read_json, write_json, writing

FORMAT, VERSION = "qualm.corpus", 1
STEPS: Mapping[str, tuple[type, Callable[..., Iterator[Document]]]] = {
    "clean": (Cleaning, clean),
    "dedup": (Deduping, dedup),
    "filter": (Filtering, filter_),
    "scrub": (Scrubbing, scrub),
    "keep": (Keeping, keep),
}


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

    def went(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            self.written += 1
            self.bytes_written += document.bytes
            yield document


@dataclass(frozen=True)
class Pipeline:
    """Steps in order, each by its settings: `Pipeline([Cleaning(), Deduping(near=0.8), Scrubbing()])`."""

    steps: Sequence[Settings]

    @classmethod
    def of(cls, folder: Path | str) -> "Pipeline":
        """The steps that made a folder.

        Raises InputError if it is no such folder, a file that a step read has changed, or a step held a function.
        """
        path = Path(folder) / "manifest.json"
        manifest = read_json(path)
        if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise InputError(f"not a {FORMAT} manifest of version {VERSION}", where=str(path))
        steps = []
        for told in manifest["steps"]:
            if told.get("function"):
                raise InputError(f"the step held a function, {told['function']}", where=str(path), then="write it anew")
            settings = build(STEPS[told["step"]][0], told["settings"])
            if _files(settings) != told["files"]:
                raise InputError("a file that a step read has changed", where=str(path), then="bring it back")
            steps.append(settings)
        return cls(steps)

    def stream(
        self, documents: Iterable[Document], tell: Callable[[Note], None], tallies: list[Tally]
    ) -> Iterator[Document]:
        """The documents that come out; `tallies` gets one a step, whole when the last document is out."""
        stream: Iterable[Document] = documents
        for settings in self.steps:
            tally = Tally()
            tallies.append(tally)
            stream = tally.went(_step(settings)[1](tally.came(stream), settings, _counted(tally, tell)))
        yield from stream

    def run(self, documents: Iterable[Document], output: Path | str) -> dict[str, Any]:
        """Write the folder; returns its manifest."""
        output = Path(output)
        files = [_files(settings) for settings in self.steps]
        tallies, read = list[Tally](), hashlib.blake2b(digest_size=16)
        (output / "manifest.json").unlink(missing_ok=True)
        with writing(output / "documents.jsonl") as kept, writing(output / "dropped.jsonl") as log:

            def tell(note: Note) -> None:
                if note.dropped:
                    told = {"step": note.step, "id": note.id, "source": note.source, "reason": note.reason}
                    log.write(json.dumps({**told, "detail": note.detail}, ensure_ascii=False) + "\n")

            for document in self.stream(_hashed(documents, read), tell, tallies):
                record = as_record(document, _provenance(document))
                kept.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        return self._manifest(output, files, tallies, read.hexdigest())

    def _manifest(self, output: Path, files: list[dict[str, str]], tallies: list[Tally], read: str) -> dict[str, Any]:
        steps = []
        for settings, inputs, tally in zip(self.steps, files, tallies, strict=True):
            told: dict[str, Any] = {"step": _step(settings)[0], "settings": _settings(settings), "files": inputs}
            if isinstance(settings, Keeping):
                told["function"] = getattr(settings.keep, "__qualname__", "a function")
            counts = {name: getattr(tally, name) for name in ("read", "bytes_read", "written", "bytes_written")}
            steps.append(
                {**told, **counts, **{n: dict(sorted(getattr(tally, n).items())) for n in ("dropped", "changed")}}
            )
        names = ("documents.jsonl", "dropped.jsonl")
        hashes = {n: {"bytes": (output / n).stat().st_size, "sha256": hash_file(output / n)} for n in names}
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "qualm": __version__,
            "read": read,
            "steps": steps,
            "files": hashes,
        }
        write_json(output / "manifest.json", manifest)
        return manifest


def _hashed(documents: Iterable[Document], digest: "hashlib.blake2b") -> Iterator[Document]:
    for document in documents:
        digest.update(document.key.encode())
        yield document


def _step(settings: Settings) -> tuple[str, Callable[..., Iterator[Document]]]:
    return next((name, step) for name, (kind, step) in STEPS.items() if isinstance(settings, kind))


def _counted(tally: Tally, tell: Callable[[Note], None]) -> Callable[[Note], None]:
    def told(note: Note) -> None:
        if note.dropped:
            tally.dropped[note.reason] += 1
        else:
            tally.changed.update(note.counts)
        tell(note)

    return told


def _settings(settings: Settings) -> dict[str, Any]:
    fields = dataclasses.fields(settings)
    return {f.name: to_dict(getattr(settings, f.name)) for f in fields if f.name != "keep"}


def _files(settings: Settings) -> dict[str, str]:
    """A hash of each file or folder that a step reads."""
    found = list[Path]()
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        found += [path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)]
    hashes: dict[str, str] = {}
    for path in found:
        if not path.exists():
            raise InputError("no such file or folder", where=str(path), then="check the path")
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        hashes[str(path)] = hash_json([[p.relative_to(path).as_posix(), hash_file(p)] for p in inside])
    return hashes


def _provenance(document: Document) -> dict[str, Any]:
    """Where a document was read first, however many folders of ours it went through."""
    earlier = document.meta.get("provenance")
    return earlier if isinstance(earlier, dict) else {"source": document.source}
