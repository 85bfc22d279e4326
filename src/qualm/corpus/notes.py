"""What a step tells of what it did: a note for each document that it dropped or changed."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qualm.corpus.document import Document
from qualm.text import personal

_SHOWN = 240  # characters


@dataclass(frozen=True)
class Note:
    """`reason` is one of few words, for counting; `detail` says the rest; `counts` are of places changed, by kind."""

    step: str
    id: str
    source: str
    reason: str
    detail: str = ""
    dropped: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    excerpt: str = ""  # how a document that was dropped begins, without personal data


Tell = Callable[[Note], None]


def silent(note: Note) -> None:
    """For those who do not ask."""


def dropped(step: str, document: Document, reason: str, detail: str = "") -> Note:
    return Note(step, document.id, document.source, reason, detail, excerpt=_beginning(document))


def _beginning(document: Document) -> str:
    shown = " ".join(whole(document)[:2000].split())[:600]
    return personal.scrub(shown, {})[0][:_SHOWN]


def changed(step: str, document: Document, counts: Mapping[str, int]) -> Note:
    return Note(step, document.id, document.source, "changed", dropped=False, counts=counts)


def rewritten(document: Document, change: Callable[[str], str]) -> Document:
    """The document with each of its texts changed; itself if none was."""
    if document.messages:
        contents = [change(text) for text in document.contents]
        if contents == document.contents:
            return document
        pairs = zip(document.messages, contents, strict=True)
        return dataclasses.replace(document, messages=tuple({**m, "content": text} for m, text in pairs))
    text = change(document.text)
    return document if text == document.text else dataclasses.replace(document, text=text)


def is_blank(document: Document) -> bool:
    return not any(text.strip() for text in document.contents)


def whole(document: Document) -> str:
    """All that a document says, as one text."""
    return "\n\n".join(document.contents)


def as_record(document: Document, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A line of JSON that `read` gives back as this document; where it came from first is kept."""
    content: dict[str, Any] = {"messages": list(document.messages)} if document.messages else {"text": document.text}
    return {"id": document.id, **content, **document.meta, "provenance": {**provenance}}
