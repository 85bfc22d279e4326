"""The demo on a very small world, as a program that a test can kill: `python journey.py FOLDER`."""

import sys
from pathlib import Path

from qualm.cli._journey import Journey
from qualm.world.base import World


def main() -> None:
    folder = Path(sys.argv[1])
    quiet = {"say": lambda text: print(text, flush=True), "progress": lambda *_: None}
    world = World(documents=400, taught=12, strangers=40)
    Journey(folder, folder / "cache", **quiet, pretrained=False, quick=True, world=world, epochs=1.0).run()


if __name__ == "__main__":
    main()
