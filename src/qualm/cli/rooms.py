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
    from qualm.corpus import account, building, collecting, describing, description, documents, pipeline
    from qualm.inside import occlusion
    from qualm.lm import endpoint, export, load, local
    from qualm.mends import apply
    from qualm.models import _adapter_files as adapter_files
    from qualm.serving import house as serving_house
    from qualm.serving import keys as serving_keys
    from qualm.serving import logs as serving_logs
    from qualm.serving import run as serving_run
    from qualm.serving import served
    from qualm.serving import settings as serving_settings
    from qualm.tasks import apply as tasks
    from qualm.tokens import tokenizer
    from qualm.training import advice
    from qualm.training import loop as training_loop
    from qualm.training import run as training_run

WHERE: Mapping[str, str] = {
    "account": "qualm.corpus.account",
    "advice": "qualm.training.advice",
    "adapter_files": "qualm.models._adapter_files",
    "apply": "qualm.mends.apply",
    "bars": "qualm.cli.bars",
    "building": "qualm.corpus.building",
    "collecting": "qualm.corpus.collecting",
    "describing": "qualm.corpus.describing",
    "description": "qualm.corpus.description",
    "documents": "qualm.corpus.documents",
    "endpoint": "qualm.lm.endpoint",
    "export": "qualm.lm.export",
    "journey": "qualm.cli._journey",
    "launch": "qualm.cli._launch",
    "load": "qualm.lm.load",
    "local": "qualm.lm.local",
    "occlusion": "qualm.inside.occlusion",
    "pipeline": "qualm.corpus.pipeline",
    "prove": "qualm.auditing.prove",
    "record": "qualm.auditing.record",
    "registry": "qualm.registry",
    "report": "qualm.auditing.report",
    "run": "qualm.auditing.run",
    "served": "qualm.serving.served",
    "serving_house": "qualm.serving.house",
    "serving_keys": "qualm.serving.keys",
    "serving_logs": "qualm.serving.logs",
    "serving_run": "qualm.serving.run",
    "serving_settings": "qualm.serving.settings",
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
    "adapter_files",
    "advice",
    "apply",
    "bars",
    "building",
    "collecting",
    "describing",
    "description",
    "documents",
    "endpoint",
    "export",
    "journey",
    "launch",
    "load",
    "local",
    "occlusion",
    "pipeline",
    "prove",
    "record",
    "registry",
    "report",
    "run",
    "served",
    "serving_house",
    "serving_keys",
    "serving_logs",
    "serving_run",
    "serving_settings",
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
