"""Augment: variants of documents beside them: the other gender, typing errors, words left out or exchanged, said anew.

Every variant is drawn by the hash of its document and the seed, so it hangs on no order and no number of processes. It
stands behind its document, with "~" and the way in its id, and `augmented` in its fields.
"""

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from qualm.corpus.document import Document
from qualm.corpus.notes import Tell, changed, rewritten, silent
from qualm.corpus.settings import Augmenting
from qualm.errors import InputError
from qualm.text import noising
from qualm.text.swap import swap
from qualm.text.swap_names import swap_names

Change = Callable[[str, random.Random], str]
_BATCH = 32


class Translates(Protocol):
    """Whatever turns texts into texts of another language, such as a translating LM."""

    def generate(self, prompts: Sequence[Any], /) -> Sequence[Any]: ...


def augment(
    documents: Iterable[Document], settings: Augmenting = Augmenting(), tell: Tell = silent
) -> Iterator[Document]:
    """Each document, and behind it its variants, one a way; a variant that is the same as its document is none.

    Raises InputError if the file of synonyms cannot be read.
    """
    ways = _ways(settings)
    for document in documents:
        yield document
        for way, change in ways.items():
            rng = random.Random(f"{settings.draw} {way} {document.key}")
            made = rewritten(document, lambda text, change=change, rng=rng: change(text, rng))
            if made is not document:
                tell(changed("augment", document, {way: 1}))
                yield _variant(document, made, way)


def back_translate(documents: Iterable[Document], there: Translates, back: Translates) -> Iterator[Document]:
    """Each document of one text, and behind it what it becomes by translation `there` and `back`: line by line.

    Documents are taken in groups; conversations are left alone.
    """
    group = list[Document]()
    for document in documents:
        group.append(document)
        if len(group) == _BATCH:
            yield from _translated(group, there, back)
            group = []
    yield from _translated(group, there, back)


def _translated(group: Sequence[Document], there: Translates, back: Translates) -> Iterator[Document]:
    lines = [line for document in group if not document.messages for line in document.text.split("\n") if line.strip()]
    if lines:
        lines = [completion.text for completion in back.generate([c.text for c in there.generate(lines)])]
    said = iter(lines)
    for document in group:
        yield document
        if not document.messages:
            text = "\n".join(next(said) if line.strip() else line for line in document.text.split("\n"))
            if text != document.text:
                yield _variant(document, dataclasses.replace(document, text=text), "translated")


def _ways(settings: Augmenting) -> dict[str, Change]:
    """What was asked for, in a fixed order."""
    ways: dict[str, Change] = {}
    if settings.counterfactual:
        ways["counterfactual"] = lambda text, _: _swapped(text)
    if settings.typos:
        ways["typos"] = lambda text, rng: noising.with_typos(text, settings.typos, rng)
    if settings.dropout:
        ways["dropout"] = lambda text, rng: noising.without_words(text, settings.dropout, rng)
    if settings.synonyms:
        others = synonyms(settings.synonyms)
        ways["synonyms"] = lambda text, rng: noising.with_synonyms(text, settings.exchanged, others, rng)
    return ways


def _swapped(text: str) -> str:
    """Both sides of every gendered pair, and names, exchanged."""
    text = swap(text) or text
    return swap_names(text) or text


@cache
def synonyms(path: Path) -> dict[str, list[str]]:
    """word -> others, of a file with a line a group: words between tabs, each of which may stand for any other.

    Raises InputError if it cannot be read, or holds no group of two.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read as UTF-8", where=str(path), then="check the path") from error
    found: dict[str, list[str]] = {}
    for group in (line.split("\t") for line in lines):
        words = [word.strip() for word in group if word.strip()]
        for word in words:
            found.setdefault(word.casefold(), []).extend(other for other in words if other != word)
    if not any(found.values()):
        raise InputError("holds no two words on a line", where=str(path), then="write words that mean the same")
    return {word: others for word, others in found.items() if others}


def _variant(document: Document, made: Document, way: str) -> Document:
    return dataclasses.replace(made, id=f"{document.id}~{way}", meta={**document.meta, "augmented": way})
