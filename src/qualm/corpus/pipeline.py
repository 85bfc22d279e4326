"""A chain of steps from documents to a folder: what is kept, what was dropped and why, and a manifest of it all.

`documents.jsonl` holds a record a document with its provenance, `dropped.jsonl` one for each that was dropped, and
`manifest.json`, written last, every step's settings and counts and the hashes of what was read and written. A split
writes `train.jsonl` and `held_out.jsonl` instead; packing, a folder of shards beside each, and `tokenizer`. The same
documents, steps and versions give the same bytes, whatever number of processes made them and however often they ended.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qualm.config import build
from qualm.corpus import chunks, cleaning, deduping
from qualm.corpus.augmenting import augment
from qualm.corpus.balancing import balance
from qualm.corpus.documents import Document
from qualm.corpus.filtering import filter_, keep
from qualm.corpus.making import FORMAT, MANIFEST, VERSION, WORK, Making, begin, read_by
from qualm.corpus.scrubbing import scrub
from qualm.corpus.settings import (
    Augmenting,
    Balancing,
    Cleaning,
    Deduping,
    Filtering,
    Keeping,
    Packing,
    Running,
    Scrubbing,
    Settings,
    Splitting,
)
from qualm.corpus.stages import Stage, each_document
from qualm.corpus.workers import workers
from qualm.errors import InputError, UsageError
from qualm.files import read_json

STEPS: Mapping[str, tuple[type, Stage | None]] = {
    "clean": (Cleaning, cleaning.stage),
    "dedup": (Deduping, deduping.stage),
    "filter": (Filtering, partial(each_document, filter_)),
    "scrub": (Scrubbing, partial(each_document, scrub)),
    "balance": (Balancing, partial(each_document, balance)),
    "augment": (Augmenting, partial(each_document, augment)),
    "keep": (Keeping, partial(each_document, keep)),
    "split": (Splitting, None),
    "pack": (Packing, None),
}


@dataclass(frozen=True)
class Pipeline:
    """Steps in order, each by its settings: `Pipeline([Cleaning(), Deduping(near=0.8), Scrubbing()])`."""

    steps: Sequence[Settings]

    @classmethod
    def of(cls, folder: Path | str) -> "Pipeline":
        """The steps that made a folder.

        Raises InputError if it is no such folder, a file that a step read has changed, or a step held a function.
        """
        path = Path(folder) / MANIFEST
        return cls(steps_of(read_manifest(path), str(path)))

    def run(self, documents: Iterable[Document], output: Path | str, running: Running = Running()) -> dict[str, Any]:
        """Write the folder; returns its manifest. Called again after it was ended, it goes on.

        The outcome does not hang on where it runs. Raises UsageError if split and pack do not come last.
        """
        output = Path(output)
        begin(output, self.steps)
        with workers(running.workers, running.on) as run:
            read = hashlib.blake2b(digest_size=16)
            given = chunks.write_all(output / WORK / "00-given", _hashed(documents, read))
            making = Making(output, run, given, read.hexdigest())
            self.take(making)
            return making.finish({"read": read.hexdigest()})

    def take(self, making: Making) -> None:
        for settings in self.steps:
            name = next(name for name, (kind, _) in STEPS.items() if isinstance(settings, kind))
            making.take(name, settings, STEPS[name][1])


def step(name: str, settings: Mapping[str, Any], where: str) -> Settings:
    """The settings of a step by its name. Raises UsageError for a name or a setting that there is not."""
    if name not in STEPS or name == "keep":
        raise UsageError(
            f"no step is named {name!r}", where=where, then=f"there are: {', '.join(set(STEPS) - {'keep'})}"
        )
    return build(STEPS[name][0], settings)


def steps_of(manifest: Mapping[str, Any], where: str) -> list[Settings]:
    """The steps of a manifest, as `Pipeline.of` says."""
    steps = []
    for told in manifest["steps"]:
        if told.get("function"):
            raise InputError(f"the step held a function, {told['function']}", where=where, then="write it anew")
        settings = step(told["step"], told["settings"], where)
        if read_by(settings) != told["files"]:
            raise InputError("a file that a step read has changed", where=where, then="bring it back")
        steps.append(settings)
    return steps


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises InputError if it is no manifest of ours."""
    manifest = read_json(path)
    if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise InputError(f"not a {FORMAT} manifest of version {VERSION}", where=str(path))
    return manifest


def _hashed(documents: Iterable[Document], digest: "hashlib.blake2b") -> Iterator[Document]:
    for document in documents:
        digest.update(document.key.encode())
        yield document
