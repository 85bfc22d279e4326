"""One document of a text in two languages or more: a line each, in the order that `meta` names."""

from collections.abc import Iterator, Mapping

from qualm.corpus.document import Document
from qualm.corpus.formats.base import File


def pair(file: File, place: int | str, texts: Mapping[str, str]) -> Iterator[Document]:
    """`texts` by language. Both stay in the text, so that cleaning and scrubbing see both."""
    lines = {language: " ".join(text.split()) for language, text in texts.items()}
    if len(lines) > 1 and all(lines.values()):
        yield from file.document(place, "\n".join(lines.values()), languages=list(lines))
