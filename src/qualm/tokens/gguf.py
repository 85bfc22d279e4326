"""The tokenizer inside a GGUF file, rebuilt from its metadata.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md names the keys; `tokenizer.ggml.pre` names one of
llama.cpp's rules for cutting text into words. A rule that is not known here is refused: a wrong one gives wrong
ids without any error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from qualm.errors import InputError
from qualm.tokens.classic import scored_bpe
from qualm.tokens.settings import whole
from qualm.tokens.template import DEFAULT
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import byte_level, start_with

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # values of tokenizer.ggml.token_type
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMED = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id", "unk": "unknown_token_id"}
LLAMA3 = ("llama-bpe", "llama3", "llama-v3")


def from_metadata(metadata: Mapping[str, Any], where: str) -> Tokens:
    """The tokenizer and the chat template of a GGUF file's metadata. Raises InputError naming what cannot be used."""
    tokens, kinds = entries(metadata, where)
    kind = str(metadata.get("tokenizer.ggml.model"))
    builders = {"gpt2": bpe, "llama": sentencepiece}
    if kind not in builders:
        raise InputError(f"a tokenizer of kind {kind!r} cannot be rebuilt", where=where, then=use_of(builders))
    tokenizer = whole(lambda: builders[kind](metadata, tokens, where), where)
    shown = list(zip(tokens, kinds, strict=True))
    tokenizer.add_special_tokens([special(t) for t, is_ in shown if is_ in (UNKNOWN, CONTROL)])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, is_ in shown if is_ == USER_DEFINED])
    spelled = {name: named(metadata, tokens, key, where) for name, key in NAMED.items()}
    if spelled["bos"] and metadata.get("tokenizer.ggml.add_bos_token", starts_with_bos(metadata)):
        tokenizer.post_processor = start_with(spelled["bos"], tokens.index(spelled["bos"]))
    template = metadata.get("tokenizer.chat_template") or DEFAULT
    ends = (named(metadata, tokens, key, where) for key in ("eot_token_id", "eom_token_id"))
    more = tuple(tokens.index(end) for end in ends if end)
    bos, eos, pad, unk = spelled.values()
    return Tokens(tokenizer, bos, eos, pad, unk, template=template, more_ends=more, where=where)


def special(spelled: str) -> AddedToken:
    return AddedToken(spelled, special=True, normalized=False)


def starts_with_bos(metadata: Mapping[str, Any]) -> bool:
    """What llama.cpp does where the file does not say."""
    return metadata.get("tokenizer.ggml.model") == "llama" or metadata.get("tokenizer.ggml.pre") in LLAMA3


def entries(metadata: Mapping[str, Any], where: str) -> tuple[list[str], list[int]]:
    tokens, kinds = (metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise InputError("holds no vocabulary (tokenizer.ggml.tokens)", where=where)
    kinds = [1] * len(tokens) if kinds is None else list(kinds)
    if len(kinds) != len(tokens):
        raise InputError(f"names {len(tokens)} tokens but {len(kinds)} token types", where=where)
    return tokens, kinds


def named(metadata: Mapping[str, Any], tokens: Sequence[str], key: str, where: str) -> str:
    number = metadata.get(f"tokenizer.ggml.{key}")
    if number is None:
        return ""
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise InputError(f"tokenizer.ggml.{key} is {number!r} in a vocabulary of {len(tokens)}", where=where)
    return tokens[number]


def use_of(known: Mapping[str, Any]) -> str:
    return f"use a file with one of {', '.join(known)}, or the model's directory with its tokenizer.json"


def bpe(metadata: Mapping[str, Any], tokens: Sequence[str], where: str) -> Tokenizer:
    """Byte-level BPE with the words cut by the rule that `tokenizer.ggml.pre` names."""
    rules = {
        "smollm": byte_level(digits=True),
        "gpt-2": byte_level(digits=False),
        "qwen2": split_words(r"\p{N}"),
        **dict.fromkeys(LLAMA3, split_words(r"\p{N}{1,3}")),
    }
    rule = str(metadata.get("tokenizer.ggml.pre"))
    if rule not in rules:
        raise InputError(f"its rule for cutting words, {rule!r}, is not known", where=where, then=use_of(rules))
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise InputError("holds no merges (tokenizer.ggml.merges)", where=where)
    pairs = [tuple(m.split(" ")) for m in merges]
    numbered = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(numbered, pairs, ignore_merges=rule in LLAMA3))
    tokenizer.pre_tokenizer = rules[rule]
    tokenizer.decoder = decoders.ByteLevel()
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def split_words(digits: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(WORDS.format(digits=digits)), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], where: str) -> Tokenizer:
    """SentencePiece's BPE, by the score of each token."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise InputError("holds no score for each token (tokenizer.ggml.scores)", where=where)
    unknown = named(metadata, tokens, "unknown_token_id", where) or None
    return scored_bpe(tokens, scores, unknown, bool(metadata.get("tokenizer.ggml.add_space_prefix", True)))
