"""Labelled records from .jsonl, .csv and .tsv files: a mapping a row, which knows where it stands.

A folder holds `train.*` and, if it likes, `validation.*` (or `valid.*`, `dev.*`). Blank lines are left out; nothing
malformed is passed over.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qualm.errors import InputError, UsageError
from qualm.files import hash_json

KINDS = (".jsonl", ".csv", ".tsv")
HELD_OUT = ("validation", "valid", "dev")

T = TypeVar("T")


class Record(dict[str, Any]):
    """The fields of a row by name; `where` is file:line."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        super().__init__(fields)
        self.where = where

    def take(self, name: str, kind: Callable[[Any], T | None], words: str) -> T:
        """A field as `kind` reads it. Raises InputError naming row and field if it is missing or no such thing."""
        if name not in self:
            have = ", ".join(sorted(self)) or "none"
            raise InputError(f"field {name!r} is missing", where=self.where, then=f"add it; this row has {have}")
        value = kind(self[name])
        if value is None:
            raise InputError(f"field {name!r} is {repr(self[name])[:80]}, not {words}", where=self.where)
        return value

    def text(self, *names: str) -> str:
        """The first of these fields that is there, a text."""
        name = next((name for name in names if name in self), names[0])
        return self.take(name, lambda value: value if isinstance(value, str) and value.strip() else None, "a text")

    def texts(self, name: str) -> list[str]:
        """A field that is a list of texts, or of texts between spaces."""

        def kind(value: Any) -> list[str] | None:
            value = value.split() if isinstance(value, str) else value
            return value if isinstance(value, list) and value and all(isinstance(v, str) for v in value) else None

        return self.take(name, kind, "a list of words")


def read_records(source: Path | str) -> tuple[list[Record], list[Record]]:
    """(training, held out) of a folder; (all, none) of a file. Raises InputError for what cannot be read, or no row."""
    root = Path(source)
    if not root.is_dir():
        return _whole(root), []
    files = {path.stem: path for path in sorted(root.iterdir()) if path.suffix in KINDS}
    if "train" not in files:
        raise InputError("holds no train.jsonl, train.csv or train.tsv", where=str(root), then="name the file itself")
    held_out = next((files[name] for name in HELD_OUT if name in files), None)
    return _whole(files["train"]), _whole(held_out) if held_out else []


def split_records(records: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """(training, held out): about `share` of the distinct rows, by the hash of their content; duplicates stay together.

    Raises InputError if either would be empty.
    """
    if not 0 < share < 1:
        raise UsageError(f"must be above 0 and below 1, not {share}", where="held_out")
    keys = sorted({hash_json(record) for record in records})
    border = keys[min(max(1, round(share * len(keys))), len(keys) - 1) - 1] if len(keys) > 1 else ""
    if not border:
        raise InputError("fewer than two distinct rows", then="add rows, or give a folder with train and validation")
    held = [record for record in records if hash_json(record) <= border]
    return [record for record in records if hash_json(record) > border], held


def records_hash(records: Sequence[Record]) -> str:
    """One hash of all rows in order."""
    return hashlib.blake2b("".join(map(hash_json, records)).encode(), digest_size=16).hexdigest()


def _whole(path: Path) -> list[Record]:
    if not path.is_file():
        raise InputError("no such file", where=str(path), then="check the path")
    if path.suffix not in KINDS:
        raise InputError(f"a {path.suffix or 'nameless'} file is not read", where=str(path), then="give .jsonl or .csv")
    found = list(_lines(path) if path.suffix == ".jsonl" else _table(path))
    if not found:
        raise InputError("holds no rows", where=str(path), then="add some")
    return found


def _lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"not a JSON record ({error})", where=where, then="mend or remove the line") from error
            if not isinstance(row, dict):
                raise InputError("a record must be an object", where=where, then="mend or remove the line")
            yield Record(row, where)


def _table(path: Path) -> Iterator[Record]:
    dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
    rows = csv.DictReader(_text(path).splitlines(keepends=True), dialect=dialect)
    try:
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row or None in row.values():
                raise InputError("has not as many cells as the first line", where=where, then="mend the line")
            yield Record(row, where)
    except csv.Error as error:
        raise InputError(f"not a table ({error})", where=f"{path}:{rows.line_num}", then="mend the line") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start})", where=str(path), then="convert the file") from error
