"""Parallel text of gettext, by babel: what is translated and its translation."""

import re
from collections.abc import Iterator
from io import BytesIO

from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

from qualm.corpus.document import Document
from qualm.corpus.formats._parallel import pair
from qualm.corpus.formats.base import File, Format

_LOCALE = re.compile(
    r"(?:^|/)([a-z]{2,3}(?:[_-][A-Za-z]{2,4})?)(?:\.[A-Za-z0-9-]+)?(?:/LC_MESSAGES/[^/]+)?\.(?:po|mo)$"
)


class Translations(Format):
    """`.po` and `.mo`: a document an entry that is translated and not marked as doubtful. The language is what the
    header says, else the name; what is translated is taken for English."""

    suffixes = (".po", ".mo")
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        source = BytesIO(file.whole())
        catalog = read_po(source, abort_invalid=True) if file.suffix == ".po" else read_mo(source)
        named = _LOCALE.search(file.name)
        language = str(catalog.locale_identifier or (named[1] if named else "und")).replace("_", "-")
        for number, message in enumerate(catalog, 1):
            file.taken.records += 1
            one, other = (text[0] if isinstance(text, list | tuple) else text for text in (message.id, message.string))
            if one and other and not message.fuzzy:
                yield from pair(file, message.lineno or number, {"en": one, language: other})
