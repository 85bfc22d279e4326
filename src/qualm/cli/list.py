"""`qualm list`: what there is, read off the folders."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Group
from rich.table import Table

from qualm import registry
from qualm.cli import rooms
from qualm.cli.common import Common

KINDS = {kind: kind for kind in ("probes", "mends", "models", "tasks", "importers")} | {"plants": "world"}  # word: room
SOURCE = re.compile(r"\s*\([^()]*(et al|arXiv)[^()]*\)")
Kind = Literal["probes", "mends", "models", "tasks", "importers", "plants"]


def list_(kind: Kind | None = None, /, *, common: Common = Common()) -> None:
    """List what there is.

    Args:
        kind: One kind only.
    """
    wanted: Sequence[str] = [kind] if kind else list(KINDS)
    found = {word: [_describe(KINDS[word], name) for name in registry.names(KINDS[word])] for word in wanted}
    common.result({"schema": "qualm.list/1", **found}, Group(*(_table(*kind) for kind in found.items())))


def _describe(kind: str, name: str) -> dict[str, Any]:
    thing = registry.find(kind, name)
    told = sys.modules[thing.__module__].__doc__ or thing.__doc__ or name
    limits = getattr(thing, "mends", None) or {getattr(thing, "limit", "")} - {""}
    found = {
        "name": name,
        "about": _sentence(told, name),
        "limits": sorted(limits),
        "needs": sorted(getattr(thing, "needs", ())),
    }
    if kind == "models":
        reads = sorted(thing.config_class.model_types)  # type: ignore[attr-defined]
        return {**found, "can": sorted(rooms.load.abilities(thing) - {"weights"}), "model_types": reads}
    return found


def _sentence(told: str, name: str) -> str:
    """The first sentence of a docstring, without its sources and without the name that stands beside it."""
    text = SOURCE.sub("", " ".join(told.split("\n\n")[0].split()))
    text = re.split(r"(?<=[.?])\s", text)[0].removeprefix(f"{name.capitalize()}: ")
    return text[:1].upper() + text[1:]


def _table(word: str, things: list[dict[str, Any]]) -> Table:
    """A row a thing; a column that none of them fills is left out."""
    columns = {"limit": "limits", "needs": "needs", "can": "can", "reads": "model_types"}
    used = {column: key for column, key in columns.items() if any(thing.get(key) for thing in things)}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("kind", "name", "what", *used):
        table.add_column(column, no_wrap=column not in ("what", "can", "reads"))
    for thing in things:
        told = (", ".join(thing.get(key, ())) for key in used.values())
        table.add_row(word.removesuffix("s"), thing["name"], thing["about"], *told)
    return table
