"""`qualm demo`: the whole loop on two models, and a report to look at."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qualm.cli import rooms
from qualm.cli.bars import Bar
from qualm.cli.common import Common
from qualm.cli.train import Watch
from qualm.world.base import World

SMALL = 3_000  # documents of the world under --quick


def demo(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("runs/demo"),
    pretrained: bool = True,
    quick: Annotated[bool, Parameter(negative="")] = False,
    common: Common = Common(),
) -> None:
    """Make a small model, use it, measure it, mend it, and write a report to look at.

    The same command again goes on where it stopped.

    Args:
        output: The folder for everything that is made; the page is report.html in it.
        pretrained: Also audit and mend a pretrained model (one package is fetched, 93 MB).
        quick: A tiny world and few cases: shows the way through in a minute or two, not the figures.
    """
    journey, loop = rooms.journey, rooms.training_loop
    with Bar(common) as bar:
        hooks = loop.Hooks(on_step=Watch(bar), on_event=bar.say)
        trip = journey.Journey(output, common.cache_folder, bar.say, bar.update, hooks, pretrained, quick)
        page = (replace(trip, world=World(documents=SMALL), epochs=1.0) if quick else trip).run()
    common.result({"schema": "qualm.demo/1", "report": str(page)}, str(page))
