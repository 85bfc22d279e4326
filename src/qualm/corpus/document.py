"""A document: one text or one conversation, and where it comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qualm.cases import Message


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
