"""Tokenizers of every kind: learnt alike every time, read alike by transformers, and clear on what is unknown."""

import subprocess
import sys

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from qualm.errors import InputError, UsageError
from qualm.text import prose
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import LEARNERS, SPECIAL, TURNS, UNKNOWN, train_bpe, train_tokens
from tiny import TEXTS

KINDS = sorted(LEARNERS)
LEARNT = [*TEXTS * 4, *prose.paragraphs()[:60]]
SIZE = 900
VARIED = [
    *TEXTS,
    "",
    " a  b   c ",
    "one\n\n\ttwo\r\n",
    "né e\u0301 {x: [1, 2]}",
    "👩‍👩‍👧 龘靐 <0x41> <|end|> [UNK] <|user|>",
    "x" * 300,
]


@pytest.fixture(scope="module")
def learnt():
    return {kind: train_tokens(LEARNT, SIZE, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def theirs(learnt, tmp_path_factory):
    """Each kind as transformers reads it."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        learnt[kind].save(folder)
    return {kind: transformers.AutoTokenizer.from_pretrained(folder) for kind, folder in folders.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_ids(learnt, theirs, kind):
    ours, other = learnt[kind], theirs[kind]
    assert isinstance(other, transformers.PreTrainedTokenizerFast)
    assert len(other) == ours.vocab_size
    for text in VARIED:
        assert other.encode(text, add_special_tokens=False) == ours.encode(text, special=True)
        assert other.decode(other.encode(text)) == ours.tokenizer.decode(other.encode(text), skip_special_tokens=False)
    assert other.encode("The fox") == ours.encode_prompt("The fox")
    assert (other.bos_token_id, other.eos_token_id, other.pad_token_id) == (0, 0, 1)
    assert other.unk_token == (None if kind == "bpe" else UNKNOWN)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert other.apply_chat_template(messages, tokenize=False) == ours.render(messages)
    assert ours.template == TURNS


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back(learnt, kind, tmp_path):
    learnt[kind].save(tmp_path)
    again = Tokens.load(tmp_path)
    assert again.hash == learnt[kind].hash
    assert [again.encode(text) for text in VARIED] == [learnt[kind].encode(text) for text in VARIED]


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_as_large_as_asked_and_begins_with_the_special_tokens(learnt, kind):
    tokens = learnt[kind]
    control = list(SPECIAL) if kind == "bpe" else [*SPECIAL, UNKNOWN]
    assert [tokens.tokenizer.id_to_token(i) for i in range(len(control))] == control
    assert tokens.special == {name: i for i, name in enumerate(control)}
    assert tokens.vocab_size == SIZE if kind != "character" else len(control) < tokens.vocab_size < SIZE
    assert sorted(tokens.tokenizer.get_vocab().values()) == list(range(tokens.vocab_size))


def test_the_same_texts_give_the_same_tokens_in_another_process(learnt):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_tokens_train import *;"
        "print(*(train_tokens(LEARNT, SIZE, kind).hash for kind in KINDS))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [learnt[kind].hash for kind in KINDS]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_unigram_gives_back_any_text_and_knows_all_of_it(text):
    tokens = unigram()
    ids = tokens.encode(text)
    assert tokens.decode(ids, skip_special=False) == text
    assert tokens.special[UNKNOWN] not in ids


def unigram(kept: list[Tokens] = []) -> Tokens:  # noqa: B006
    kept += [] if kept else [train_tokens(LEARNT, SIZE, "unigram")]
    return kept[0]


@pytest.mark.parametrize("kind", ["word", "character", "bpe", "unigram"])
def test_what_is_known_comes_back_as_it_was(learnt, kind):
    text = "  The Fox and\n\n the dog, (42) end. "
    tokens = train_tokens([*LEARNT, text * 50], SIZE, kind)
    assert tokens.decode(tokens.encode(text)) == text


def test_wordpiece_knows_every_word_of_characters_that_it_saw(learnt):
    """A character that only ever began a word may stand inside one, and the other way round."""
    tokens = learnt["wordpiece"]
    characters = sorted({c for text in LEARNT for c in text if c.isalpha() and c.isascii()})
    word = "".join(characters)
    for spelled in (word, word[::-1]):
        ids = tokens.encode(spelled)
        assert tokens.special[UNKNOWN] not in ids
        assert tokens.decode(ids) == spelled
    assert tokens.encode("a龘") == [*tokens.encode("a"), tokens.special[UNKNOWN]]  # a Han character is its own word
    assert tokens.encode("ða") == [tokens.special[UNKNOWN]]
    assert tokens.encode("The DOG") != tokens.encode("the dog")


@pytest.mark.parametrize("kind", ["word", "character"])
def test_what_was_not_seen_is_said_to_be_unknown(learnt, kind):
    tokens = learnt[kind]
    assert tokens.encode("龘") == [tokens.special[UNKNOWN]]
    assert tokens.unk == UNKNOWN


def test_chinese_is_cut_into_words_of_one_character(learnt):
    assert learnt["word"].tokenizer.encode("快速的", add_special_tokens=False).tokens == ["快", "速", "的"]


def test_bpe_is_what_it_was():
    assert train_tokens(TEXTS * 4, 400, "bpe", ("<|end|>",)).hash == train_bpe(TEXTS * 4, 400, ("<|end|>",)).hash


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_and_a_mask(kind):
    tokens = train_tokens(LEARNT[:8], 700, kind, (*SPECIAL, "<|mask|>"), (True, True), "<|mask|>")
    assert (tokens.start, tokens.end, tokens.mask_id) == ((0,), (0,), 5)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("room", [0, 1, 2, 7])
def test_the_smallest_vocabularies(kind, room):
    least = 256 + len(SPECIAL) + (kind != "bpe")
    tokens = train_tokens(LEARNT[:8], least + room, kind)
    assert least <= tokens.vocab_size <= least + room
    assert tokens.decode(tokens.encode(LEARNT[0])) == LEARNT[0]
    with pytest.raises(UsageError, match=f"ask for at least {least}"):
        train_tokens(LEARNT[:8], least - 1, kind)


def test_what_cannot_be_made():
    with pytest.raises(UsageError, match=r"has no room for .* characters.*ask for at least"):
        train_tokens(LEARNT, 40, "wordpiece")
    with pytest.raises(UsageError, match="say one of bpe"):
        train_tokens(LEARNT, 900, "wordpeice")
    for kind in KINDS:
        with pytest.raises(InputError, match="there is no text"):
            train_tokens(["", ""], 900, kind)
        with pytest.raises(UsageError, match="all different"):
            train_tokens(LEARNT, 900, kind, ("<a>", "<a>"))


@pytest.mark.parametrize("kind", KINDS)
def test_white_space_alone_is_learnt_from_too(kind):
    assert train_tokens(["\n \n"], 300, kind).vocab_size > 0
