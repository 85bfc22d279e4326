"""Archives of the web, by fastwarc: the pages that were fetched, and the texts that were taken out of them (WET)."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from qualm.corpus.document import Document
from qualm.corpus.formats.base import File, Format
from qualm.corpus.formats.html import of_page
from qualm.errors import InputError, MissingExtra

_PAGES = ("text/html", "application/xhtml+xml")


class Warc(Format):
    """`.warc`: a document for each response that is a page or plain text; its address and date go into `meta`."""

    suffixes = (".warc", ".wet")
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        try:
            from fastwarc.warc import ArchiveIterator, WarcRecordType  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("WARC needs fastwarc", then="pip install 'qualm-lm[docs]'") from error
        wanted = WarcRecordType.response | WarcRecordType.conversion
        stream: Any = _Counting(file.stream)
        for number, record in enumerate(ArchiveIterator(stream, record_types=wanted), 1):
            file.taken.records += 1
            kind = record.http_content_type if record.is_http else record.headers.get("Content-Type", "")
            raw = record.reader.read(file.settings.largest + 1)
            if len(raw) > file.settings.largest:
                error = InputError(
                    f"a record larger than {file.settings.largest} bytes", where=f"{file.where}:{number}"
                )
                file.bad(number, error)
                continue
            told = _meta(record)
            try:
                text, title = _read(raw, kind or "", file)
            except InputError as error:
                file.bad(number, error)
                continue
            yield from file.document(number, text, title=title, **told)
        if not file.taken.records:
            raise InputError("holds no record of a page", where=file.where)


class _Counting:
    """A stream that knows how far it is, as fastwarc asks of one that cannot be wound back."""

    def __init__(self, stream: BinaryIO):
        self._stream, self._at = stream, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at


def _read(raw: bytes, kind: str, file: File) -> tuple[str, str]:
    kind = kind.partition(";")[0].strip().lower()
    if kind in _PAGES:
        return of_page(raw, file)
    return (file.text(raw), "") if kind == "text/plain" else ("", "")


def _meta(record: Any) -> dict[str, str]:
    names = {"url": "WARC-Target-URI", "date": "WARC-Date"}
    return {name: str(value) for name, header in names.items() if (value := record.headers.get(header))}
