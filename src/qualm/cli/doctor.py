"""`qualm doctor`: does this machine have what Qualm needs? Each finding says what to do about it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rich.table import Table

from qualm import __version__
from qualm.cli.common import Common

GB = 1e9
LEAST_MEMORY, LEAST_DISK = 2 * GB, 2 * GB
OPTIONAL = {
    "transformers": "pip install 'qualm-lm[hf]'  (only to check parity with transformers)",
    "h5py": "pip install 'qualm-lm[hdf5]'  (only to import Keras's HDF5 files)",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `ok` None means it is only told, not judged."""

    name: str
    found: str
    ok: bool | None = True
    then: str = ""


def doctor(*, common: Common = Common()) -> int:
    """Check this machine. Exits with 1 if something that is needed is missing."""
    findings = [*_software(), *_torch(), *_machine(), *_places(common.cache_folder), *_extras()]
    broken = [f for f in findings if f.ok is False]
    document = {"schema": "qualm.doctor/1", "ok": not broken, "findings": [asdict(f) for f in findings]}
    common.result(document, _table(findings))
    common.remark(f"{len(broken)} to mend" if broken else "all that is needed is here; no network is needed")
    return 1 if broken else 0


def _software() -> Iterator[Finding]:
    yield Finding("qualm", __version__)
    old = sys.version_info < (3, 11)
    yield Finding("python", platform.python_version(), not old, "install Python 3.11 or newer" if old else "")
    for line in requires("qualm-lm") or []:
        if "extra ==" not in line:
            name = line.split(">")[0].split(";")[0].strip()
            installed = _version(name)
            yield Finding(name, installed or "missing", bool(installed), "" if installed else f"pip install '{line}'")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _torch() -> Iterator[Finding]:
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding("torch loads", str(error), ok=False, then="pip install --force-reinstall torch")
        return
    threads, cores = (
        torch.get_num_threads(),
        len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    )
    few = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} holds it down" if "OMP_NUM_THREADS" in os.environ else ""
    yield Finding("torch threads", f"{threads} of {cores} cores", ok=None, then=few if threads < (cores or 1) else "")
    yield Finding("processor", f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}", ok=None)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (none is needed)"
    yield Finding("accelerator", gpu, ok=None)


def _machine() -> Iterator[Finding]:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small = total < LEAST_MEMORY
    yield Finding(
        "memory", f"{total / GB:.1f} GB", not small, "train with --size tiny and a small --batch" if small else ""
    )


def _places(cache: Path) -> Iterator[Finding]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
        yield Finding("cache", str(cache))
    except OSError as error:
        yield Finding("cache", f"{cache}: {error.strerror}", ok=False, then="name another: --cache DIR or QUALM_CACHE")
        return
    for name, folder in (("disk, cache", cache), ("disk, here", Path.cwd())):
        free = shutil.disk_usage(folder).free
        full = free < LEAST_DISK
        yield Finding(name, f"{free / GB:.1f} GB free", not full, "free some space" if full else "")


def _extras() -> Iterator[Finding]:
    for name, then in OPTIONAL.items():
        installed = _version(name)
        yield Finding(f"{name} (optional)", installed or "not installed", ok=None, then="" if installed else then)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        mark = {True: "ok", False: "MEND", None: ""}[finding.ok]
        table.add_row(mark, finding.name, finding.found, finding.then)
    return table
