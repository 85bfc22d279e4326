"""Electronic books: a document a chapter, in the order of reading."""

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import ZipFile

from qualm.corpus.document import Document
from qualm.corpus.formats._zipped import checked
from qualm.corpus.formats.base import File, Format
from qualm.corpus.formats.html import of_page
from qualm.errors import InputError

_CONTAINER = "META-INF/container.xml"


class Epub(Format):
    """`.epub`: the chapters that its spine names; the title of the book goes into `meta`."""

    suffixes = (".epub",)
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        archive = checked(file.whole(), file)
        package = next((e.get("full-path", "") for e in _xml(archive, _CONTAINER, file) if _is(e, "rootfile")), "")
        elements = _xml(archive, package, file)
        title = next((e.text for e in elements if _is(e, "title") and e.text), "")
        hrefs = {e.get("id"): e.get("href", "") for e in elements if _is(e, "item")}
        for chapter in (e.get("idref") for e in elements if _is(e, "itemref")):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(hrefs.get(chapter, ""))))
            file.taken.records += 1
            try:
                text, heading = of_page(_part(archive, name, file), file)
            except InputError as error:
                file.bad(name, error)
                continue
            yield from file.document(name, text, title=title.strip(), chapter=heading)


def _part(archive: ZipFile, name: str, file: File) -> bytes:
    try:
        return archive.read(name)
    except KeyError as error:
        raise InputError(f"{name or 'its list of chapters'} is missing", where=file.where) from error


def _xml(archive: ZipFile, name: str, file: File) -> list[ElementTree.Element]:
    raw = _part(archive, name, file)
    if b"<!ENTITY" in raw:
        raise InputError(f"{name} defines entities, which no book needs", where=file.where)
    return list(ElementTree.fromstring(raw).iter())


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name
