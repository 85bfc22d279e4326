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
    from qualm.cli import _spelling as spelling
    from qualm.cli import bars, tables
    from qualm.corpus import account, collecting, documents, pipeline
    from qualm.lm import endpoint, export, load
    from qualm.mends import apply
    from qualm.tasks import apply as tasks
    from qualm.tokens import tokenizer
    from qualm.training import advice
    from qualm.training import loop as training_loop
    from qualm.training import run as training_run

WHERE: Mapping[str, str] = {
    "account": "qualm.corpus.account",
    "advice": "qualm.training.advice",
    "apply": "qualm.mends.apply",
    "bars": "qualm.cli.bars",
    "collecting": "qualm.corpus.collecting",
    "documents": "qualm.corpus.documents",
    "endpoint": "qualm.lm.endpoint",
    "export": "qualm.lm.export",
    "journey": "qualm.cli._journey",
    "launch": "qualm.cli._launch",
    "load": "qualm.lm.load",
    "pipeline": "qualm.corpus.pipeline",
    "prove": "qualm.auditing.prove",
    "record": "qualm.auditing.record",
    "registry": "qualm.registry",
    "report": "qualm.auditing.report",
    "run": "qualm.auditing.run",
    "spelling": "qualm.cli._spelling",
    "tables": "qualm.cli.tables",
    "tasks": "qualm.tasks.apply",
    "teaching": "qualm.teaching",
    "tokenizer": "qualm.tokens.tokenizer",
    "training_loop": "qualm.training.loop",
    "training_run": "qualm.training.run",
}
__all__ = [
    "account",
    "advice",
    "apply",
    "bars",
    "collecting",
    "documents",
    "endpoint",
    "export",
    "journey",
    "launch",
    "load",
    "pipeline",
    "prove",
    "record",
    "registry",
    "report",
    "run",
    "spelling",
    "tables",
    "tasks",
    "teaching",
    "tokenizer",
    "training_loop",
    "training_run",
]


def __getattr__(name: str) -> ModuleType:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(WHERE[name])
