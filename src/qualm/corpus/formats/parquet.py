"""Parquet, by duckdb: one document a row."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qualm.corpus.document import Document
from qualm.corpus.formats._records import is_blank, of_record
from qualm.corpus.formats.base import File, Format
from qualm.errors import InputError, MissingExtra

_ROWS = 256  # fetched at a time
_CONFIG: dict[str, bool | float | int | list[str] | str] = {
    "threads": 1,
    "memory_limit": "512MB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}


class Parquet(Format):
    """`.parquet`: the column "text" (or the one that is named) or "messages"; the others go into `meta`."""

    suffixes = (".parquet",)
    apart = True

    def read(self, file: File) -> Iterator[Document]:
        try:
            import duckdb  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtra("Parquet needs duckdb", then="pip install 'qualm-lm[parquet]'") from error
        with _lying(file) as path, duckdb.connect(":memory:", config=_CONFIG) as database:
            rows = database.execute("select * from read_parquet(?)", [str(path)])
            names = [column[0] for column in rows.description or []]
            column = file.settings.field
            if column not in names and "messages" not in names:
                then = f"there are: {', '.join(names)[:200]}"
                raise InputError(f"no column is named {column!r} or 'messages'", where=file.where, then=then)
            while chunk := rows.fetchmany(_ROWS):
                for row in chunk:
                    yield from _document(dict(zip(names, row, strict=True)), column, file)


def _document(row: dict[str, Any], column: str, file: File) -> Iterator[Document]:
    file.taken.records += 1
    number = file.taken.records
    record = {name: _plain(value) for name, value in row.items() if value is not None}
    if column in record:
        record["text"] = record.pop(column)
        record.pop("messages", None)
    try:
        document = of_record(record, f"{file.name}:{number}", f"{file.where}:{number}")
    except InputError as error:
        file.bad(number, error)
        return
    if not is_blank(document):
        yield document


def _plain(value: Any) -> Any:
    """A value as JSON has it; dates, decimals and bytes as they are written."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)  # infinity and what is no number
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _lying(file: File) -> Iterator[Path]:
    """The file under a name that duckdb takes for one file: as it lies, or a copy of what was unpacked."""
    if file.path is not None and not re.search(r"[*?\[\]{}:]", str(file.path)):
        yield file.path
        return
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        shutil.copyfileobj(file.stream, copy)
        copy.flush()
        yield Path(copy.name)
