"""Web pages: the text that a reader sees, without menus and adverts, by resiliparse."""

import contextlib
from collections.abc import Iterator
from typing import Any

from qualm.corpus.document import Document
from qualm.corpus.formats.base import File, Format
from qualm.errors import MissingExtra


class Html(Format):
    """`.html`: the main content of a page, or all of it where none is found; its title goes into `meta`."""

    suffixes = (".html", ".htm", ".xhtml")
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        text, title = of_page(file.whole(), file)
        yield from file.document("", text, title=title)


def of_page(raw: bytes, file: File) -> tuple[str, str]:
    """(text, title) of a page. It is UTF-8 if it can be, else what it says it is, else what it is found to be."""
    extract, tree_of, told = _resiliparse()
    named, text = "utf-8", ""
    for named in ("utf-8", told(raw, from_html_meta=True)):
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            text = raw.decode(named)
            break
    file.taken.encoding = file.taken.encoding or named
    tree = tree_of(text or file.text(raw))
    kept = extract(tree, main_content=True, alt_texts=False) or extract(tree, alt_texts=False)
    return kept, (tree.title or "").strip()


def _resiliparse() -> tuple[Any, Any, Any]:
    try:
        from resiliparse.extract.html2text import extract_plain_text  # noqa: PLC0415
        from resiliparse.parse.encoding import detect_encoding  # noqa: PLC0415
        from resiliparse.parse.html import HTMLTree  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("web pages need resiliparse", then="pip install 'qualm-lm[docs]'") from error
    return extract_plain_text, HTMLTree.parse, detect_encoding
