"""Plain text: one document a file; a longer one is cut at blank lines, and the parts joined are the file again."""

from collections.abc import Iterator

from qualm.corpus.document import Document
from qualm.corpus.formats.base import File, Format

SECTION = 32 * 1024  # bytes


class Text(Format):
    """`.txt` and `.md`: parts of about `SECTION` bytes, each named after the file and its first line."""

    suffixes = (".txt", ".md")

    def read(self, file: File) -> Iterator[Document]:
        part: list[str] = []
        size, start = 0, 1
        for number, line in file.lines():
            file.taken.records += 1
            part.append(line)
            size += len(line.encode())
            if (size >= SECTION and not line.strip()) or size >= 2 * SECTION:
                yield from file.document(start, "".join(part))
                part, size, start = [], 0, number + 1
        yield from file.document(start, "".join(part))
