"""Clean: texts in one form of Unicode, without HTML remains, invisible characters, and lines that all pages have."""

import dataclasses
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator

from qualm.corpus.documents import Document
from qualm.corpus.notes import Tell, changed, dropped, is_blank, rewritten, silent
from qualm.corpus.settings import Cleaning
from qualm.text import normalise

_LIMIT = 2_000_000  # lines counted at once
_NUMBERS = 3  # "page 3 of 12" is one line on every page; a row of a table is not
_DIGITS = re.compile(r"\d+")
_WORDLIKE = re.compile(r"[^\W\d_]{2}")


def clean(documents: Iterable[Document], settings: Cleaning = Cleaning(), tell: Tell = silent) -> Iterator[Document]:
    """The documents, cleaned, in order; those that are blank after it are dropped.

    Lines of boilerplate need two passes: what the first one gives is kept in a temporary file, not in memory.
    """
    plain = _plain(documents, settings, tell)
    return _without_boilerplate(plain, settings, tell) if settings.boilerplate else plain


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
        ("spaces", settings.spaces, normalise.with_plain_space),
    ):
        if wanted:
            text, count = step(text)
            if count:
                counts[name] = count
    return text, counts


def _plain(documents: Iterable[Document], settings: Cleaning, tell: Tell) -> Iterator[Document]:
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


def _without_boilerplate(documents: Iterable[Document], settings: Cleaning, tell: Tell) -> Iterator[Document]:
    counts: dict[int, int] = {}
    total = losses = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as kept:
        for document in documents:
            total += 1
            kept.write(json.dumps(dataclasses.asdict(document)) + "\n")
            for key in {_key(line) for text in document.contents for line in text.split("\n")} - {0}:
                counts[key] = counts.get(key, 0) + 1
            if len(counts) > _LIMIT:  # lossy counting (Manku and Motwani 2002): none is undercounted by more
                losses += 1
                counts = {key: count for key, count in counts.items() if count > losses}
        least = max(settings.boilerplate, settings.share * total)
        repeated = {key for key, count in counts.items() if count + losses >= least}
        del counts
        kept.seek(0)
        for line in kept:
            made = Document(**json.loads(line))
            yield from _stripped(dataclasses.replace(made, messages=tuple(made.messages)), repeated, tell)


def _stripped(document: Document, repeated: set[int], tell: Tell) -> Iterator[Document]:
    cut = 0

    def change(text: str) -> str:
        nonlocal cut
        lines = text.split("\n")
        good = [line for line in lines if _key(line) not in repeated]
        if len(good) == len(lines):
            return text
        cut += len(lines) - len(good)
        return normalise.with_plain_space("\n".join(good))[0] if len(good) < len(lines) else text

    made = rewritten(document, change) if repeated else document
    if is_blank(made):
        tell(dropped("clean", document, "nothing but boilerplate"))
        return
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
