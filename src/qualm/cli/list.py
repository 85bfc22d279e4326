"""`qualm list`: what there is, read off the folders."""

import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

from rich.table import Table

from qualm import registry
from qualm.cli.common import Common

KINDS = {"probes": "probes", "mends": "mends", "models": "models", "importers": "importers", "plants": "world"}
SOURCE = re.compile(r"\s*\([^()]*(et al|arXiv)[^()]*\)")
Kind = Literal["probes", "mends", "models", "importers", "plants"]


def list_(kind: Kind | None = None, /, *, common: Common = Common()) -> None:
    """List what there is.

    Args:
        kind: One kind only.
    """
    wanted: Sequence[str] = [kind] if kind else list(KINDS)
    found = {word: [_describe(KINDS[word], name) for name in registry.names(KINDS[word])] for word in wanted}
    common.result({"schema": "qualm.list/1", **found}, _table(found))


def _describe(kind: str, name: str) -> dict[str, Any]:
    thing = registry.find(kind, name)
    told = sys.modules[thing.__module__].__doc__ or thing.__doc__ or name
    limits = getattr(thing, "mends", None) or {getattr(thing, "limit", "")} - {""}
    return {
        "name": name,
        "about": _sentence(told, name),
        "limits": sorted(limits),
        "needs": sorted(getattr(thing, "needs", ())),
    }


def _sentence(told: str, name: str) -> str:
    """The first sentence of a docstring, without its sources and without the name that stands beside it."""
    text = SOURCE.sub("", " ".join(told.split("\n\n")[0].split()))
    text = re.split(r"(?<=[.?])\s", text)[0].removeprefix(f"{name.capitalize()}: ")
    return text[:1].upper() + text[1:]


def _table(found: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("kind", "name", "what", "limit", "needs"):
        table.add_column(column, no_wrap=column != "what")
    for word, things in found.items():
        for thing in things:
            limits, needs = ", ".join(thing["limits"]), ", ".join(thing["needs"])
            table.add_row(word.removesuffix("s"), thing["name"], thing["about"], limits, needs)
    return table
