"""From a model and labelled rows to a model that has learnt them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from qualm.config import to_dict
from qualm.corpus.records import Record, read_records, records_hash, split_records
from qualm.errors import InputError
from qualm.files import write_json
from qualm.folder import write_folder
from qualm.models.base import Model
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import ExampleRows
from qualm.training.lessons import Lesson, lesson_of
from qualm.training.loop import Hooks, Result, fit
from qualm.training.objectives import mean_nats
from qualm.training.recipe import Tuning
from qualm.training.settings import TuneSettings, rate_for

PASSES, LONGEST = 3, 512
SHARE = 0.1  # of the rate of pretraining: 6.6e-5 at 110 M parameters, where Devlin et al. 2018 take 2e-5 to 5e-5


@dataclass(frozen=True)
class Tuned:
    """The folder of the model that was tuned, on how many rows, and how it went."""

    folder: Path
    rows: int
    held_out: int
    result: Result


def tune(
    model: Model, tokens: Tokens, data: Path | str, output: Path | str, tuning: Tuning, hooks: Hooks = Hooks()
) -> Tuned:
    """Teach `model` the rows in `data`; `output` becomes a model directory. The model that is given stays as it is.

    `hooks.validate` and `hooks.write` are set here. Called again it goes on with what lies in `output`. Raises
    UsageError for a task that is not for such a model, InputError naming row and field of a row that cannot be used,
    and all that `fit` raises.
    """
    output = Path(output)
    work = output / "run"
    if (output / "config.json").exists() and not work.exists():
        raise InputError("there is a model already", where=str(output), then="name another folder")
    kind = lesson_of(tuning.task, model)
    rows, held = read_records(data)
    rows, held = (rows, held) if held else split_records(rows, tuning.held_out)
    length = min(tuning.length or LONGEST, model.config.context)
    lesson = kind(tokens, length, rows)
    model = lesson.prepare(copy.deepcopy(model), tuning.train.seed)
    learnt, kept = (_rows(lesson, some) for some in (rows, held))
    if lesson.cut:
        hooks.on_event(f"{lesson.cut} texts are longer than {length} tokens: what is over is left out")
    tuning = replace(tuning, train=_usual(tuning.train, model.config.parameters))
    write_json(work / "tuning.json", {"data": str(data), **to_dict(tuning)})
    loss, about = lesson.loss(model), _about(tuning, rows, held, output.name)

    def write(trained: nn.Module, folder: Path) -> None:
        if isinstance(trained, Model):
            write_folder(trained, tokens, folder, about)

    hooks = replace(hooks, validate=lambda trained: mean_nats(trained, kept, loss), write=write)
    result = fit(model, learnt, loss, tuning.train, work, hooks)
    about["training"] |= {"steps": result.steps, "best_step": result.best_step, "validation": result.best}
    write(model, output)
    return Tuned(output, len(rows), len(held), result)


def _rows(lesson: Lesson, records: Sequence[Record]) -> ExampleRows:
    return ExampleRows([lesson.example(record) for record in records], {"records": records_hash(records)})


def _usual(settings: TuneSettings, parameters: int) -> TuneSettings:
    """What is usual where nothing is said."""
    settings = settings if settings.lr is not None else replace(settings, lr=SHARE * rate_for(parameters))
    said = settings.steps is not None or settings.epochs is not None
    return settings if said else replace(settings, epochs=PASSES)


def _about(tuning: Tuning, rows: Sequence[Record], held: Sequence[Record], name: str) -> dict[str, Any]:
    made: Mapping[str, Any] = {"rows": records_hash(rows), "held_out": records_hash(held)}
    return {"name": name, "training": {"tuning": to_dict(tuning), **made, "unit": "nats a target"}}
