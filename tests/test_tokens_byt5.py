"""ByT5's tokenizer is transformers' to the id, without a tokenizer.json."""

import json

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from qualm.errors import InputError
from qualm.tokens.tokenizer import Tokens

SPELLED = ("a </s> b", "x <extra_id_0> y<extra_id_124>", " <pad>  <unk> z", "<extra_id_12>")


@pytest.fixture(scope="module")
def theirs():
    return transformers.ByT5Tokenizer()


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("byt5")
    theirs.save_pretrained(folder)
    assert not (folder / "tokenizer.json").exists()
    return Tokens.load(folder)


@pytest.fixture(scope="module")
def reread(ours, tmp_path_factory):
    """What transformers reads of the folder that we write."""
    folder = tmp_path_factory.mktemp("ours")
    ours.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_are_transformers(ours, theirs, reread, text):
    known = theirs.convert_tokens_to_ids(theirs._tokenize(text))
    assert ours.encode(text) == known
    assert ours.encode_source(text) == [*known, 1]
    assert ours.decode(ours.encode_source(text)) == text
    if not set(text) & set("<"):
        assert reread(text).input_ids == theirs(text).input_ids == [*known, 1]


@pytest.mark.parametrize("text", SPELLED)
def test_markers_are_transformers_where_they_are_meant(ours, theirs, reread, text):
    assert [*ours.encode(text, special=True), 1] == theirs(text).input_ids == reread(text).input_ids
    assert ours.encode(text) == [b + 3 for b in text.encode()]


def test_a_stream_of_bytes_never_splits_a_character(ours):
    detokenizer = ours.detokenizer()
    pieces = [detokenizer.push(i) for i in ours.encode("é😀x")]
    assert pieces == ["", "é", "", "", "", "😀", "x"]


def test_what_the_files_name_is_taken(tmp_path):
    about = tmp_path / "tokenizer_config.json"
    named = {"tokenizer_class": "ByT5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}
    about.write_text(json.dumps({**named, "extra_ids": 3}))
    tokens = Tokens.load(tmp_path)
    assert (tokens.vocab_size, tokens.eos_id, tokens.pad_id) == (262, 1, 0)
    about.write_text(json.dumps({**named, "extra_ids": 0, "additional_special_tokens": ["<one>"]}))
    assert Tokens.load(tmp_path).special["<one>"] == 259
    about.write_text(json.dumps({**named, "additional_special_tokens": [1]}))
    with pytest.raises(InputError, match="no list of words"):
        Tokens.load(tmp_path)
    about.write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    with pytest.raises(InputError, match="no such file"):
        Tokens.load(tmp_path)
