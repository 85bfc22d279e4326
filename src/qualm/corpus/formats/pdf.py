"""PDF, by pypdf: what its pages say, not what is a picture on them."""

from collections.abc import Iterator
from io import BytesIO

from qualm.corpus.document import Document
from qualm.corpus.formats.base import File, Format
from qualm.errors import InputError, MissingExtra


class Pdf(Format):
    """`.pdf`: one document a file, a blank line between pages; its title goes into `meta`."""

    suffixes = (".pdf",)
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        try:
            from pypdf import PdfReader  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("PDF needs pypdf", then="pip install 'qualm-lm[docs]'") from error
        reader = PdfReader(BytesIO(file.whole()))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("is locked by a password", where=file.where, then="unlock it first")
        pages = len(reader.pages)
        if pages > file.settings.pages:
            raise InputError(f"has {pages} pages", where=file.where, then="raise --pages, or break it up")
        texts = []
        for number, page in enumerate(reader.pages, 1):
            file.taken.records += 1
            try:
                texts.append(page.extract_text().strip())
            except RecursionError as error:
                file.bad(
                    number, InputError(f"a page that is nested too deep ({error})", where=f"{file.where}:{number}")
                )
        title = reader.metadata.title if reader.metadata else None
        yield from file.document("", "\n\n".join(filter(None, texts)), title=str(title or ""))
