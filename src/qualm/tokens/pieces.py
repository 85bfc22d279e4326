"""What each id adds to a text, in bytes: for whatever must know before a token is written what it would write."""

import json
import random
import re
from collections.abc import Sequence

from qualm.errors import Unsupported
from qualm.tokens.detokenizer import BROKEN
from qualm.tokens.tokenizer import Tokens

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece spells a byte
TRIALS, TRIED = 64, 6  # random texts, and the ids of each, by which the pieces are proved


def pieces(tokens: Tokens) -> list[bytes]:
    """The bytes of each id in the middle of a text, by id; b"" for control tokens and what writes nothing.

    Raises Unsupported if what an id writes hangs on its neighbours, as it does where a decoder tidies up spaces.
    """
    found: list[bytes] = [b""] * tokens.vocab_size
    table = tokens.byte_table
    if table is not None:
        for i, piece in table.items():
            found[i] = piece
        return found
    ordinary = [i for i in range(tokens.vocab_size) if i not in set(tokens.special.values())]
    spelled = byte_tokens(tokens)
    anchor = next((i for i in ordinary if i not in spelled and tokens.decode([i]).strip().isalnum()), None)
    if anchor is None:
        raise Unsupported("no token of the vocabulary is a word or a letter", where=tokens.where)
    before = tokens.decode([anchor])
    after = tokens.tokenizer.decode_batch([[anchor, i] for i in ordinary], skip_special_tokens=True)
    for i, text in zip(ordinary, after, strict=True):
        clean = text.startswith(before) and BROKEN not in text
        found[i] = text[len(before) :].encode() if clean else b""
    for i, byte in spelled.items():
        found[i] = byte
    prove(tokens, anchor, [i for i in ordinary if found[i] and i not in spelled], found)
    return found


def first_pieces(tokens: Tokens, inner: Sequence[bytes]) -> dict[int, bytes]:
    """The ids that write something else where no text stands before them, as where a decoder drops the first space."""
    if tokens.byte_table is not None:
        return {}
    alone = tokens.tokenizer.decode_batch([[i] for i in range(len(inner))], skip_special_tokens=True)
    pairs = zip(inner, (text.encode() for text in alone), strict=True)
    spelled = byte_tokens(tokens)
    return {i: text for i, (piece, text) in enumerate(pairs) if piece and text != piece and i not in spelled}


def byte_tokens(tokens: Tokens) -> dict[int, bytes]:
    """The ids that stand for one byte where the tokenizer spells in bytes what it has no piece for."""
    made = json.loads(tokens.tokenizer.to_str())
    if "ByteFallback" not in json.dumps(made.get("decoder")):
        return {}
    vocabulary = tokens.tokenizer.get_vocab(with_added_tokens=True)
    matches = ((BYTE.fullmatch(spelled), i) for spelled, i in vocabulary.items())
    return {i: bytes([int(match[1], 16)]) for match, i in matches if match}


def prove(tokens: Tokens, anchor: int, ids: Sequence[int], found: Sequence[bytes]) -> None:
    """Raises Unsupported unless the pieces of random ids, put together, are what the tokenizer makes of them."""
    draw = random.Random(0)
    for _ in range(TRIALS):
        some = draw.choices(ids, k=TRIED) if ids else []
        if tokens.decode([anchor, *some]).encode() != tokens.decode([anchor]).encode() + b"".join(
            found[i] for i in some
        ):
            raise Unsupported(
                "what a token of this vocabulary writes hangs on its neighbours, so an answer cannot be given a shape",
                where=tokens.where,
            )
