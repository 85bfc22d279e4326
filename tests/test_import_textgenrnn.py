"""textgenrnn's weights: the same logits as Keras's layers, readable text, damage named."""

import builtins
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from foreign import TEXTGEN, textgenrnn_logits, textgenrnn_parts, write_textgenrnn
from qualm.errors import InputError, MissingExtra
from qualm.lm.base import Sampling
from qualm.lm.load import load_base

TEXT = "the quick brown fox jumps over a lazy dog and a cat sleeps."  # longer than the window
HEAD = "output/output/kernel:0"


def load(path: Path, tmp_path: Path):
    return load_base(path, cache=tmp_path / "cache")


def test_logits_are_those_of_keras(tmp_path):
    lm = load(write_textgenrnn(tmp_path / "tiny"), tmp_path)
    ids = lm.tokens.encode_prompt(TEXT)
    assert ids == [1, *(TEXTGEN[c] for c in TEXT)]
    with torch.no_grad():
        ours = lm.model.double()(torch.tensor([ids]))[0].numpy()
    for n in (1, 7, 40, len(ids)):
        assert np.abs(ours[n - 1] - textgenrnn_logits(ids[:n])).max() < 1e-6


def test_the_file_itself_and_a_folder_of_two(tmp_path):
    folder = write_textgenrnn(tmp_path / "tiny")
    lm = load(folder / "tiny_weights.hdf5", tmp_path)
    assert lm.card == load(folder, tmp_path).card
    assert lm.ends == {1}
    assert lm.tokens.pad_id == 0
    write_textgenrnn(folder, name="other")
    with pytest.raises(InputError, match="holds 2 models"):
        load(folder, tmp_path)


def changed(folder: Path, name: str, part: np.ndarray | None) -> None:
    parts = {**textgenrnn_parts(), name: part}
    write_textgenrnn(folder, {name: part for name, part in parts.items() if part is not None})


def cut(file: Path, keep: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])


def outside(folder: Path) -> None:
    """An array whose numbers lie in another file."""
    write_textgenrnn(folder)
    (folder / "secret").write_bytes(bytes(4000))
    with h5py.File(folder / "tiny_weights.hdf5", "a") as file:
        del file[HEAD]
        file.create_dataset(HEAD, (22, 32), "f4", external=[(str(folder / "secret"), 0, 4000)])


def endless(folder: Path) -> None:
    with h5py.File(folder / "tiny_weights.hdf5", "a") as file:
        file.create_dataset("more", (2**40,), "f4", chunks=(1024,))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: cut(f / "tiny_weights.hdf5", 0.5), "tiny_weights.hdf5.*damaged"),
        (lambda f: (f / "tiny_weights.hdf5").write_bytes(b"PK\x03\x04"), "tiny_weights.hdf5.*no HDF5"),
        (outside, f"hdf5.*{HEAD} lies in another file"),
        (endless, "hdf5.*more lies in another file, or is larger"),
        (lambda f: changed(f, HEAD, None), f"hdf5.*holds no {HEAD}"),
        (lambda f: changed(f, HEAD, np.zeros((3, 4), "f4")), f"hdf5.*{HEAD} is .*3, 4"),
        (lambda f: changed(f, HEAD, np.full((22, 32), np.nan, "f4")), f"hdf5.*{HEAD} holds NaN"),
        (lambda f: changed(f, "rnn_1/rnn_1/kernel:0", np.zeros(3, "f4")), "holds no matrix rnn_1"),
        (lambda f: (f / "tiny_vocab.json").write_text('{"a": 0}'), "vocab.json.*from 1 on"),
        (lambda f: (f / "tiny_vocab.json").write_text('{"<s>": 1, "the": 2}'), "vocab.json.*'the' is no character"),
        (lambda f: (f / "tiny_vocab.json").write_text('{"a": 1}'), "vocab.json.*<s> has none"),
        (lambda f: (f / "tiny_vocab.json").write_text('{"<s>": 1, "a": 900}'), "vocab.json.*ids up to 900"),
    ],
)
def test_damage_is_named(tmp_path, damage, said):
    folder = write_textgenrnn(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
        load(folder, tmp_path)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    folder, real = write_textgenrnn(tmp_path / "tiny"), builtins.__import__

    def none(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(MissingExtra, match=r"qualm-lm\[hdf5\]"):
        load(folder, tmp_path)


@pytest.fixture(scope="module")
def weights():
    return Path(os.environ["QUALM_SHARED"], "weights-textgenrnn")


@pytest.mark.shared
def test_the_real_ones_logits_and_text(weights, tmp_path):
    lm = load(weights, tmp_path)
    assert lm.card.parameters == 462_717
    told = [c.text for c in lm.generate(["", "What", "The "], Sampling(max_tokens=80, temperature=0.4, seed=1))]
    letters = [c for text in told for c in text if c.isalpha()]
    assert len(letters) > 60
    assert sum(c.isascii() for c in letters) / len(letters) > 0.95
    parts: dict[str, np.ndarray] = {}
    with h5py.File(weights / "textgenrnn_weights.hdf5") as file:
        file.visititems(lambda name, thing: parts.update({name: thing[()]} if isinstance(thing, h5py.Dataset) else {}))
    ids = lm.tokens.encode_prompt("The best thing about the new version: 10 new characters!")
    with torch.no_grad():
        ours = lm.model.double()(torch.tensor([ids]))[0].numpy()
    for n in (1, 12, len(ids)):
        assert np.abs(ours[n - 1] - textgenrnn_logits(ids[:n], parts)).max() <= 1e-5
