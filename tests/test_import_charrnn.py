"""ml5's character models: the same logits as TensorFlow's cell, a vocabulary set right, damage named."""

import gzip
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from foreign import CHARACTERS, charrnn_logits, write_charrnn
from qualm.errors import InputError
from qualm.lm.base import Sampling
from qualm.lm.load import load_base

TEXT = "the quick brown fox.\njumps over a lazy dog."


def load(path: Path, tmp_path: Path):
    return load_base(path, cache=tmp_path / "cache")


@pytest.mark.parametrize("old", [True, False], ids=["weights and biases", "kernel and bias"])
def test_logits_are_tensorflows(tmp_path, old):
    lm = load(write_charrnn(tmp_path / "tiny", old), tmp_path)
    ids = lm.tokens.encode(TEXT)
    with torch.no_grad():
        ours = lm.model.double()(torch.tensor([ids]))[0].numpy()
    assert np.abs(ours - charrnn_logits(ids)).max() < 1e-6


def test_a_token_is_a_character_and_unknown_ones_are_left_out(tmp_path):
    tokens = load(write_charrnn(tmp_path / "tiny"), tmp_path).tokens
    assert tokens.encode(TEXT) == [CHARACTERS.index(c) for c in TEXT]
    assert tokens.decode(tokens.encode(TEXT)) == TEXT
    odd = "The Fox 😀 \\ ] ^ - é\u0301 z"
    assert tokens.decode(tokens.encode(odd)) == "".join(c for c in odd if c in CHARACTERS)
    assert tokens.offsets("aXb").offsets == [(0, 1), (2, 3)]


def test_a_text_that_nothing_stands_before_begins_a_line(tmp_path):
    lm = load(write_charrnn(tmp_path / "tiny"), tmp_path)
    assert lm.score([("", "the fox")]) == lm.score([("\n", "the fox")])
    assert lm.tokens.encode_prompt("the") == [CHARACTERS.index(c) for c in "the"]
    assert len(lm.generate([""], Sampling(max_tokens=5))[0].text) == 5


def test_the_misspelled_characters_are_set_right_and_it_is_said(tmp_path):
    right = load(write_charrnn(tmp_path / "right"), tmp_path)
    mended = load(write_charrnn(tmp_path / "wrong", misspelled=True).rename(tmp_path / "tiny"), tmp_path)
    assert right.source == {"format": "ml5 charRNN", "licence": "not stated in the files"}
    assert mended.tokens.encode("quiet U") == right.tokens.encode("quiet U") == [CHARACTERS.index(c) for c in "quiet U"]
    assert mended.source["repaired"] == ["vocab.json: the key '  ' is 'u'", "vocab.json: the key '' is 'U'"]


def edit(file: Path, **changed) -> None:
    tree = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))


KERNEL = "rnnlm_multi_rnn_cell_cell_1_basic_lstm_cell_kernel"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / KERNEL).unlink(), f"{KERNEL}.*no file"),
        (lambda f: (f / KERNEL).write_bytes((f / KERNEL).read_bytes()[:-4]), f"{KERNEL}.*2048 bytes.*2044"),
        (lambda f: (f / "rnnlm_softmax_b").write_bytes(b"\x00\x00\xc0\x7f" * len(CHARACTERS)), "softmax_b.*NaN"),
        (lambda f: edit(f / "manifest.json", embedding=None), "names no tensor embedding"),
        (
            lambda f: edit(f / "manifest.json", embedding={"filename": "embedding", "shape": [6, 30]}),
            "cell_0.*should be .*38, 32",
        ),
        (lambda f: edit(f / "manifest.json", embedding={"filename": "../x", "shape": [30, 6]}), "embedding.*plain"),
        (lambda f: edit(f / "manifest.json", embedding={"filename": "x", "shape": [-1]}), "embedding.*no shape"),
        (lambda f: (f / "manifest.json").write_text('["rnnlm"]'), "manifest.json.*object"),
        (lambda f: (f / "vocab.json").write_text("{"), "vocab.json.*JSON"),
        (lambda f: edit(f / "vocab.json", a=999), "vocab.json.*ids"),
        (lambda f: edit(f / "vocab.json", a=2), "vocab.json.*id 2 twice"),
        (lambda f: edit(f / "vocab.json", a=None, aa=1), "vocab.json.*'aa' is no character"),
    ],
)
def test_damage_is_named(tmp_path, damage, said):
    folder = write_charrnn(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
        load(folder, tmp_path)


REAL = {
    "shakespeare": ("text-tinyshakespeare/tinyshakespeare.txt.gz", 1.74),
    "charlotte_bronte": ("text-ml5-books/bronte.txt.gz", 1.85),
    "darwin": ("text-ml5-books/darwin.txt.gz", 2.14),
    "zora_neale_hurston": ("text-ml5-books/zora_neale_hurston.txt", 1.83),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_bits_per_character_on_the_text_it_learned(name, tmp_path):
    shared, (book, wanted) = Path(os.environ["QUALM_SHARED"]), REAL[name]
    lm = load(shared / "weights-ml5-charrnn" / name, tmp_path)
    data = (shared / book).read_bytes()
    text = (gzip.decompress(data) if book.endswith(".gz") else data).decode()[200_000:204_001]
    text = lm.tokens.decode(lm.tokens.encode(text))  # without what it has no character for
    (scored,) = lm.score([(text[0], text[1:])])
    assert len(scored.logprobs) == len(text) - 1 == 4000
    assert abs(-scored.total / 4000 / math.log(2) - wanted) <= 0.02
    (told,) = lm.generate(["The "], Sampling(max_tokens=100, temperature=0.5))
    assert len(told.text.split()) > 10
