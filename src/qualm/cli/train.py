"""`qualm train`: from text files to a model."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from qualm.cli import rooms
from qualm.cli.common import Common
from qualm.cli.memory import keep_memory
from qualm.cli.processes import Processes
from qualm.cli.stop import Stop
from qualm.config import build
from qualm.errors import UsageError
from qualm.training.recipe import Making, Recipe
from qualm.training.settings import TrainSettings

if TYPE_CHECKING:
    from qualm.cli.bars import Bar
    from qualm.training.run import Trained

MODEL, TRAINING = Group("The model", sort_key=3), Group("Training", sort_key=4)
MULTIPLE = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}


def train(
    data: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    making: Annotated[Making, Parameter(name="*", group=MODEL)] = Making(),
    settings: Annotated[TrainSettings, Parameter(name="*", group=TRAINING)] = TrainSettings(),
    processes: Processes = Processes(),
    common: Common = Common(),
) -> Processes | None:
    """Train a tokenizer and a model. The same command again goes on where the last one stopped.

    Args:
        data: A .txt, .md or .jsonl file, a folder of them, or a corpus that was packed. A line of .jsonl has "text" or
            "messages".
        output: The folder that becomes the model.
    """
    keep_memory()
    wanted = {**vars(making), "size": size_of(str(making.size)), "train": settings}
    recipe = build(Recipe, wanted)
    if processes.to_start:
        return processes
    with rooms.launch.joined() as first:
        said = common if first else replace(common, quiet=True)
        with rooms.bars.Bar(said) as bar, Stop(said.quiet) as stop:
            hooks = rooms.training_loop.Hooks(on_step=Watch(bar), on_event=bar.say, should_stop=stop)
            trained = rooms.training_run.train(data, output, recipe, hooks)
    if not first:
        return None
    common.result(told(trained), str(trained.folder))
    common.remark(f"how it went: {trained.folder / 'training.html'}")
    common.remark(f'talk to it: qualm chat {output}   continue a text: qualm generate {output} "..."')
    return None


def told(trained: "Trained") -> dict[str, Any]:
    result = trained.result
    return {
        "schema": "qualm.train/1",
        "model": str(trained.folder),
        "parameters": trained.parameters,
        "steps": result.steps,
        "loss": result.loss,
        "validation": result.best,
        "unit": trained.unit,
        "best_step": result.best_step,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
    }


def size_of(text: str) -> int | str:
    """ "1.2M" as 1200000; a name stays a name."""
    found = re.fullmatch(r"([0-9][0-9_.]*(?:e[0-9]+)?)([kmb]?)", text.lower())
    if not found:
        return text
    try:
        return round(float(found[1]) * MULTIPLE[found[2]])
    except ValueError:
        raise UsageError(
            f"{text!r} is no number of parameters", then="say tiny, small, medium, large or 1.2M"
        ) from None


class Watch:
    """Training on a bar: loss in nats a token and in bits a byte of text, tokens a second, the share of what a matrix
    product reaches on this machine, and what the last validation read.
    """

    def __init__(self, bar: "Bar"):
        self.bar, self.validation = bar, ""

    def __call__(self, row: Mapping[str, Any]) -> None:
        loss = "-" if row["loss"] is None else f"{row['loss']:.3f}"
        if row.get("validation") is not None:
            self.validation = f"  validation {row['validation']:.3f}"
        bits = f" ({row['bits_per_byte']:.3f} bits a byte)" if "bits_per_byte" in row else ""
        share = f", {100 * row['peak_share']:.0f}% of peak" if "peak_share" in row else ""
        note = f"loss {loss}{bits}  {row['tokens_per_second']:,.0f} tokens/s{share}{self.validation}"
        self.bar.update("training", row["step"], row["steps"], note)
