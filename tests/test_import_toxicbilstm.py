"""The toxicity classifier: the same probabilities as Keras's layers, padding and all, damage named."""

import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from foreign import WORDS, toxic_parts, toxic_probabilities, write_toxic
from qualm.errors import InputError
from qualm.importers.toxicbilstm import LABELS
from qualm.lm.load import load_base

FILTERED = re.compile(r'[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n]')
TEXTS = ("The article", "You, the IDIOT!! love... a\tarticle?", "i don't love you" * 3, "the article " * 70)


def load(path: Path, tmp_path: Path):
    return load_base(path, cache=tmp_path / "cache")


def keras_ids(text: str, words: dict[str, int]) -> list[int]:
    """keras.preprocessing.text.Tokenizer's rule."""
    return [words[w] for w in FILTERED.sub(" ", text.lower()).split(" ") if w in words]


def test_probabilities_are_those_of_keras(tmp_path):
    lm = load(write_toxic(tmp_path / "tiny"), tmp_path)
    lm.model.double()
    assert lm.can == {"classify", "embed", "weights"}
    for text, found in zip(TEXTS, lm.classify(TEXTS), strict=True):
        ids = keras_ids(text, WORDS)
        assert lm.tokens.encode(text) == ids
        assert tuple(found) == LABELS
        assert np.abs(np.array(list(found.values())) - toxic_probabilities(ids)).max() < 1e-6


def test_unknown_words_are_left_out_and_offsets_stand(tmp_path):
    tokens = load(write_toxic(tmp_path / "tiny"), tmp_path).tokens
    text = "Zxy the, qq I  don't"
    encoded = tokens.offsets(text)
    assert encoded.ids == [WORDS["the"], WORDS["i"], WORDS["don't"]]
    assert [text[a:b].strip() for a, b in encoded.offsets] == ["the", "I", "don't"]
    assert tokens.decode(encoded.ids) == "the i don't"
    assert tokens.encode("") == []


def changed(folder: Path, name: str, part: np.ndarray | None) -> None:
    parts = {**toxic_parts(), name: part}
    write_toxic(folder, {name: part for name, part in parts.items() if part is not None})


def endless(file: Path) -> None:
    """An array that says it is larger than any memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("embedding.0.npy", header.getvalue() + bytes(64))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: cut(f / "weights.npz"), "weights.npz.*damaged"),
        (lambda f: endless(f / "weights.npz"), "weights.npz.*damaged"),
        (lambda f: changed(f, "dense.0", None), "weights.npz.*holds no matrix dense.0"),
        (lambda f: changed(f, "dense_1.0", np.zeros((7, 5), "f4")), "weights.npz.*dense_1.0 is .*7, 5.*7, 6"),
        (lambda f: changed(f, "dense.1", np.full(7, np.inf, "f4")), "weights.npz.*dense.1 holds NaN or infinity"),
        (lambda f: changed(f, "dense.1", np.zeros(7, "i4")), "weights.npz.*dense.1 is .*int32"),
        (lambda f: changed(f, "dense.1", np.array([{}] * 7)), "weights.npz.*pickle"),
        (lambda f: (f / "vocab.json").write_text('["the"]'), "vocab.json.*ids from 1 to 8"),
        (lambda f: (f / "vocab.json").write_text('{"the": 9}'), "vocab.json.*ids from 1 to 8"),
        (lambda f: (f / "vocab.json").write_text('{"the": 1, "a": 1}'), "vocab.json.*twice"),
    ],
)
def test_damage_is_named(tmp_path, damage, said):
    folder = write_toxic(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
        load(folder, tmp_path)


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    folder = write_toxic(tmp_path / "tiny")
    monkeypatch.setattr("qualm.importers.toxicbilstm.MOST", 1000)
    with pytest.raises(InputError, match=r"weights\.npz: unpacks to more than 1000 bytes"):
        load(folder, tmp_path)


@pytest.mark.shared
def test_what_the_real_one_takes_for_toxic(tmp_path):
    folder = Path(os.environ["QUALM_SHARED"], "weights-toxic-bilstm")
    lm = load(folder, tmp_path)
    assert lm.card.parameters == 1_046_156
    texts = ["You are a stupid idiot and I hate you", "Thank you for the kind help with the article"]
    texts += ["as a gay man I love cooking", "the article " * 80 + "zzxy you idiot"]
    found = lm.classify(texts)
    assert [round(one["toxic"], 2) for one in found[:3]] == [1.0, 0.0, 0.74]
    with np.load(folder / "weights.npz", allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    words = json.loads((folder / "vocab.json").read_text())
    for text, one in zip(texts, found, strict=True):
        wanted = toxic_probabilities(keras_ids(text, words), parts)
        assert np.abs(np.array(list(one.values())) - wanted).max() < 1e-5
