"""Settings that were not given as flags, in order: environment, project file, user file.

`QUALM_TRAIN_STEPS=100`, or `[train]` with `steps = 100` in `./qualm.toml` or `~/.config/qualm/qualm.toml`.
`QUALM_CACHE` and a `cache = ...` above all tables are for every verb.
"""

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from qualm.errors import InputError, UsageError

PREFIX = "QUALM_"
PROJECT = "qualm.toml"
SHARED = {"cache"}  # keys for every verb


@dataclass(frozen=True)
class Layer:
    """Settings by verb, and where they came from."""

    origin: str
    verbs: Mapping[str, Mapping[str, Any]]


def layers(verbs: Collection[str], file: Path | None = None) -> list[Layer]:
    """The layers under the command line, strongest first. `file` stands in for the project's.

    Raises UsageError for a table that is no verb, InputError for a file that is not TOML or not there.
    """
    if file and not file.is_file():
        raise InputError("no such settings file", where=str(file))
    found = [Layer("environment", _from_environment(verbs))]
    for path in (file or Path(PROJECT), user_file()):
        if path.is_file():
            found.append(Layer(str(path), _from_file(path, verbs)))
    return found


def user_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "qualm" / PROJECT


def entries(found: list[Layer]) -> Iterator[tuple[str, str, Any, str, bool]]:
    """(verb, key, value, origin, whether it counts) of every setting; a stronger layer hides a weaker one."""
    seen: set[tuple[str, str]] = set()
    for layer in found:
        for verb, values in sorted(layer.verbs.items()):
            for key, value in sorted(values.items()):
                name = (verb, key.replace("-", "_"))
                yield verb, key, value, layer.origin, name not in seen
                seen.add(name)


def _from_environment(verbs: Collection[str]) -> dict[str, dict[str, Any]]:
    """A name that is no verb's is someone else's (Kubernetes sets QUALM_PORT for a service named qualm)."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or not value:
            continue
        first, _, key = name.removeprefix(PREFIX).lower().partition("_")
        if first in SHARED and not key:
            for verb in verbs:
                found.setdefault(verb, {})[first] = value
        elif first in verbs and key:
            found.setdefault(first, {})[key] = value
    return found


def _from_file(path: Path, verbs: Collection[str]) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not a TOML file ({error})", where=str(path)) from error
    shared = {key: content.pop(key) for key in SHARED & content.keys()}
    for key, value in content.items():
        if key not in verbs or not isinstance(value, dict):
            near = get_close_matches(key, [*verbs, *SHARED], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(verbs))}"
            raise UsageError(f"no verb or setting is named {key!r}", where=str(path), then=hint)
    return {verb: {**shared, **content.get(verb, {})} for verb in verbs if shared or verb in content}
