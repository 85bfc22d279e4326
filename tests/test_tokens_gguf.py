"""The tokenizer rebuilt from a GGUF file's metadata equals the one the file was made from."""

import functools
import itertools
import json
import random

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from qualm.errors import InputError
from qualm.tokens.gguf import from_metadata
from tiny import CONTROL, TEMPLATES, TEXTS, tiny_tokens

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
VARIED = [
    *TEXTS,
    "",
    "  1  22 333 4444",
    "a\n\n\nb\r\n\r\nc",
    "it's WE'LL 'Ve",
    "e\u0301é",
    "x  ",
    "\t\t x",
    "١٢٣½",
    "…!?\n\n",
]


def parts() -> tuple[list[str], list[str]]:
    """Vocabulary by id and merges of the tiny tokenizer."""
    return vocabulary_of(tiny_tokens().tokenizer)


@functools.cache
def glued() -> tuple[list[str], list[str]]:
    """A vocabulary that was learnt without cutting words, so that every cut shows; one token is beyond its merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(CONTROL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text in VARIED for _ in range(3)], trainer)
    tokens, merges = vocabulary_of(tokenizer)
    return [*tokens, "unmergeable"], merges


def vocabulary_of(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(pair) for pair in model["merges"]]


def metadata(pre: str, of=None, **more):
    tokens, merges = of or parts()
    kinds = [3 if t in CONTROL else 1 for t in tokens]
    keys = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds, "merges": merges}
    keys |= {"bos_token_id": 0, "eos_token_id": 3, "padding_token_id": 1, **more}
    return {f"tokenizer.ggml.{k}": v for k, v in keys.items()} | {"tokenizer.chat_template": TEMPLATES["chatml"]}


@settings(max_examples=200, deadline=None)
@given(UNICODE)
def test_the_rule_named_smollm_is_the_one_we_train_with(text):
    assert from_smollm.encode(text) == tiny_tokens().encode(text)
    assert from_smollm.encode(text, special=True) == tiny_tokens().encode(text, special=True)
    assert from_smollm.decode(from_smollm.encode(text)) == text


@pytest.mark.parametrize("text", VARIED)
def test_digits_are_cut_before_words(text):
    assert from_smollm.encode(text) == tiny_tokens().encode(text)
    glued_smollm = from_metadata(metadata("smollm", glued()), "tiny.gguf")
    numbers = [glued_smollm.decode([i]) for i in glued_smollm.encode(text) if any(c in "0123456789" for c in text)]
    assert all(len(piece) == 1 for piece in numbers if any(c in "0123456789" for c in piece))


from_smollm = from_metadata(metadata("smollm"), "tiny.gguf")


@pytest.mark.parametrize("text", [*VARIED, "unmergeable"])
@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_other_rules_are_those_of_transformers(pre, text):
    tokens, merges = glued()
    vocabulary, pairs = {t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]
    if pre == "llama-bpe":
        theirs = llama3(vocabulary, pairs)
    else:
        kind = transformers.Qwen2Tokenizer if pre == "qwen2" else transformers.GPT2Tokenizer
        theirs = kind(vocab=vocabulary, merges=pairs).backend_tokenizer
    ours = from_metadata(metadata(pre, glued()), "tiny.gguf")
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def llama3(vocabulary, pairs) -> Tokenizer:
    """Words as transformers cuts them for Llama 3."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(TikTokenConverter().pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_names_template_and_start_come_from_the_file():
    tokens = from_metadata(metadata("smollm"), "tiny.gguf")
    assert (tokens.bos, tokens.eos, tokens.pad, tokens.unk) == ("<|end|>", "<|im_end|>", "<|pad|>", "")
    assert tokens.eos_ids == {3}
    assert tokens.template == TEMPLATES["chatml"]
    assert tokens.special == tiny_tokens().special
    assert tokens.start == ()
    assert from_metadata(metadata("llama-bpe"), "x").start == (0,)
    assert from_metadata(metadata("llama-bpe", add_bos_token=False), "x").start == ()
    assert from_metadata(metadata("smollm", add_bos_token=True), "x").encode_prompt("hi")[0] == 0


def test_a_saved_gguf_tokenizer_is_read_by_transformers(tmp_path):
    from_smollm.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in VARIED:
        assert theirs.encode(text, add_special_tokens=False) == from_smollm.encode(text)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", "bert", "kind 'bert'"),
        ("model", ["gpt2"], "kind"),
        ("pre", "tekken", "'tekken'"),
        ("pre", None, "None"),
        ("tokens", None, "no vocabulary"),
        ("tokens", [1, 2], "no vocabulary"),
        ("token_type", [1], "1 token types"),
        ("merges", None, "no merges"),
        ("merges", ["a b c"], "not a usable tokenizer"),
        ("merges", ["nowhere here"], "not a usable tokenizer"),
        ("eos_token_id", 10**9, "eos_token_id is 1000000000"),
        ("bos_token_id", "x", "bos_token_id"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(key, value, said):
    with pytest.raises(InputError, match=said):
        from_metadata({**metadata("smollm"), f"tokenizer.ggml.{key}": value}, "tiny.gguf")


# -- SentencePiece


def pieces() -> dict[str, float]:
    """A vocabulary with scores as SentencePiece's BPE gives them: earlier joins score higher."""
    joined = [
        "▁t",
        "he",
        "▁the",
        "▁a",
        "in",
        "on",
        "er",
        "▁b",
        "an",
        "the",
        "▁in",
        "is",
        "▁is",
        "ow",
        "▁brow",
        "br",
        "▁br",
    ]
    letters = sorted({c for text in TEXTS for c in text if ord(c) < 0x250} - set(" \n\t\r") | {"▁"})
    scored = {"<unk>": 0.0, "<s>": 0.0, "</s>": 0.0} | {f"<0x{b:02X}>": 0.0 for b in range(256)}
    scored |= {p: -1.0 - i for i, p in enumerate(joined)} | dict.fromkeys(letters, -1000000000.0)
    shuffled = list(scored.items())[259:]
    random.Random(0).shuffle(shuffled)
    return dict([*list(scored.items())[:259], *shuffled])


def sentencepiece_metadata(**more):
    scored = pieces()
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(scored) - 259)]
    keys = {"model": "llama", "tokens": list(scored), "scores": list(scored.values()), "token_type": kinds}
    keys |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **more}
    return {f"tokenizer.ggml.{k}": v for k, v in keys.items()}


def reference(text: str) -> list[str]:
    """SentencePiece's rule, as slow as it is plain: join the two neighbours whose join scores best, leftmost first."""
    scored = pieces()
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        joins = [(-scored[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in scored]
        if not joins:
            break
        _, i = min(joins)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    spelled = ([s] if s in scored else [f"<0x{b:02X}>" for b in s.encode()] for s in symbols)
    return [token for some in spelled for token in some]


@pytest.mark.parametrize("text", [*VARIED, "the brown bears in the inn is on a barn", "  two  spaces "])
def test_sentencepiece_is_rebuilt(text):
    tokens = from_metadata(sentencepiece_metadata(), "llama.gguf")
    numbered = {p: i for i, p in enumerate(pieces())}
    assert tokens.encode(text) == [numbered[p] for p in reference(text)]
    assert tokens.decode(tokens.encode(text)) == text
    assert tokens.encode_prompt(text)[0] == 1


def test_pieces_after_a_prompt_keep_their_space():
    tokens = from_metadata(sentencepiece_metadata(), "llama.gguf")
    ids = tokens.encode("the brown 😀 bear")
    for cut in range(1, len(ids)):
        one = tokens.detokenizer(ids[:cut])
        written = "".join(one.push(i) for i in ids[cut:]) + one.close()
        if "\ufffd" not in tokens.decode(ids[:cut]):
            assert tokens.decode(ids[:cut]) + written == "the brown 😀 bear"


def test_sentencepiece_without_scores_is_refused():
    with pytest.raises(InputError, match="score"):
        from_metadata(sentencepiece_metadata(scores=None), "llama.gguf")
