"""Translation memories (TMX 1.4): parallel text, read as a stream."""

from collections.abc import Iterator
from xml.etree import ElementTree

from qualm.corpus.document import Document
from qualm.corpus.formats._parallel import pair
from qualm.corpus.formats.base import File, Format
from qualm.errors import InputError

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class Tmx(Format):
    """`.tmx`: a document a unit, a line a language."""

    suffixes = (".tmx",)
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        try:
            for _, element in ElementTree.iterparse(file.stream):
                if element.tag == "tu":
                    file.taken.records += 1
                    yield from pair(file, file.taken.records, _texts(element))
                if element.tag in ("tu", "header"):
                    element.clear()
        except ElementTree.ParseError as error:
            raise InputError(f"is no XML ({error})", where=file.where) from error


def _texts(unit: ElementTree.Element) -> dict[str, str]:
    found = {}
    for variant in unit.iter("tuv"):
        segment = variant.find("seg")
        if segment is not None:
            found[variant.get(_LANGUAGE) or variant.get("lang") or "und"] = "".join(segment.itertext())
    return found
