"""JSON Lines: one document a line."""

import json
from collections.abc import Iterator

from qualm.corpus.document import Document
from qualm.corpus.formats._records import is_blank, of_record
from qualm.corpus.formats.base import File, Format
from qualm.errors import InputError


class Jsonl(Format):
    """`.jsonl`: `{"text": ...}` or `{"messages": [...]}` a line; blank lines are none."""

    suffixes = (".jsonl",)

    def read(self, file: File) -> Iterator[Document]:
        for number, line in file.lines():
            if not line.strip():
                continue
            file.taken.records += 1
            where = f"{file.where}:{number}"
            try:
                document = of_record(_parsed(line, where), f"{file.name}:{number}", where)
            except InputError as error:
                file.bad(number, error)
                continue
            if not is_blank(document):
                yield document


def _parsed(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON record ({error})", where=where, then="mend or remove the line") from error
