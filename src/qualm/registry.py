"""The folder is the registry and the file name is the name: `probes/bias.py` holds `Bias`, found as "bias".

Installed plug-ins come in by the same door, through the entry point groups `qualm.probes`, `qualm.mends`, ...
"""

import pkgutil
import sys
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points

from qualm.errors import UsageError

NOT_NAMES = {"apply", "base", "layers", "store"}


def names(kind: str) -> list[str]:
    """The names of all things of a kind ("probes", "mends", "models", "world"): our files, then plug-ins.

    A file whose name begins with an underscore is a helper, not a thing.
    """
    folder = import_module(f"qualm.{kind}").__path__
    own = [m.name for m in pkgutil.iter_modules(folder) if m.name not in NOT_NAMES and not m.name.startswith("_")]
    return sorted({*own, *(entry.name for entry in _plugins(f"qualm.{kind}"))})


def find(kind: str, name: str) -> type:
    """The class behind a name. Raises UsageError with the nearest name if there is none."""
    for entry in _plugins(f"qualm.{kind}"):
        if entry.name == name:
            return entry.load()
    known = names(kind)
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise UsageError(f"no {kind.removesuffix('s')} is named {name!r}", then=hint)
    module = import_module(f"qualm.{kind}.{name}")
    wanted = name.replace("_", "")
    return next(thing for word, thing in vars(module).items() if word.lower() == wanted and isinstance(thing, type))


def _plugins(group: str) -> EntryPoints:
    return _entry_points(group, tuple(sys.path))


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> EntryPoints:
    """Those of all packages on the import path, whose files are looked through once."""
    return entry_points(group=group)
