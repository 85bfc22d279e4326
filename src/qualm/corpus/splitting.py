"""Split: documents are set aside by the hash of what they say; those that are nearly alike fall on one side.

A document stays where it is when others are added, unless one of them is like it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from qualm.corpus.documents import Document
from qualm.corpus.marking import Marks, clusters, mark
from qualm.corpus.notes import Tell
from qualm.corpus.settings import Splitting
from qualm.corpus.stages import Work, load, save
from qualm.errors import InputError
from qualm.text.grams import mixed

TRAIN, HELD_OUT = "train", "held_out"


def stage(work: Work, sources: list[Path], settings: Splitting) -> dict[str, list[Path]]:
    """The chunks of either side. Raises InputError unless there are two distinct documents to part."""
    marks = work.each("marks", mark, [(source, settings.alike > 0, "") for source in sources])
    aside = work.once("aside", _set_aside, work.folder, marks, settings)
    starts = Marks(marks).starts.tolist()
    items = list(zip(sources, starts, strict=False))
    return {side: work.change(side, _side, items, aside, side == HELD_OUT) for side in (TRAIN, HELD_OUT)}


def _set_aside(target: Path, folder: Path, files: Sequence[Path], settings: Splitting) -> None:
    """Which documents (documents,) are set aside: those whose cluster has a small number, its hash."""
    marks = Marks(files)
    own, group = marks.content(), clusters(marks.equal(Work(folder)), marks, settings.alike)
    least, most = own.copy(), own.copy()
    np.minimum.at(least, group, own)
    np.maximum.at(most, group, own)
    several = (least != most)[group]
    numbers = np.where(several, mixed(least[group]), own)  # the least of several is no fair draw by itself
    known = np.unique(numbers)
    if len(known) < 2:
        raise InputError("fewer than two distinct documents to part", then="add text, or leave out the split")
    below = int(np.searchsorted(known, np.uint64(int(settings.aside * 2**64))))
    save(target, numbers <= known[min(max(below, 1), len(known) - 1) - 1])


def _side(documents: Iterable[Document], tell: Tell, start: int, aside: Path, wanted: bool) -> Iterator[Document]:
    flags = load(aside)
    for number, document in enumerate(documents, start):
        if flags[number] == wanted:
            yield document
