"""Dedup: documents that stood before, exactly or nearly, are dropped; so is what lies in another split or a test set.

Lee et al. 2022 (arXiv 2107.06499) for why. The first of several stays. What is looked for in test sets is held; all
else lies on disk (see `qualm.corpus.marking`).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from qualm.corpus import chunks
from qualm.corpus.documents import Document, read
from qualm.corpus.leaks import tests_of
from qualm.corpus.marking import Marks, copies, mark
from qualm.corpus.notes import Tell, changed, dropped, is_blank, rewritten, silent, whole
from qualm.corpus.settings import Deduping
from qualm.corpus.stages import Passes, Work, load, save, through, together
from qualm.files import read_json, write_json

_PARTS = {"paragraphs": re.compile(r"(\n[ \t]*\n)"), "lines": re.compile(r"(\n)")}


def dedup(documents: Iterable[Document], settings: Deduping = Deduping(), tell: Tell = silent) -> Iterator[Document]:
    """The documents that are new, in order.

    Raises InputError if a file of `held_out` or `evaluation` cannot be read.
    """
    return through(stage, documents, settings, tell)


def stage(work: Work, sources: list[Path], settings: Deduping) -> Passes:
    """Test sets first, then copies of whole documents, then of their parts."""
    passes: Passes = []
    if settings.evaluation:
        passes.append(work.change("untested", _untested, [(source,) for source in sources], settings))
        sources = passes[-1]
    near, held = settings.near > 0, list[tuple[Path, bool, str]]()
    for number, path in enumerate(settings.held_out):
        kept = chunks.write_all(work.folder, read(path), f"held{number}")
        held += [(chunk, near, f"{path.name}: ") for chunk in kept]
    marks = work.each("marks", mark, [*held, *((source, near, "") for source in sources)])
    work.once("judged", _judge, work.folder, marks, len(held), settings.near)
    judged = [(source, _verdict(work.folder, number)) for number, source in enumerate(sources)]
    passes.append(work.change("new", _new, judged))
    for part, pattern in _PARTS.items():
        if least := int(getattr(settings, part)):
            passes.append(_new_parts(work, passes[-1], part, (pattern, least)))
    return passes


def _untested(documents: Iterable[Document], tell: Tell, settings: Deduping) -> Iterator[Document]:
    tests = tests_of(settings)
    for document in documents:
        if hit := tests.find(whole(document)):
            tell(dropped("dedup", document, "in a test set", hit))
        else:
            yield document


def _judge(target: Path, folder: Path, files: Sequence[Path], held: int, near: float) -> None:
    """A file for each chunk that is not held out: the places in it of copies, each with reason and detail."""
    marks = Marks(files)
    verdicts, chunk = dict[int, tuple[str, str]](), held
    for row, of, alike in chain(copies(marks.equal(Work(folder)), marks, near), [(len(marks), 0, None)]):
        while chunk < len(files) and row >= marks.starts[chunk + 1]:
            write_json(_verdict(folder, chunk - held), verdicts)
            verdicts, chunk = {}, chunk + 1
        if chunk < len(files) and row >= marks.starts[chunk]:
            same = ("exact duplicate", marks.name(of))
            verdicts[row - int(marks.starts[chunk])] = (
                same if alike is None else ("near duplicate", f"{marks.name(of)} ({alike:.2f})")
            )
    write_json(target, {"documents": len(marks)})


def _verdict(folder: Path, chunk: int) -> Path:
    return folder / f"verdict-{chunk:05d}"


def _new(documents: Iterable[Document], tell: Tell, verdict: Path) -> Iterator[Document]:
    verdicts = read_json(verdict)
    for place, document in enumerate(documents):
        if why := verdicts.get(str(place)):
            tell(dropped("dedup", document, *why))
        else:
            yield document


def _new_parts(work: Work, sources: list[Path], part: str, how: tuple[re.Pattern, int]) -> list[Path]:
    """The chunks without parts that stood before."""
    tables = work.each(f"{part}-keys", _part_keys, [(source,) for source in sources], how)
    starts = np.cumsum([0, *(len(load(table)) for table in tables)]).tolist()
    again = [work.once(f"{part}-again", _again, together(work, f"{part}-equal", tables))]
    items = list(zip(sources, pairwise(starts), strict=True))
    return work.change(part, _without_parts, items, part, how, again[0])


def _part_keys(target: Path, source: Path, how: tuple[re.Pattern, int]) -> None:
    found = (key for d in chunks.read_chunk(source) for text in d.contents for _, key in _pieces(text, *how) if key)
    save(target, np.fromiter(found, np.uint64))


def _again(target: Path, equal: Sequence[Path]) -> None:
    """Which parts, by their number, stood before."""
    repeats = [np.zeros(0, np.uint32)]
    for file in equal:  # rows of one group are together and in order
        table = load(file)
        repeats.append(table["row"][1:][table["group"][1:] == table["group"][:-1]])
    save(target, np.sort(np.concatenate(repeats)))


def _without_parts(
    documents: Iterable[Document], tell: Tell, span: tuple[int, int], part: str, how: tuple, again: Path
) -> Iterator[Document]:
    repeats = load(again)
    own = set(repeats[slice(*np.searchsorted(repeats, span))].tolist())
    number = span[0]

    def change(text: str) -> str:
        nonlocal number
        kept = list[str]()
        pieces = _pieces(text, *how)
        for piece, key in pieces:
            if not (key and number in own):
                kept.append(piece)
            number += key > 0
        return text if len(kept) == len(pieces) else "".join(kept).rstrip()

    for document in documents:
        before = number
        made = rewritten(document, change)
        if is_blank(made):
            tell(dropped("dedup", document, "every part stood before"))
            continue
        if cut := len(own.intersection(range(before, number))):
            tell(changed("dedup", document, {part: cut}))
        yield made


def _pieces(text: str, pattern: re.Pattern, least: int) -> list[tuple[str, int]]:
    """The parts of a text, each with what divides it from the next, and its key: 0 for one that is too short."""
    found, made = pattern.split(text), list[tuple[str, int]]()
    for i in range(0, len(found), 2):
        plain = " ".join(found[i].split())
        key = int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little") or 1
        made.append(("".join(found[i : i + 2]), key if len(plain) >= least else 0))
    return made
