"""What several test files share: a small model trained once a session, and the command line as a function."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from qualm.cli.app import main

SHARED = "QUALM_SHARED"
NAMES, ANIMALS = ("Ana", "Bo", "Cy", "Di", "Ed", "Fay"), ("cat", "dog", "fox", "owl", "hen")
COLOURS = ("red", "blue", "green", "black", "white")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", default="", help="a folder for pictures of every view of the page")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without = pytest.mark.skip(reason=f"the folder of shared data is not named in {SHARED}")
    for item in items:
        if item.get_closest_marker("shared") and not os.environ.get(SHARED):
            item.add_marker(without)


@pytest.fixture(scope="session", autouse=True)
def same_arithmetic_on_every_machine() -> Iterator[None]:
    """What is left open is computed in fp32, also where bf16 is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qualm.training.precision.choose", lambda device: ("fp32", ""))
        yield


@pytest.fixture
def qualm(capsys, monkeypatch, tmp_path) -> Callable[..., Done]:
    """`qualm("train", "notes", ...)` runs the command line in this process, in an empty folder, with an empty cache."""
    for name in [name for name in os.environ if name.startswith("QUALM_") and name != SHARED]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("qualm.cli.app.leave_on_sigterm", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return Done(code, told.out, told.err)

    return run


@pytest.fixture(scope="session")
def notes(tmp_path_factory) -> Path:
    """A folder with text that a small model learns in a moment."""
    folder, rng = tmp_path_factory.mktemp("notes"), random.Random(0)
    for number in range(8):
        beasts = [(rng.choice(NAMES), rng.choice(COLOURS), rng.choice(ANIMALS)) for _ in range(60)]
        lines = [f"{name} has a {colour} {animal}. The {animal} is {colour}.\n" for name, colour, animal in beasts]
        (folder / f"{number}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def small_model(notes, tmp_path_factory) -> Path:
    """A folder with a model trained on the notes."""
    folder = tmp_path_factory.mktemp("models") / "small"
    words = ["--size", "30k", "--steps", "30", "--batch", "4", "--vocab", "400", "--length", "256", "-q"]
    assert main(["train", str(notes), "-o", str(folder), *words]) == 0
    return folder
