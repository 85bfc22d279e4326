"""Balance: more of what is rare and less of what there is too much of, by language and by source.

A weight is how many times a document is expected to stand in the corpus: 0.25 keeps every fourth, 3 writes each three
times, 1.5 half of them twice. What stays is decided by the hash of the content, so it hangs on no order, no number of
processes, and not on what else is there.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from qualm.corpus.chunks import provenance_of
from qualm.corpus.document import Document
from qualm.corpus.notes import Tell, changed, dropped, silent, whole
from qualm.corpus.settings import Balancing, weights_of
from qualm.text.language import identify


def balance(
    documents: Iterable[Document], settings: Balancing = Balancing(), tell: Tell = silent
) -> Iterator[Document]:
    """Each document as many times as its weight says, copies right behind it with "~2" and so on in their id.

    The weights of its language and of its source are multiplied; what is not named has weight 1.
    """
    languages, sources = weights_of(settings.weights), weights_of(settings.sources)
    for document in documents:
        language = identify(whole(document))[0] if languages else ""
        source = _named(document, sources)
        weight = languages.get(language, 1.0) * sources.get(source, 1.0)
        times = int(weight) + (_share(document, settings.pick) < weight % 1)
        if not times:
            tell(dropped("balance", document, "weight", f"{weight:g} of {language or source}"))
            continue
        if times > 1:
            tell(changed("balance", document, {"copies": times - 1}))
        yield document
        for number in range(2, times + 1):
            yield dataclasses.replace(document, id=f"{document.id}~{number}")


def _named(document: Document, sources: Mapping[str, float]) -> str:
    """The longest of the names with which the place begins that a document was first read from."""
    place = str(provenance_of(document).get("source", ""))
    return max((name for name in sources if place.startswith(name)), key=len, default="")


def _share(document: Document, seed: int) -> float:
    """A number from 0 to 1 that hangs on the content and the seed alone."""
    mixed = (int(document.key[:16], 16) ^ seed * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ mixed >> 31) / 2**64
