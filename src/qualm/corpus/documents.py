"""Documents from text files, JSON Lines and folders, and their split by a hash of the content.

A `.txt` or `.md` file is one document; a longer one is cut at blank lines into documents of about `SECTION`
bytes, so that a single book can be split too, and their texts joined are the file again. A `.jsonl` file holds
one document a line, `{"text": ...}` or `{"messages": [{"role": ..., "content": ...}, ...]}`; its "id" is kept and
every other key goes into `meta`. A folder is read recursively in sorted order, hidden files and other kinds left
out. Blank documents are left out. Nothing malformed is passed over: it raises InputError with file and line.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from qualm.cases import Message
from qualm.errors import InputError, UsageError

SECTION = 32 * 1024  # bytes
LONGEST_LINE = 64 * 2**20  # bytes
TEXT, LINES = (".txt", ".md"), (".jsonl",)


@dataclass(frozen=True)
class Document:
    """One text, or one conversation; `source` is file:line, `meta` what else its record held."""

    id: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def contents(self) -> list[str]:
        """The texts a person wrote: the text, or each message's content."""
        return [m["content"] for m in self.messages] if self.messages else [self.text]

    @cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of the contents; roles and template are not counted."""
        return sum(len(text.encode()) for text in self.contents)

    @cached_property
    def key(self) -> str:
        """A hash of the content (128 bits, hex): equal for duplicates, wherever they were read."""
        content = [[m["role"], m["content"]] for m in self.messages] or self.text
        text = json.dumps(content, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read(source: Path | str) -> Iterator[Document]:
    """The documents of a file or folder, in order.

    Raises InputError: no such file, a kind that is not read, bad UTF-8 or a malformed record (file and line),
    or no document at all.
    """
    root = Path(source)
    empty = True
    for path in _files(root):
        reader = _read_text if path.suffix.lower() in TEXT else _read_lines
        name = path.name if path == root else path.relative_to(root).as_posix()
        for document in reader(path, name):
            empty = False
            yield document
    if empty:
        raise InputError("holds no text", where=str(root), then="name .txt, .md or .jsonl files, or a folder of them")


def split(documents: Iterable[Document], held_out: float = 0.05) -> tuple[list[Document], list[Document]]:
    """(training, held-out): about `held_out` of the distinct documents, chosen by the hash of their content.

    Duplicates fall on one side, and no document moves when others are added; at least one document is held out
    unless `held_out` is 0. Raises InputError if there are not two distinct documents to part.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"must be at least 0 and below 1, not {held_out}", where="held_out")
    all_of_them = list(documents)
    if held_out == 0:
        return all_of_them, []
    keys = sorted({d.key for d in all_of_them})
    if len(keys) < 2:
        raise InputError("fewer than two distinct documents", then="add text, or hold none out (held_out=0)")
    border = f"{int(held_out * 2**128):032x}"
    below = sum(key < border for key in keys)
    last = keys[min(max(below, 1), len(keys) - 1) - 1]  # at least one on either side
    return [d for d in all_of_them if d.key > last], [d for d in all_of_them if d.key <= last]


def _files(root: Path) -> Iterator[Path]:
    if root.is_dir():
        inside = (p for p in root.rglob("*") if p.suffix.lower() in TEXT + LINES and p.is_file())
        yield from sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(root).parts))
    elif not root.exists():
        raise InputError("no such file or folder", where=str(root), then="check the path")
    elif root.suffix.lower() not in TEXT + LINES:
        raise InputError(
            f"cannot read documents from a {root.suffix or 'nameless'} file",
            where=str(root),
            then="give .txt, .md, .jsonl or a folder",
        )
    else:
        yield root


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line with its end) of a UTF-8 file; a byte order mark is dropped."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                yield number, _decode(raw, f"{path}:{number}", "utf-8-sig" if number == 1 else "utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _decode(raw: bytes, where: str, encoding: str) -> str:
    if len(raw) > LONGEST_LINE:
        raise InputError(f"a line longer than {LONGEST_LINE} bytes", where=where, then="break it up")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"not UTF-8 ({error.reason} at byte {error.start + 1} of the line)"
        raise InputError(what, where=where, then="convert the file to UTF-8") from error


def _read_text(path: Path, name: str) -> Iterator[Document]:
    part: list[str] = []
    size, start = 0, 1
    for number, line in _lines(path):
        part.append(line)
        size += len(line.encode())
        if (size >= SECTION and not line.strip()) or size >= 2 * SECTION:
            yield from _document(name, start, "".join(part))
            part, size, start = [], 0, number + 1
    yield from _document(name, start, "".join(part))


def _document(name: str, line: int, text: str) -> Iterator[Document]:
    if text.strip():
        yield Document(id=f"{name}:{line}", text=text, source=f"{name}:{line}")


def _read_lines(path: Path, name: str) -> Iterator[Document]:
    for number, line in _lines(path):
        if line.strip():
            document = _parse(line, f"{name}:{number}", f"{path}:{number}")
            if any(text.strip() for text in document.contents):
                yield document


def _parse(line: str, source: str, where: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON record ({error})", where=where, then="mend or remove the line") from error
    if not isinstance(record, dict) or ("text" in record) == ("messages" in record):
        raise InputError('a record must be an object with either "text" or "messages"', where=where)
    text, messages = record.pop("text", ""), record.pop("messages", [])
    if not isinstance(text, str):
        raise InputError('"text" must be a string', where=where)
    if not isinstance(messages, list) or not all(_is_message(m) for m in messages):
        raise InputError('"messages" must be a list of {"role": text, "content": text}', where=where)
    document = Document(str(record.pop("id", source)), text, tuple(messages), source, record)
    try:
        document.key  # noqa: B018  hashing encodes it, which a lone surrogate escape cannot be
    except UnicodeEncodeError as error:
        raise InputError(f"text that is not Unicode ({error.reason})", where=where) from error
    return document


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
