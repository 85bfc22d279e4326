"""Clean: texts in one form of Unicode, without HTML remains, invisible characters, and lines that all pages have."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from qualm.corpus import chunks
from qualm.corpus.documents import Document
from qualm.corpus.notes import Tell, changed, dropped, is_blank, rewritten, silent
from qualm.corpus.settings import Cleaning
from qualm.corpus.stages import Passes, Work, in_partition, load, partitions, save, through
from qualm.text import normalise
from qualm.text.script import in_script

_NUMBERS = 3  # "page 3 of 12" is one line on every page; a row of a table is not
_DIGITS = re.compile(r"\d+")
_WORDLIKE = re.compile(r"[^\W\d_]{2}")


def clean(documents: Iterable[Document], settings: Cleaning = Cleaning(), tell: Tell = silent) -> Iterator[Document]:
    """The documents, cleaned, in order; those that are blank after it are dropped.

    Lines of boilerplate need two passes: what the first one gives waits in a temporary folder, not in memory.
    """
    return through(stage, documents, settings, tell) if settings.boilerplate else _plain(documents, tell, settings)


def stage(work: Work, sources: list[Path], settings: Cleaning) -> Passes:
    """Each text by itself, then the lines that many documents share."""
    plain = work.change("plain", _plain, [(source,) for source in sources], settings)
    if not settings.boilerplate:
        return [plain]
    least = max(settings.boilerplate, settings.share * chunks.read_tally(plain).written)
    lines = work.each("lines", _count_lines, [(chunk,) for chunk in plain])
    parts = partitions(sum(len(load(table)) for table in lines))
    found = work.each("repeated", _repeated, [(part,) for part in range(parts)], parts, lines, least)
    return [plain, work.change("stripped", _stripped, [(chunk,) for chunk in plain], found)]


def clean_text(text: str, settings: Cleaning = Cleaning()) -> tuple[str, dict[str, int]]:
    """(a text cleaned, places changed by kind), all but boilerplate.

    >>> clean_text("Caf\\u0065\\u0301  &amp; bar\\u200b\\r\\n<br>")
    ('Café & bar', {'html': 2, 'invisible': 2, 'composed': 1, 'spaces': 2})
    """
    counts: dict[str, int] = {}
    for name, wanted, step in (
        ("html", settings.html, normalise.without_html),
        ("invisible", True, normalise.without_invisible),
        ("composed", True, normalise.composed),
        ("width", settings.width, normalise.with_even_width),
        ("script", bool(settings.script), partial(in_script, script=settings.script)),
        ("spaces", settings.spaces, normalise.with_plain_space),
    ):
        if wanted:
            text, count = step(text)
            if count:
                counts[name] = count
    return text, counts


def _plain(documents: Iterable[Document], tell: Tell, settings: Cleaning) -> Iterator[Document]:
    for document in documents:
        counts: Counter[str] = Counter()

        def change(text: str, counts: Counter[str] = counts) -> str:
            text, changes = clean_text(text, settings)
            counts.update(changes)
            return text

        made = rewritten(document, change)
        if is_blank(made):
            tell(dropped("clean", document, "blank"))
            continue
        if counts:
            tell(changed("clean", document, counts))
        yield made


def _count_lines(target: Path, chunk: Path) -> None:
    """The keys of the lines of a chunk, and in how many documents each stands: (lines, 2) uint64."""
    counts: Counter[int] = Counter()
    for document in chunks.read_chunk(chunk):
        counts.update({_key(line) for text in document.contents for line in text.split("\n")} - {0})
    save(target, np.array([*counts.items()], np.uint64).reshape(-1, 2))


def _repeated(target: Path, part: int, parts: int, tables: Sequence[Path], least: float) -> None:
    """The keys, of one partition, of lines that stand in at least so many documents."""
    found = [np.zeros((0, 2), np.uint64)]
    for path in tables:
        table = np.array(load(path))
        found.append(table[in_partition(table[:, 0], part, parts)])
    rows = np.concatenate(found)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=np.uint64(0)))  # no key is 0
    counts = np.add.reduceat(rows[:, 1], starts) if len(starts) else rows[:, 1]
    save(target, rows[starts, 0][counts >= least])


def _stripped(documents: Iterable[Document], tell: Tell, found: Sequence[Path]) -> Iterator[Document]:
    repeated = {int(key) for path in found for key in load(path)}
    for document in documents:
        cut = 0

        def change(text: str) -> str:
            nonlocal cut
            lines = text.split("\n")
            good = [line for line in lines if _key(line) not in repeated]
            cut += len(lines) - len(good)
            return normalise.with_plain_space("\n".join(good))[0] if len(good) < len(lines) else text

        made = rewritten(document, change) if repeated else document
        if is_blank(made):
            tell(dropped("clean", document, "nothing but boilerplate"))
            continue
        if cut:
            tell(changed("clean", document, {"boilerplate": cut}))
        yield made


def _key(line: str) -> int:
    """A hash (64 bits) of a line, whatever its few numbers; 0 for one too short to be told from text or code."""
    plain, numbers = _DIGITS.subn("0", line)
    line = " ".join((plain if numbers <= _NUMBERS else line).casefold().split())
    width = sum(2 if char > "\u2e7f" else 1 for char in line[:16])
    if width < 8 or not _WORDLIKE.search(line):
        return 0
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "big")
