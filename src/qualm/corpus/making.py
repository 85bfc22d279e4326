"""The making of a corpus, step by step, in a folder of work that outlives a kill.

Each step has a folder named by all that its outcome hangs on: what came in, its settings, the files it reads, our
version. A step that is done says so in `done.json`; then the chunks it was made of are removed, and its tables. So the
same call again goes on where the last one ended, and another call never takes what is not its own.
"""

import dataclasses
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from qualm import __version__
from qualm.config import to_dict
from qualm.corpus import packs, splitting
from qualm.corpus.chunks import Tally, notes_of, read_notes, read_tally
from qualm.corpus.packs import WHOLE
from qualm.corpus.settings import Keeping, Packing, Settings, Splitting
from qualm.corpus.stages import Passes, Stage, Work
from qualm.corpus.workers import Run, here
from qualm.errors import UsageError
from qualm.files import hash_file, hash_json, hash_tree, read_json, write_json, writing

FORMAT, VERSION = "qualm.corpus", 1
WORK, MANIFEST, DROPPED = "work", "manifest.json", "dropped.jsonl"
Sides = Mapping[str, list[Path]]  # chunks by what they are for: WHOLE, or train and held_out


@dataclass
class Making:
    """`given` are the first chunks, `identity` (at first `read`) what they hang on; `told` gets an entry a step."""

    output: Path
    run: Run
    given: list[Path]
    identity: str
    told: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.read = self.identity
        self.sides: Sides = {WHOLE: self.given}
        self.passes: list[list[Path]] = [self.given]

    def take(self, name: str, settings: Settings, stage: Stage | None) -> None:
        """One step further."""
        files = read_by(settings)
        told: dict[str, Any] = {"step": name, "settings": settings_of(settings), "files": files}
        run, once = self.run, ""
        if isinstance(settings, Keeping):  # a function of the user's: it can neither be sent nor be told from another
            told["function"] = getattr(settings.keep, "__qualname__", "a function")
            run, once = here, secrets.token_hex()
        self.identity = hash_json([self.identity, told, once, __version__, VERSION])
        folder = self.output / WORK / f"{len(self.told) + 1:02d}-{name}-{self.identity[:16]}"
        if not (folder / "done.json").exists():
            self._make(Work(folder, run), settings, stage)
        done = read_json(folder / "done.json")
        for chunks in self.sides.values():
            if name != "pack":
                _remove(chunk for chunk in chunks if chunk.parent != folder)
        if name != "pack":
            self.sides = {side: [folder / n for n in names] for side, names in done["sides"].items()}
        self.passes += [[folder / n for n in names] for names in done["passes"]]
        kept = {n for names in done["sides"].values() for n in names} | {"done.json"}
        noted = {notes_of(folder / n).name for names in done["passes"] for n in names}
        _remove(path for path in folder.iterdir() if path.name not in kept | noted)
        self.told.append({**told, **done["counts"]})

    def _make(self, work: Work, settings: Settings, stage: Stage | None) -> None:
        work.folder.mkdir(parents=True, exist_ok=True)
        sources = self.sides.get(WHOLE, [])
        passes: Passes = []
        sides: Sides = {}
        counts: dict[str, Any] = {}
        if isinstance(settings, Packing):
            counts = {"packed": packs.stage(work, self.sides, settings, self.output)}
        elif isinstance(settings, Splitting):
            sides = splitting.stage(work, sources, settings)
            passes = [*sides.values()]
            counts = _counts(*(read_tally(chunks) for chunks in passes))
        elif stage:
            passes = stage(work, sources, settings)
            sides = {WHOLE: passes[-1]}
            counts = _counts(reduce(Tally.then, map(read_tally, passes)))
        done = {"sides": {side: [c.name for c in chunks] for side, chunks in sides.items()}, "counts": counts}
        write_json(work.folder / "done.json", {**done, "passes": [[c.name for c in chunks] for chunks in passes]})

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Write documents, what was dropped, and the manifest; the work is removed. Returns the manifest."""
        for side, chunks in self.sides.items():
            with writing(self.output / f"{side}.jsonl", "wb") as file:
                for chunk in chunks:
                    with chunk.open("rb") as piece:
                        shutil.copyfileobj(piece, file)
        with writing(self.output / DROPPED) as log:
            for note in (note for chunks in self.passes for chunk in chunks for note in read_notes(chunk)):
                if note.dropped:
                    told = {n: getattr(note, n) for n in ("step", "id", "source", "reason", "detail", "excerpt")}
                    log.write(json.dumps(told, ensure_ascii=False) + "\n")
        manifest = {"format": FORMAT, "version": VERSION, "qualm": __version__, **about, "steps": self.told}
        manifest["files"] = hashes(self.output, self.written)
        write_json(self.output / MANIFEST, manifest)
        shutil.rmtree(self.output / WORK)
        return manifest

    @property
    def written(self) -> Iterator[Path]:
        """The files that come out."""
        yield from (self.output / f"{side}.jsonl" for side in self.sides)
        yield self.output / DROPPED
        if any(told["step"] == "pack" for told in self.told):
            for name in (packs.TOKENIZER, *self.sides):
                yield from sorted((self.output / name).iterdir())


def begin(output: Path, steps: Sequence[Settings]) -> None:
    """An output folder without what an earlier making of other steps left. Raises UsageError for a wrong order."""
    kinds = [type(settings) for settings in steps]
    for kind, name, after in ((Splitting, "split", (Packing,)), (Packing, "pack", ())):
        if kind in kinds and (kinds.count(kind) > 1 or not set(kinds[kinds.index(kind) + 1 :]) <= set(after)):
            raise UsageError(f"{name} stands before other steps", where="steps", then="split, then pack, come last")
    (output / MANIFEST).unlink(missing_ok=True)
    (output / WORK).mkdir(parents=True, exist_ok=True)
    for left in output.glob("*/**/.*.tmp"):  # of a run that was killed; what is beside the folders may be open now
        left.unlink()


def hashes(output: Path, files: Iterator[Path]) -> dict[str, Any]:
    return {
        path.relative_to(output).as_posix(): {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in files
    }


def settings_of(settings: Settings) -> dict[str, Any]:
    fields = dataclasses.fields(settings)
    return {f.name: to_dict(getattr(settings, f.name)) for f in fields if f.name != "keep"}


def read_by(settings: Settings) -> dict[str, str]:
    """A hash of each file or folder that a step reads."""
    found = list[Path]()
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        found += [path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)]
    return {str(path): hash_tree(path) for path in found}


def _counts(first: Tally, *others: Tally) -> dict[str, Any]:
    """What the manifest says of a step; of a split, what was held out besides."""
    told = {name: getattr(first, name) for name in ("read", "bytes_read", "written", "bytes_written")}
    told |= {name: dict(sorted(getattr(first, name).items())) for name in ("dropped", "changed")}
    if others:
        told["held_out"] = {name: getattr(others[0], name) for name in ("written", "bytes_written")}
    return told


def _remove(files: Iterator[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
