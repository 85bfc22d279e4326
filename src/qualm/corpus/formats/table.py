"""Tables of text: one document a row, by the names in the first line."""

import csv
from collections.abc import Iterator
from typing import Any

from qualm.corpus.document import Document
from qualm.corpus.formats._records import is_blank, of_record
from qualm.corpus.formats.base import File, Format
from qualm.errors import InputError


class Table(Format):
    """`.csv` and `.tsv`: the column "text" (or the one that is named) is the document, the others go into `meta`."""

    suffixes = (".csv", ".tsv")

    def read(self, file: File) -> Iterator[Document]:
        dialect = "excel-tab" if file.suffix == ".tsv" else "excel"
        reader = csv.reader((line for _, line in file.lines()), dialect=dialect, strict=True)
        rows = _rows(reader, file)
        _, first = next(rows, (0, []))
        names = [name.strip() for name in first]
        if not names:
            return
        column = file.settings.field
        if column not in names:
            then = f"qualm corpus collect --field NAME reads another of {', '.join(names[:20])}"[:250]
            raise InputError(f"no column is named {column!r}", where=f"{file.where}:1", then=then)
        for number, row in rows:
            file.taken.records += 1
            where = f"{file.where}:{number}"
            if len(row) != len(names):
                what = f"{len(row)} cells, but the first line has {len(names)}"
                file.bad(number, InputError(what, where=where, then="mend the line"))
                continue
            record = dict(zip(names, row, strict=True))
            record["text"] = record.pop(column)
            try:
                document = of_record(record, f"{file.name}:{number}", where)
            except InputError as error:
                file.bad(number, error)
                continue
            if not is_blank(document):
                yield document


def _rows(reader: Any, file: File) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of the rows that are not empty; one that is no row of a table is bad."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number = reader.line_num
            file.taken.records += 1
            where = f"{file.where}:{number}"
            file.bad(number, InputError(f"not a row of a table ({error})", where=where, then="mend the line"))
            continue
        if row:
            yield reader.line_num, row
