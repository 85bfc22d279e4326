"""Conversations in a `.json` file: a list of records, or an object of them by id.

A record is `{"messages": [...]}` or `{"text": ...}` as in a line of `.jsonl`. Messages may also be turns as people type
them, `{"text": ..., "sender": ...}`, one by one or in lists: what one says in a row is one message, and who speaks
first is the user.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from qualm.cases import Message
from qualm.corpus.documents import Document
from qualm.errors import InputError
from qualm.files import read_json

ROLES = ("user", "assistant")


def read_turns(path: Path) -> Iterator[Document]:
    """The documents of a file, in order, without blank ones. Raises InputError naming a record that is none."""
    whole = read_json(path)
    records = whole.items() if isinstance(whole, dict) else enumerate(whole, 1) if isinstance(whole, list) else ()
    for name, record in records:
        where = f"{path}:{name}"
        if not isinstance(record, dict) or ("text" in record) == ("messages" in record):
            raise InputError('a record must be an object with either "text" or "messages"', where=where)
        meta = {key: value for key, value in record.items() if key not in ("id", "text", "messages")}
        text, messages = record.get("text", ""), messages_of(record.get("messages", []))
        if not isinstance(text, str) or messages is None:
            raise InputError('"messages" must be a list of {"text": ..., "sender": ...} or of roles', where=where)
        document = Document(str(record.get("id", name)), text, messages, f"{path.name}:{name}", meta)
        if any(content.strip() for content in document.contents):
            yield document


def messages_of(said: Any) -> tuple[Message, ...] | None:
    """Messages with roles; None for what is no conversation of at most two.

    >>> messages_of([[{"text": "Hello", "sender": 1}, {"text": "there", "sender": 1}], [{"text": "Hi", "sender": 2}]])
    ({'role': 'user', 'content': 'Hello\\nthere'}, {'role': 'assistant', 'content': 'Hi'})
    """
    if not isinstance(said, list):
        return None
    flat = [turn for part in said for turn in (part if isinstance(part, list) else [part])]
    if not all(isinstance(turn, Mapping) for turn in flat):
        return None
    if all(isinstance(t.get("role"), str) and isinstance(t.get("content"), str) for t in flat):
        return tuple(flat)
    if not all(isinstance(t.get("text"), str) and isinstance(t.get("sender"), str | int) for t in flat):
        return None
    said_by = [(sender, "\n".join(t["text"] for t in turns)) for sender, turns in groupby(flat, lambda t: t["sender"])]
    roles = dict(zip(dict.fromkeys(sender for sender, _ in said_by), ROLES, strict=False))
    if len(roles) < len({sender for sender, _ in said_by}):
        return None
    return tuple({"role": roles[sender], "content": text} for sender, text in said_by)
