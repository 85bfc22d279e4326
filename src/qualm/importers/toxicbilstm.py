"""Weights of toxic-comment-classifier: Keras's arrays as weights.npz beside vocab.json, both without pickles.

https://pypi.org/project/toxic-comment-classifier/. Keras keeps its gates in torch's order (input, forget, new, output)
and one bias; its matrices are transposed.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.files import read_json
from qualm.importers.base import AGAIN, Importer, checked, save
from qualm.models.bilstm import BilstmConfig
from qualm.models.store import build_model
from qualm.tokens.classic import words
from qualm.tokens.tokenizer import Tokens

WEIGHTS, VOCAB = "weights.npz", "vocab.json"
TABLE, LSTM = "embedding.0", "bidirectional"
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")  # in the package's order
PAD = "<pad>"
MOST = 2**30  # bytes unpacked


class Toxicbilstm(Importer):
    """A folder with weights.npz and vocab.json."""

    reads = "a folder of toxic-comment-classifier's weights.npz and vocab.json"

    def recognises(self, path: Path) -> bool:
        if not ((path / WEIGHTS).is_file() and (path / VOCAB).is_file()):
            return False
        with (path / WEIGHTS).open("rb") as file:
            start = file.read(2**12)
        return start.startswith(b"PK\x03\x04") and (LSTM.encode() in start or TABLE.encode() in start)

    def files(self, path: Path) -> list[Path]:
        return [path / WEIGHTS, path / VOCAB]

    def write(self, path: Path, folder: Path) -> None:
        where = path / WEIGHTS
        arrays = read_npz(where)
        (vocab, inputs), (_, inner), (_, gates) = (
            sizes(arrays, name, where) for name in (TABLE, "dense.0", f"{LSTM}.forward_layer.0")
        )
        width = gates // 4
        state = {"embedding.weight": take(arrays, TABLE, (vocab, inputs), where)}
        for direction, ending in (("forward", ""), ("backward", "_reverse")):
            place = f"{LSTM}.{direction}_layer"
            state |= {
                f"lstm.weight_ih_l0{ending}": take(arrays, f"{place}.0", (inputs, 4 * width), where).T.contiguous(),
                f"lstm.weight_hh_l0{ending}": take(arrays, f"{place}.1", (width, 4 * width), where).T.contiguous(),
                f"lstm.bias_ih_l0{ending}": take(arrays, f"{place}.2", (4 * width,), where),
                f"lstm.bias_hh_l0{ending}": torch.zeros(4 * width),
            }
        for name, place, shape in (
            ("dense", "dense", (2 * width, inner)),
            ("classifier", "dense_1", (inner, len(LABELS))),
        ):
            state[f"{name}.weight"] = take(arrays, f"{place}.0", shape, where).T.contiguous()
            state[f"{name}.bias"] = take(arrays, f"{place}.1", shape[1:], where)
        names = {str(i): label for i, label in enumerate(LABELS)}
        config = BilstmConfig(vocab, inputs, width, inner, id2label=names)
        numbered = {PAD: 0, **read_vocab(path / VOCAB, vocab)}
        tokens = Tokens(words(numbered, control=(PAD,)), pad=PAD, where=str(path / VOCAB))
        source = {"format": "toxic-comment-classifier", "licence": "not stated in the files"}
        save(folder, build_model(config, state, str(where)), tokens, source)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays by name; those of Python objects are pickles, and refused."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if sum(entry.file_size for entry in arrays.zip.infolist()) > MOST:
                raise InputError(f"unpacks to more than {MOST} bytes", where=str(path), then=AGAIN)
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"is damaged, or holds a pickle ({error})", where=str(path), then=AGAIN) from error


def sizes(arrays: Mapping[str, np.ndarray], name: str, where: Path) -> tuple[int, int]:
    """The shape of a matrix."""
    if name not in arrays or arrays[name].ndim != 2:
        raise InputError(f"holds no matrix {name}", where=str(where), then=AGAIN)
    return arrays[name].shape


def take(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], where: Path) -> Tensor:
    if name not in arrays:
        raise InputError(f"holds no {name}", where=str(where), then=AGAIN)
    return checked(arrays[name], shape, name, where)


def read_vocab(path: Path, size: int) -> dict[str, int]:
    vocab = read_json(path)
    numbers = vocab.values() if isinstance(vocab, dict) else []
    if not numbers or not all(type(i) is int and 1 <= i < size for i in numbers):
        raise InputError(f"is not an object of words and ids from 1 to {size - 1}", where=str(path), then=AGAIN)
    if len(set(numbers)) < len(vocab):
        raise InputError("an id stands twice", where=str(path), then=AGAIN)
    return vocab
