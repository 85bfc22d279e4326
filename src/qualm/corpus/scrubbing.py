"""Scrub: personal data is replaced by typed placeholders, the same for the same value throughout a document."""

from collections import Counter
from collections.abc import Iterable, Iterator

from qualm.corpus.documents import Document
from qualm.corpus.notes import Tell, changed, rewritten, silent
from qualm.corpus.settings import Scrubbing
from qualm.text import personal


def scrub(documents: Iterable[Document], settings: Scrubbing = Scrubbing(), tell: Tell = silent) -> Iterator[Document]:
    """The documents, in order, without the personal data that can be found: see `qualm.text.personal`.

    What was found is counted and never told. A record's other fields are left as they are.
    """
    kinds = (*settings.kinds, *(["NAME"] if settings.names else []))
    for document in documents:
        names: dict[tuple[str, str], str] = {}
        counts: Counter[str] = Counter()

        def change(text: str, names: dict[tuple[str, str], str] = names, counts: Counter[str] = counts) -> str:
            text, found = personal.scrub(text, names, kinds, settings.presidio)
            counts.update(found)
            return text

        made = rewritten(document, change)
        if counts:
            tell(changed("scrub", document, dict(sorted(counts.items()))))
        yield made
