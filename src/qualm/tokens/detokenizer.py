"""Ids back to text, one at a time, without ever splitting a character: linear in the number of ids."""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tokenizers import Tokenizer

BROKEN = "\ufffd"
HELD = 8  # ids that an unfinished character may hold back; UTF-8 needs four bytes at most


def byte_spelling() -> dict[str, int]:
    """GPT-2 spells a byte by a printable character: itself where it is one, else U+0100 and up, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


class Detokenizer(Protocol):
    """`push` gives the text that is certain now; `close` gives what is left."""

    def push(self, token: int) -> str: ...
    def close(self) -> str: ...


class ByteDetokenizer:
    """For byte-level vocabularies: each id is some bytes, and UTF-8 is decoded as they come."""

    def __init__(self, table: dict[int, bytes]):
        self.bytes_of = table
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self.decoder.decode(self.bytes_of.get(token, b""))

    def close(self) -> str:
        return self.decoder.decode(b"", True)

    @staticmethod
    def table(tokenizer: Tokenizer, special: Iterable[str]) -> dict[int, bytes]:
        """The bytes of each id that is not a control token."""
        spelled = byte_spelling()
        added = {t.content for t in tokenizer.get_added_tokens_decoder().values()}
        skipped = set(special)
        table = {}
        for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
            if token in skipped:
                continue
            as_it_stands = token in added or any(c not in spelled for c in token)
            table[i] = token.encode() if as_it_stands else bytes(spelled[c] for c in token)
        return table


class WindowDetokenizer:
    """For any other vocabulary: the new text is what the last ids add to the few before them."""

    def __init__(self, decode: Callable[[Sequence[int]], str], after: Sequence[int] = ()):
        self.decode = decode
        self.ids = list(after[-HELD:])
        self.read = len(self.ids)  # ids whose text is out
        self.out = decode(self.ids)

    def push(self, token: int) -> str:
        self.ids.append(token)
        text = self.decode(self.ids)
        if text.endswith(BROKEN) and len(self.ids) - self.read < HELD:
            return ""
        piece = text[len(self.out) :]
        if piece or len(self.ids) > 4 * HELD:
            self.ids = self.ids[self.read :]  # the ids just read are the next one's context; silent ones are none
        self.read = len(self.ids)
        self.out = self.decode(self.ids)
        return piece

    def close(self) -> str:
        return self.decode(self.ids)[len(self.out) :]
