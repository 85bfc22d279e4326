"""What comes with `pip install qualm-lm`, what an import loads, and how long it takes."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qualm.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[1]
MOST_MEGABYTES, MOST_DISTRIBUTIONS = 175, 62
MOST_SECONDS = 0.3  # of processor time, the best of three: the wall clock also tells of other programs
MOST_TIMES = 5  # what it takes here to load the parser of the command line alone, where that is more: CPUs differ
HEAVY = {"torch", "numpy", "transformers", "tokenizers", "safetensors"}


def closure(lines: Iterable[str]) -> set[str]:
    """The names of all distributions that these requirements bring, by what is installed."""
    seen: dict[str, set[str]] = {}
    todo = [Requirement(line) for line in lines]
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), wanted.extras or {""}
        if extras <= seen.get(name, set()):
            continue
        seen.setdefault(name, set()).update(extras)
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return set(seen)


def base() -> list[str]:
    return [line for line in distribution("qualm-lm").requires or [] if "extra ==" not in line]


def size(found: Distribution) -> int:
    """Bytes of the files that were installed, compiled caches left out."""
    paths = [Path(str(found.locate_file(file))) for file in found.files or [] if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_the_base_stays_small():
    everything, torch = closure(base()), closure(["torch"])
    megabytes = sum(size(distribution(name)) for name in everything - torch) / 1e6
    assert "torch" in everything
    assert len(everything) <= MOST_DISTRIBUTIONS, sorted(everything)
    assert 20 < megabytes <= MOST_MEGABYTES, f"{megabytes:.0f} MB beyond torch"


def test_the_tested_versions_are_written_down_and_installed():
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*wanted["dependencies"], *wanted["optional-dependencies"]["dev"]]
    for name in closure(lines):
        assert name in pinned, f"{name} is not in constraints.txt"
        assert distribution(name).version.split("+")[0] == pinned[name], name


def test_no_host_is_written_down():
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run"):
        hosts = re.findall(r"https?://([^/\s'\"]+)", (ROOT / name).read_text())
        assert not hosts, f"{name}: {hosts}"


def run(*arguments: str) -> tuple[str, float]:
    """Output of a Python process, and the processor seconds it took."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QUALM_", "PYTEST", "COV_"))}
    before = os.times()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return done.stdout, used


def best(*arguments: str) -> float:
    return min(run(*arguments)[1] for _ in range(3))


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


@pytest.fixture(scope="module")
def most() -> float:
    """Seconds of processor time that a page of help may take here."""
    return max(MOST_SECONDS, MOST_TIMES * best("-c", "import cyclopts"))


def test_import_loads_nothing_heavy_and_prints_nothing():
    loaded = set(run("-c", f"import qualm; {LOADED}")[0].split())
    assert "qualm" in loaded
    assert not loaded & (HEAVY | {"cyclopts", "rich", "jinja2", "babel"})
    assert run("-c", "import qualm")[0] == ""


def test_import_is_quick():
    assert best("-c", "import qualm") < MOST_SECONDS


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    told = run("-c", f"from qualm.cli.app import main; code = main({words!r}); {LOADED}; sys.exit(code)")[0]
    *page, loaded = told.splitlines()
    assert "Usage: qualm" in page[0]
    assert not set(loaded.split()) & HEAVY


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["mend", "--help"]], ids=" ".join)
def test_help_is_quick(words, most):
    assert best("-m", "qualm", *words) < most


def test_public_names_are_there_when_asked_for():
    asked = "import qualm; print(*(name for name in qualm.__all__ if getattr(qualm, name) is None))"
    assert run("-c", asked)[0].strip() == ""


def test_types_are_shipped():
    assert (ROOT / "src/qualm/py.typed").exists()
    assert distribution("qualm-lm").metadata["License-Expression"] == "Apache-2.0"
