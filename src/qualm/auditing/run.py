"""The audit: every probe put to a model, each failure on its own, nothing lost."""

import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from typing import Any

from qualm import __version__, registry
from qualm.auditing.readings import lacking, measurement, name_of, unmeasured
from qualm.auditing.types import Audit, Measurement
from qualm.cases import Case
from qualm.config import build
from qualm.errors import QualmError, Stopped, UsageError
from qualm.lm.base import LM, Card
from qualm.lm.replay import Replay
from qualm.probes.base import Probe
from qualm.world.base import World

Progress = Callable[[str, int, int], None]  # (title, probes done, probes in all)

PACKAGES = ("torch", "tokenizers", "numpy", "safetensors")
CPUINFO = Path("/proc/cpuinfo")  # Linux


def audit(
    lm: LM,
    probes: Sequence[Probe | str] | None = None,
    *,
    cache: Path | None = None,
    quick: bool = False,
    on_progress: Progress | None = None,
) -> Audit:
    """Put probes to a model: by default all there are. Those given by name, or by default, are short if `quick`.

    Answers are kept in `cache`, if given, so that an audit that was killed goes on where it was; probes that read the
    machine are always put anew. What a model cannot do, or fails in, is recorded with the reason and costs no other
    probe its reading. Raises UsageError for an unknown probe, Stopped when told to stop.
    """
    started = time.perf_counter()
    chosen = choose(probes, lm.card, quick)
    told = on_progress or _silent
    made = []
    for i, probe in enumerate(chosen):
        told(f"audit {lm.name}", i, len(chosen))
        made.append(measure(asked(lm, probe, cache), probe))
    told(f"audit {lm.name}", len(chosen), len(chosen))
    return Audit(lm.name, lm.card, tuple(made), machine(), time.perf_counter() - started)


def measure(lm: LM, probe: Probe, cases: Sequence[Case] | None = None) -> Measurement:
    """Put one probe to a model: its "test" cases, or those given."""
    started = time.perf_counter()
    try:
        if why := lacking(probe.needs, lm.can, lm.name):
            return unmeasured(probe, why)
        probe = probe.fitted(lm)
        put = test_cases(probe) if cases is None else list(cases)
        made = measurement(probe, put, probe.observe(lm, put) if put else [])
    except (UsageError, Stopped):
        raise
    except QualmError as error:
        return unmeasured(probe, str(error), time.perf_counter() - started)
    return replace(made, seconds=time.perf_counter() - started)


def test_cases(probe: Probe) -> list[Case]:
    return [case for case in probe.cases() if case.split == "test"]


def asked(lm: LM, probe: Probe, cache: Path | None) -> LM:
    """The model as this probe is put to it: its answers kept, unless the probe reads the machine."""
    return lm if probe.live else kept(lm, cache)


def kept(lm: LM, cache: Path | None) -> LM:
    """The model with its answers kept; as it is if it cannot say which weights gave them."""
    return Replay(lm, cache) if cache and lm.card.weights else lm


def choose(probes: Sequence[Probe | str] | None, card: Card, quick: bool = False) -> list[Probe]:
    """Probes as they are put to a model: by default all. Those given by name are short if `quick`."""
    named: Sequence[Probe | str] = registry.names("probes") if probes is None else probes
    built = [_default(each, quick) if isinstance(each, str) else each for each in named]
    names = [name_of(probe) for probe in built]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the probe {twice[0]} is asked for twice", then="put each probe once an audit")
    return [suit(probe, card) for probe in built]


def _default(name: str, quick: bool) -> Probe:
    probe: Probe = registry.find("probes", name)()
    return replace(probe, n=min(probe.n, probe.quick)) if quick else probe


def suit(probe: Probe, card: Card) -> Probe:
    """The probe in the planted world that the model's card names, if it has a use for one and has none yet."""
    wanting = any(field.name == "world" and getattr(probe, field.name) is None for field in fields(probe))
    world: dict[str, Any] = {"world": build(World, card.world)} if card.world is not None and wanting else {}
    return replace(probe, **world)


def machine() -> dict[str, Any]:
    """What the figures were made on: versions, processor and threads; no name of the machine or its user."""
    torch: Any = sys.modules.get("torch")  # not loaded for a model that is asked over a wire
    return {
        "qualm": __version__,
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cpu_count() or 1,
        **({"threads": torch.get_num_threads()} if torch else {}),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _silent(title: str, done: int, total: int) -> None:
    """Nobody wants to know."""
