"""The fast encoder gives the ids of `tokenizers`, and steps aside where that was not shown."""

import random
import sysconfig
from pathlib import Path

import pytest
from tokenizers import normalizers, pre_tokenizers

from qualm.tokens import fast
from qualm.tokens.fast import encoder
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe

RANGES = (
    *((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x600, 0x6FF), (0x900, 0x97F), (0x2000, 0x206F), (0x3040, 0x30FF)),
    *((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFE0F), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (9, 13)),
)
PIECES = (
    " ",
    "  ",
    "\n",
    "'s",
    " don't ",
    " 123 ",
    "\r\n",
    "\t",
    "👨\u200d👩\u200d👧",
    "<|end|>",
    "\u180e",
    "²³ Ⅳ",
    "\u3000",
)


def noise(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)

    def piece() -> str:
        return chr(rng.randint(*rng.choice(RANGES))) if rng.random() < 0.7 else rng.choice(PIECES)

    return ["".join(piece() for _ in range(rng.randint(0, 300))) for _ in range(count)]


def sources(size: int) -> list[str]:
    """Python's own sources, to about so many bytes."""
    found = list[str]()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if size > 0 and "site-packages" not in path.parts and (text := path.read_text("utf-8", errors="ignore")):
            found.append(text)
            size -= len(text.encode())
    return found


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return train_bpe([*sources(300_000), *noise(200, 0)], 2000)


def same(tokens: Tokens, texts: list[str]) -> None:
    for text, ids in zip(texts, encoder(tokens)(texts), strict=True):
        assert ids.tolist() == tokens.encode(text), repr(text[:80])


def test_ids_are_those_of_tokenizers(tokens):
    pytest.importorskip("fastokens")
    assert "slow" not in encoder(tokens).__qualname__.rsplit(".", 1)[-1]
    same(tokens, [*noise(400, 1), *sources(300_000), "", "the\ud7ffend", "1 2  3   4", "<|end|> is text <|pad|>"])
    assert encoder(tokens)([]) == []


@pytest.mark.slow
def test_ids_are_those_of_tokenizers_on_twenty_megabytes(tokens):
    pytest.importorskip("fastokens")
    same(tokens, [*sources(16_000_000), *noise(8_000, 2)])


@pytest.mark.slow
def test_every_character_of_unicode_is_cut_as_tokenizers_cut_it(tokens):
    pytest.importorskip("fastokens")
    chars = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    same(tokens, [f"the{c} {c}the {c}1{c}{c}  {c}.{c} the" for c in chars])


def test_what_was_not_compared_is_left_to_tokenizers(tokens, monkeypatch):
    lowered = train_bpe(["some text " * 50], 300)
    lowered.tokenizer.normalizer = normalizers.Lowercase()
    split = train_bpe(["some text " * 50], 300)
    split.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for odd in (lowered, split):
        assert encoder(odd).__qualname__.endswith("slow")
        same(odd, ["Some Text 12", ""])
    monkeypatch.setattr(fast, "_made", lambda _: (_ for _ in ()).throw(fast.MissingExtra("not there")))
    assert encoder(tokens).__qualname__.endswith("slow")
    same(tokens, ["some text, 北京 12"])
