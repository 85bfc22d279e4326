"""SentencePiece's files: read with care, and cut as SentencePiece itself cuts."""

import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from qualm.errors import InputError
from qualm.tokens import spm
from qualm.tokens.tokenizer import Tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def written_spm(pieces: Sequence[tuple[str, float, int]], trainer: bytes = b"", cleaner: bytes = b"") -> bytes:
    """A model file of (piece, score, kind)."""
    each = (field(1, piece.encode()) + field(2, score) + field(3, kind) for piece, score, kind in pieces)
    out = b"".join(field(1, one) for one in each)
    out += field(2, trainer) if trainer else b""
    return out + (field(3, cleaner) if cleaner else b"")
