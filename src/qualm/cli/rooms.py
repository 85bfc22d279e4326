"""The rooms that verbs call, each imported when first used, so that `--help` and wrong flags load neither torch nor
numpy."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qualm import registry, teaching
    from qualm.auditing import prove, record, report, run
    from qualm.cli import _journey as journey
    from qualm.cli import _launch as launch
    from qualm.cli import bars, tables
    from qualm.corpus import documents, pipeline
    from qualm.lm import endpoint, load
    from qualm.mends import apply
    from qualm.tasks import apply as tasks
    from qualm.training import advice
    from qualm.training import loop as training_loop
    from qualm.training import run as training_run

WHERE: Mapping[str, str] = {
    "advice": "qualm.training.advice",
    "apply": "qualm.mends.apply",
    "bars": "qualm.cli.bars",
    "documents": "qualm.corpus.documents",
    "endpoint": "qualm.lm.endpoint",
    "journey": "qualm.cli._journey",
    "launch": "qualm.cli._launch",
    "load": "qualm.lm.load",
    "pipeline": "qualm.corpus.pipeline",
    "prove": "qualm.auditing.prove",
    "record": "qualm.auditing.record",
    "registry": "qualm.registry",
    "report": "qualm.auditing.report",
    "run": "qualm.auditing.run",
    "tables": "qualm.cli.tables",
    "tasks": "qualm.tasks.apply",
    "teaching": "qualm.teaching",
    "training_loop": "qualm.training.loop",
    "training_run": "qualm.training.run",
}
__all__ = [
    "advice",
    "apply",
    "bars",
    "documents",
    "endpoint",
    "journey",
    "launch",
    "load",
    "pipeline",
    "prove",
    "record",
    "registry",
    "report",
    "run",
    "tables",
    "tasks",
    "teaching",
    "training_loop",
    "training_run",
]


def __getattr__(name: str) -> ModuleType:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(WHERE[name])
