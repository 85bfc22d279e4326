"""From a model and labelled rows to a model, or an adapter, that has learnt them."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from qualm.config import to_dict
from qualm.corpus.records import Record, read_records, records_hash, split_records
from qualm.errors import InputError, UsageError
from qualm.files import write_json
from qualm.folder import write_folder
from qualm.models import _adapter_files as files
from qualm.models._adapter_files import Base
from qualm.models._adapters import merged, own_modules
from qualm.models.base import Model
from qualm.tokens.tokenizer import Tokens
from qualm.training import state
from qualm.training.adapters import adapt
from qualm.training.checkpoint import claimed
from qualm.training.data import ExampleRows
from qualm.training.lessons import Chat, Classify, Lesson, Pairs, Question, Tag
from qualm.training.loop import Hooks, Result, fit
from qualm.training.page import NAME, About, Page
from qualm.training.parallel import Ranks
from qualm.training.preferences import Prefer
from qualm.training.recipe import Tuning
from qualm.training.settings import TuneSettings, rate_for
from qualm.training.sharded import check_processes
from qualm.training.size import check_floats, check_length

LESSONS: dict[str, type[Lesson]] = {
    "classify": Classify,
    "tag": Tag,
    "qa": Question,
    "seq2seq": Pairs,
    "chat": Chat,
    "prefer": Prefer,
}
PASSES, LONGEST = 3, 512
SHARE = 0.1  # of the rate of pretraining: 6.6e-5 at 110 M parameters, where Devlin et al. 2018 take 2e-5 to 5e-5
OF_ADAPTERS = 1.0  # about ten times the share of the weights themselves (Biderman et al. 2024, arXiv 2405.09673)


@dataclass(frozen=True)
class Pupil:
    """A model that is to learn, and its tokenizer; `base` is how an adapter's files name it, if it can be named."""

    model: Model
    tokens: Tokens
    base: Base | None = None


@dataclass(frozen=True)
class Tuned:
    """The folder of what was made, on how many rows, how it went, and what validation reads of it."""

    folder: Path
    rows: int
    held_out: int
    result: Result
    figures: Mapping[str, float]


def tune(pupil: Pupil, data: Path | str, output: Path | str, tuning: Tuning, hooks: Hooks = Hooks()) -> Tuned:
    """Teach the rows in `data`; `output` becomes a model directory, or an adapter's. The model stays as it is.

    `hooks.validate` and `hooks.write` are set here. Called again it goes on with what lies in `output`. Raises
    UsageError for a task that is not for such a model, InputError naming row and field of a row that cannot be used,
    and all that `fit` raises.
    """
    output = Path(output)
    work = output / "run"
    if any((output / name).exists() for name in ("config.json", files.CONFIG)) and not work.exists():
        raise InputError("there is a model already", where=str(output), then="name another folder")
    check_processes(tuning.train)
    check_floats(pupil.model)
    check_length(tuning.length, pupil.model)
    kind = lesson_of(tuning.task, pupil.model)
    rows, held = read_records(data)
    rows, held = (rows, held) if held else split_records(rows, tuning.held_out)
    lesson = kind(pupil.tokens, min(tuning.length or LONGEST, pupil.model.config.context), rows, tuning)
    tuning = replace(tuning, train=_usual(tuning, pupil))
    with claimed(work) if Ranks().first else nullcontext():
        if Ranks().first:
            write_json(work / "tuning.json", {"data": str(data), **to_dict(tuning)})
        return _taught(pupil, lesson, (rows, held), output, tuning, hooks)


def _taught(
    pupil: Pupil, lesson: Lesson, records: tuple[list[Record], list[Record]], output: Path, tuning: Tuning, hooks: Hooks
) -> Tuned:
    (rows, held), work, ranks = records, output / "run", Ranks()
    model = _learner(pupil, lesson, tuning)
    with ranks.first_alone():
        learnt, kept = (_rows(lesson, some, model, work) for some in (rows, held))
    if lesson.cut:
        hooks.on_event(f"{lesson.cut} texts are longer than {lesson.length} tokens: what is over is left out")
    loss, about = lesson.loss(model), _about(tuning, rows, held, output.name)
    lesson.begin(model, kept)

    def validate(trained: Any) -> float:
        figures = lesson.read(trained, kept, loss)
        if len(figures) > 1:
            hooks.on_event("held out: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        by_loss = tuning.keep == "loss" or not math.isfinite(figures["loss"])
        return figures["loss"] if by_loss else 1 - figures["accuracy"]

    def write(trained: nn.Module, folder: Path) -> None:
        if isinstance(trained, Model):
            write_folder(trained, pupil.tokens, folder, about)

    partly = state.write_weights if tuning.lora else write
    page = Page(work, output / NAME, About(output.name, tuning.unit, _told(tuning, model, len(rows), len(held))))
    given = {"tokenizer": {"hash": pupil.tokens.hash, "template": pupil.tokens.template_hash}}
    hooks = replace(hooks, given={**given, "held_out": {"records": records_hash(held)}})
    hooks = replace(hooks, validate=validate, write=partly, on_step=page.watching(hooks.on_step))
    with page.kept() if ranks.first else nullcontext():
        result = fit(model, learnt, loss, tuning.train, work, hooks)
    figures = lesson.read(model, kept, loss)
    about["training"] |= {"steps": result.steps, "best_step": result.best_step, "validation": result.best}
    about["training"]["figures"] = dict(figures)
    if ranks.first and pupil.base and tuning.lora and not tuning.merge:
        files.write_adapter(model, pupil.base, output, about)
    elif ranks.first:
        write(merged(model), output)
    ranks.wait()
    return Tuned(output, len(rows), len(held), result, figures)


def lesson_of(task: str, model: Model) -> type[Lesson]:
    """The lesson by its name. Raises UsageError if there is none, or if it is not for this kind of model."""
    if task not in LESSONS:
        raise UsageError(f"no task is named {task!r}", then=f"say {', '.join(LESSONS)}")
    if not isinstance(model, LESSONS[task].of):
        fitting = [name for name, lesson in LESSONS.items() if isinstance(model, lesson.of)]
        raise UsageError(
            f"a {model.config.model_type} model does not learn {task!r}", then=f"say --task {' or '.join(fitting)}"
        )
    return LESSONS[task]


def _learner(pupil: Pupil, lesson: Lesson, tuning: Tuning) -> Model:
    """A copy with the head that the lesson needs; with an adapter, one that shares the weights."""
    if tuning.adapter is None:
        return lesson.prepare(copy.deepcopy(pupil.model), tuning.train.seed)
    if pupil.base is None and not tuning.merge:
        raise UsageError(
            "the model cannot be named as the base of an adapter: it has no files of its own, or is an adapter itself",
            then="export it first (qualm export MODEL -o FOLDER), or say --merge",
        )
    model = lesson.prepare(pupil.model, tuning.train.seed)
    return adapt(model, tuning.adapter, own_modules(model), tuning.train.seed)


def _told(tuning: Tuning, model: nn.Module, rows: int, held_out: int) -> dict[tuple[str, str], dict[str, Any]]:
    """What the page of the run says besides its curves."""
    lesson, training = to_dict(tuning), vars(tuning.train)
    lesson.pop("train")
    changing = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    counts = {"rows": f"{rows:,}", "held out": f"{held_out:,}", "weights that change": f"{changing:,}"}
    return {("The lesson", "任务"): {**lesson, **counts}, ("Training", "训练"): training}


def _rows(lesson: Lesson, records: Sequence[Record], model: Model, work: Path) -> ExampleRows:
    """Their identity holds all that decides what is made of them."""
    said = {name: str(value) for name, value in to_dict(lesson.wanted).items() if name not in ("train", "merge")}
    return ExampleRows(lesson.examples(records, model, work), {"records": records_hash(records), **said})


def _usual(tuning: Tuning, pupil: Pupil) -> TuneSettings:
    """What is usual where nothing is said."""
    settings, share = tuning.train, OF_ADAPTERS if tuning.lora else SHARE
    rate = share * rate_for(pupil.model.config.parameters)
    settings = settings if settings.lr is not None else replace(settings, lr=rate)
    said = settings.steps is not None or settings.epochs is not None
    return settings if said else replace(settings, epochs=PASSES)


def _about(tuning: Tuning, rows: Sequence[Record], held: Sequence[Record], name: str) -> dict[str, Any]:
    made: Mapping[str, Any] = {"rows": records_hash(rows), "held_out": records_hash(held)}
    return {"name": name, "training": {"tuning": to_dict(tuning), **made, "unit": tuning.unit}}
