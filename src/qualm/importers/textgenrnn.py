"""Weights of textgenrnn: an HDF5 file of Keras beside the JSON file of its characters.

https://github.com/minimaxir/textgenrnn. The layers are Keras's CuDNNLSTM: gates in torch's order (input, forget, new,
output), the kernel of each gate row by row as the transposed matrix, a bias for the input and one for the state. Id 0
fills the window up, "<s>" begins and ends a text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualm.errors import InputError, MissingExtra
from qualm.files import read_json
from qualm.importers.base import AGAIN, Importer, checked, save
from qualm.models.base import LARGEST
from qualm.models.store import build_model
from qualm.models.textgenrnn import TextgenrnnConfig
from qualm.tokens.classic import characters
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import start_with

MAGIC = b"\x89HDF\r\n\x1a\n"
WEIGHTS = ("_weights.hdf5", "_vocab.json")
MOST = 2**28  # numbers in an array
PAD, END = "<pad>", "<s>"
TABLE, ATTENTION = "embedding/embedding/embeddings:0", "attention/attention/attention_W:0"
HEAD, HEAD_BIAS = "output/output/kernel:0", "output/output/bias:0"


class Textgenrnn(Importer):
    """NAME_weights.hdf5 with NAME_vocab.json beside it, or a folder with one such pair."""

    reads = "textgenrnn's NAME_weights.hdf5 with its NAME_vocab.json"

    def recognises(self, path: Path) -> bool:
        return bool(pairs(path))

    def files(self, path: Path) -> list[Path]:
        return list(only(path))

    def write(self, path: Path, folder: Path) -> None:
        weights, vocab = only(path)
        numbered = read_vocab(vocab)
        arrays = read_hdf5(weights)
        table, kernel = (two(arrays, name, weights) for name in (TABLE, "rnn_1/rnn_1/kernel:0"))
        size, inputs, width = table[0], table[1], kernel[1] // 4
        if max(numbered.values()) >= size:
            raise InputError(f"has ids up to {max(numbered.values())}, and {size} have weights", where=str(vocab))
        read = inputs + 2 * width
        state = {
            "embedding.weight": take(arrays, TABLE, (size, inputs), weights),
            "attention.weight": take(arrays, ATTENTION, (read, 1), weights).T.contiguous(),
            "output.weight": take(arrays, HEAD, (read, size), weights).T.contiguous(),
            "output.bias": take(arrays, HEAD_BIAS, (size,), weights),
            **cudnn(arrays, 1, inputs, width, weights),
            **cudnn(arrays, 2, width, width, weights),
        }
        end = numbered[END]
        config = TextgenrnnConfig(size, inputs, width, bos_token_id=end, eos_token_id=end)
        tokenizer = characters({PAD: 0, **numbered}, (PAD, END))
        tokenizer.post_processor = start_with(END, end)
        tokens = Tokens(tokenizer, bos=END, eos=END, pad=PAD, where=str(vocab))
        source = {"format": "textgenrnn", "licence": "not stated in the files"}
        save(folder, build_model(config, state, str(weights)), tokens, source)


def pairs(path: Path) -> list[tuple[Path, Path]]:
    """Weights and vocabularies at `path` that belong together by their names."""
    found = sorted(path.glob(f"*{WEIGHTS[0]}")) if path.is_dir() else [path]
    both = [(file, file.with_name(file.name.removesuffix(WEIGHTS[0]) + WEIGHTS[1])) for file in found]
    return [(file, vocab) for file, vocab in both if file.name.endswith(WEIGHTS[0]) and vocab.is_file()]


def only(path: Path) -> tuple[Path, Path]:
    found = pairs(path)
    if len(found) != 1:
        raise InputError(f"holds {len(found)} models", where=str(path), then=f"name one: {found[0][0]}")
    return found[0]


def read_vocab(path: Path) -> dict[str, int]:
    vocab = read_json(path)
    numbers = vocab.values() if isinstance(vocab, dict) else []
    if not numbers or not all(type(i) is int and 1 <= i <= LARGEST for i in numbers):
        raise InputError("is not an object of characters and ids from 1 on", where=str(path), then=AGAIN)
    odd = [key for key in vocab if len(key) != 1 and key != END]
    if odd or END not in vocab or len(set(numbers)) < len(vocab):
        what = f"{odd[0]!r} is no character" if odd else f"an id stands twice, or {END} has none"
        raise InputError(what, where=str(path), then="only models of single characters are read")
    return vocab


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """All arrays of numbers in the file by their paths. Raises MissingExtra without h5py."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError("is no HDF5 file", where=str(path), then=AGAIN)
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("HDF5 files need h5py", where=str(path), then="pip install 'qualm-lm[hdf5]'") from error
    found: dict[str, np.ndarray] = {}

    def keep(name: str, thing: Any) -> None:
        if not isinstance(thing, h5py.Dataset) or thing.dtype.kind != "f":
            return
        if thing.external or thing.is_virtual or (thing.size or 0) > MOST:
            raise InputError(f"{name} lies in another file, or is larger than any layer", where=str(path), then=AGAIN)
        found[name] = np.asarray(thing)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"is damaged ({error})", where=str(path), then=AGAIN) from error
    return found


def two(arrays: Mapping[str, np.ndarray], name: str, where: Path) -> tuple[int, int]:
    """The shape of a matrix."""
    if name not in arrays or arrays[name].ndim != 2:
        raise InputError(f"holds no matrix {name}", where=str(where), then="only textgenrnn's own layers are read")
    return arrays[name].shape


def take(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], where: Path) -> Tensor:
    if name not in arrays:
        raise InputError(f"holds no {name}", where=str(where), then="only textgenrnn's own layers are read")
    return checked(arrays[name], shape, name, where)


def cudnn(arrays: Mapping[str, np.ndarray], layer: int, inputs: int, width: int, where: Path) -> dict[str, Tensor]:
    """One CuDNNLSTM by torch's names."""
    place = f"rnn_{layer}/rnn_{layer}"
    kernel = take(arrays, f"{place}/kernel:0", (inputs, 4 * width), where)
    recurrent = take(arrays, f"{place}/recurrent_kernel:0", (width, 4 * width), where)
    bias = take(arrays, f"{place}/bias:0", (8 * width,), where)
    return {
        f"rnn_{layer}.weight_ih_l0": torch.cat([g.reshape(width, inputs) for g in kernel.split(width, 1)]),
        f"rnn_{layer}.weight_hh_l0": torch.cat([g.reshape(width, width) for g in recurrent.split(width, 1)]),
        f"rnn_{layer}.bias_ih_l0": bias[: 4 * width].clone(),
        f"rnn_{layer}.bias_hh_l0": bias[4 * width :].clone(),
    }
