"""A document from a record of named fields, checked."""

from typing import Any

from qualm.corpus.document import Document
from qualm.errors import InputError


def of_record(record: Any, source: str, where: str) -> Document:
    """`{"text": ...}` or `{"messages": [{"role": ..., "content": ...}, ...]}`; "id" is kept, the rest goes into `meta`.

    Raises InputError for anything else.
    """
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


def is_blank(document: Document) -> bool:
    return not any(text.strip() for text in document.contents)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
