"""Texts to ids by fastokens (Apache-2.0, extra `fast`) where its ids are those of `tokenizers`, else by `tokenizers`.

They were compared, and are equal, for byte-level BPE on every character of Unicode and on 20 MB of code, prose, Chinese
and noise: as GPT-2 cuts words, and as our own tokenizers and SmolLM2 do, each digit by itself. Two passes over a text
(digits, then words) are its slow case, so they are written as one expression here; it differs for a dozen characters,
and texts that hold one are left to `tokenizers`.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qualm.errors import MissingExtra
from qualm.tokens.template import check_unicode
from qualm.tokens.tokenizer import Tokens

Encode = Callable[[Sequence[str]], Sequence[np.ndarray]]
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
_AT_ODDS = re.compile("[\u180e\U00011de0-\U00011de9\U00016ff4-\U00016ff6]")  # whether they are space, or digits


def encoder(tokens: Tokens) -> Encode:
    """`tokens.encode_many`, each text's ids as an array."""

    def slow(texts: Sequence[str]) -> Sequence[np.ndarray]:
        return [np.array(ids, np.int64) for ids in tokens.encode_many(texts)]

    written = _known(json.loads(tokens.plain.to_str()))
    try:
        made = _made(written) if written else None
    except MissingExtra:
        made = None
    if made is None:
        return slow

    def fast(texts: Sequence[str]) -> Sequence[np.ndarray]:
        if not texts:
            return []
        for text in texts:
            check_unicode(text)
        flat, borders = made.encode_batch_flat(list(texts), split_special_tokens=True)
        found = np.split(np.frombuffer(flat, "<u4"), np.frombuffer(borders, "<u8")[1:-1].astype(np.int64))
        odd = [number for number, text in enumerate(texts) if _AT_ODDS.search(text)]
        for number, ids in zip(odd, slow([texts[number] for number in odd]), strict=True):
            found[number] = ids
        return found

    return fast


def _made(written: dict[str, Any]) -> Any:
    try:
        import fastokens  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("fastokens is not installed", then="pip install 'qualm-lm[fast]'") from error
    return fastokens.Tokenizer.from_json_str(json.dumps(written))


def _known(written: dict[str, Any]) -> dict[str, Any] | None:
    """A tokenizer.json as fastokens is to read it; None for one whose ids were not compared."""
    model, before = written["model"], written["pre_tokenizer"]
    plain = model["type"] == "BPE" and not (model.get("dropout") or written["normalizer"] or model["unk_token"])
    if not plain or any(not token["special"] for token in written["added_tokens"]):
        return None
    if before == _BYTES:
        return written
    if before != {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]}:
        return None
    cut = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False}
    return {**written, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, {**_BYTES, "use_regex": False}]}}
