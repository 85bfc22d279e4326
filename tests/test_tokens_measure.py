"""What is read off a tokenizer is what was planted in it."""

import math

import pytest

from qualm.errors import InputError
from qualm.text.parallel import KINDS, language_of, parallel_names
from qualm.tokens import byt5, measure
from qualm.tokens.classic import characters
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_tokens
from tiny import TEXTS, tiny_tokens


@pytest.fixture(scope="module")
def byte_tokens():
    """A token a byte."""
    return Tokens(byt5.bytes_as_tokens({}, "x"), eos="</s>", pad="<pad>", unk="<unk>")


@pytest.fixture
def few(monkeypatch):
    """Three languages, for haste."""
    kept = {locale: dict(list(parallel_names()[locale].items())[:80]) for locale in ("en", "de", "zh")}
    monkeypatch.setattr(measure, "AT_LEAST", 1000)
    monkeypatch.setattr(measure, "parallel_names", lambda: {**kept, "en": parallel_names()["en"]})


@pytest.fixture(scope="module")
def of_bytes(byte_tokens):
    return measure.measure(byte_tokens, TEXTS)


def test_bytes_as_tokens_cost_what_bytes_cost(of_bytes):
    """The byte premium divided out, nothing is left."""
    assert of_bytes.tokens == of_bytes.bytes == sum(len(text.encode()) for text in TEXTS)
    assert (of_bytes.per_byte, of_bytes.unknown, of_bytes.lost) == (1.0, 0.0, 0.0)
    assert all(of_bytes.back.values())
    assert len(of_bytes.premiums) == len(parallel_names()) - 1
    for premium in of_bytes.premiums.values():
        assert premium.tokens == pytest.approx(premium.bytes)
        assert premium.per_byte == pytest.approx(1.0)
    assert of_bytes.premium_per_byte == pytest.approx(1.0)
    assert of_bytes.read[0].tokens > 4  # Petrov et al. 2023


def test_there_are_names_in_many_languages():
    names = parallel_names()
    assert len(names) > 200
    assert names["de"]["territories", "FR"] == "Frankreich"
    assert names["zh"]["territories", "FR"] == "法国"
    assert all(len(of) >= 300 and set(of) <= set(names["en"]) for of in names.values())
    assert {kind for kind, _ in names["en"]} == set(KINDS)
    assert language_of("zh") == "Chinese"


@pytest.mark.usefixtures("few")
def test_what_is_dropped_or_unknown_is_counted():
    known = {name: i for i, name in enumerate(["[UNK]", "a", "b"])}
    dropping, telling = characters(known, ["[UNK]"]), characters(known, ["[UNK]"], unknown="[UNK]")
    for tokenizer in (dropping, telling):
        tokens = Tokens(tokenizer, unk="[UNK]")
        assert measure.unknown(tokens, ["ab ab", "abcz"]) == pytest.approx(2 / 8)
        assert measure.unknown(tokens, ["ab"]) == 0
        read = measure.measure(tokens, ["ab", "abc"])
        assert read.lost == 0.5
        assert not read.back["emoji"]
    assert len(read.read) == 0  # it can spell no language, so there is no premium
    assert read.premium is None
    assert read.premium_per_byte is None


def test_words_that_are_one_token():
    tokens = train_tokens(["the cat sat on the mat and the cat sat on the cat\n"] * 40, 300)
    assert measure.words_of(tokens, {"cat": 3, "the": 1}) == (1.0, 1.0)
    per_word, whole = measure.words_of(tokens, {"cat": 3, "zzz": 1})
    assert (per_word, whole) == ((3 + 3) / 4, 3 / 4)
    assert measure.words_of(tokens, {}) == (None, None)
    assert measure.WORD.findall("The cat's 42 快速的 кот_née") == ["The", "cat", "s", "кот", "née"]


@pytest.mark.usefixtures("few")
def test_text_without_words_between_spaces():
    read = measure.measure(tiny_tokens(), ["快速的棕色狐狸。"])
    assert (read.per_word, read.whole) == (None, None)
    assert read.per_character > 1


def test_efficiency_is_how_evenly_tokens_are_used():
    assert measure.efficiency(dict.fromkeys(range(8), 5), 8) == pytest.approx(1.0)
    assert measure.efficiency({0: 10}, 8) == pytest.approx(0.0)
    some = measure.efficiency({0: 9, 1: 1}, 2)
    assert some == pytest.approx(math.log(0.9**2.5 + 0.1**2.5) / -1.5 / math.log(2))


@pytest.mark.usefixtures("few")
def test_speed_is_bytes_by_seconds(byte_tokens):
    now = iter(range(0, 100, 2))  # every encoding takes two seconds
    read = measure.measure(byte_tokens, ["x" * 500_000], clock=lambda: next(now))
    assert read.megabytes_a_second == pytest.approx(0.25)


@pytest.mark.usefixtures("few")
def test_a_text_that_spells_markers_is_text():
    read = measure.measure(tiny_tokens(), ["<|end|> <|user|>"])
    assert read.tokens > 2
    assert read.lost == 0


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]])
def test_nothing_to_measure_on(texts):
    with pytest.raises(InputError, match="there is no text"):
        measure.measure(tiny_tokens(), texts)
