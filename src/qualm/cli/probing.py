"""The flags that choose and set probes, shared by `audit` and `mend`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from qualm.cli import rooms
from qualm.config import build
from qualm.errors import UsageError

if TYPE_CHECKING:
    from qualm.probes.base import Probe

PROBES = Group("Probes", sort_key=3)


@Parameter(group=PROBES)
@dataclass(frozen=True, kw_only=True)
class Probing:
    """Which probes, and how many cases.

    Attributes:
        probe: A probe to put: see qualm list probes. May be given several times; by default all are put.
        n: Cases a probe.
        quick: Few cases: a first look, with wide intervals.
        seed: Of the cases.
        text: A file or folder of your own held-out text, for the probe perplexity.
    """

    probe: tuple[str, ...] = ()
    n: Annotated[int | None, Parameter(name=["--n", "-n"])] = None
    quick: Annotated[bool, Parameter(negative="")] = False
    seed: int | None = None
    text: Path | None = None


def chosen(probing: Probing) -> "Sequence[Probe]":
    """The probes asked for. Raises UsageError for a name that is none (with the nearest) or a count below 1."""
    if probing.n is not None and probing.n < 1:
        raise UsageError(f"must be at least 1, not {probing.n}", where="--n")
    names = [name for word in probing.probe for name in word.split(",") if name] or rooms.registry.names("probes")
    return [_build(name, probing) for name in dict.fromkeys(names)]


def _build(name: str, probing: Probing) -> "Probe":
    kind = rooms.registry.find("probes", name)
    known = {field.name for field in fields(kind)}
    wanted: dict[str, Any] = {"n": probing.n, "seed": probing.seed, "text": probing.text}
    if probing.quick and probing.n is None:
        wanted["n"] = kind.quick
    return build(kind, {key: value for key, value in wanted.items() if value is not None and key in known})
