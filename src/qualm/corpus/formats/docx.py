"""Word's documents, by python-docx."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from qualm.corpus.document import Document
from qualm.corpus.formats._zipped import checked
from qualm.corpus.formats.base import File, Format
from qualm.errors import MissingExtra


class Docx(Format):
    """`.docx`: one document a file, blank lines between paragraphs, tabs between cells; its title goes into `meta`."""

    suffixes = (".docx",)
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        try:
            from docx import Document as open_docx  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("Word's documents need python-docx", then="pip install 'qualm-lm[docs]'") from error
        raw = file.whole()
        checked(raw, file)
        made = open_docx(BytesIO(raw))
        text = "\n\n".join(part for part in _texts(made) if part.strip())
        yield from file.document("", text, title=made.core_properties.title or "")


def _texts(made: Any) -> Iterator[str]:
    for part in made.iter_inner_content():
        if hasattr(part, "rows"):
            yield "\n".join("\t".join(" ".join(cell.text.split()) for cell in row.cells) for row in part.rows)
        else:
            yield part.text
