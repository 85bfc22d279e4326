"""Character models of ml5: LSTMs of TensorFlow 1, one raw float32 file a tensor.

https://github.com/ml5js/ml5-data-and-models. manifest.json names the tensors, vocab.json the characters; some name the
LSTM's `weights` and `biases`, others `kernel` and `bias`. TensorFlow's BasicLSTMCell reads input and state with one
matrix, keeps its gates in the order input, new, forget, output, and adds 1 to the forget gate; torch's order is input,
forget, new, output.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qualm.errors import InputError
from qualm.files import read_json
from qualm.importers.base import AGAIN, Importer, floats, save
from qualm.models.base import LARGEST
from qualm.models.rnn import RnnConfig
from qualm.models.store import build_model
from qualm.tokens.classic import characters
from qualm.tokens.tokenizer import Tokens

MANIFEST, VOCAB = "manifest.json", "vocab.json"
CELL = re.compile(r"rnnlm/multi_rnn_cell/cell_(\d+)/basic_lstm_cell/(weights|kernel|biases|bias)")
NAMES = {"weights": "kernel", "biases": "bias"}
MISSPELLED = {"  ": "u", "": "U"}  # in the vocabulary of the Shakespeare model
LINE = "\n"  # what stands before a text that nothing stands before: they learned from one running text
PLAIN = re.compile(r"[\w.-]+")


class Charrnn(Importer):
    """A folder with manifest.json, vocab.json and the files that the manifest names."""

    reads = "a folder of ml5's charRNN (manifest.json, vocab.json)"

    def recognises(self, path: Path) -> bool:
        if not ((path / MANIFEST).is_file() and (path / VOCAB).is_file()):
            return False
        with (path / MANIFEST).open("rb") as file:
            return b"rnnlm" in file.read(2**16)

    def write(self, path: Path, folder: Path) -> None:
        tensors = read_tensors(path)
        numbered, repaired = repair(read_vocab(path / VOCAB))
        cells = lstm(tensors, path)
        table = matrix(tensors, "embedding", (None, None), path)
        vocab, inputs = table.shape
        width = cells["rnn.weight_hh_l0"].shape[1]
        odd = [key for key in numbered if len(key) != 1]
        if odd or sorted(numbered.values()) != list(range(vocab)):
            what = f"{odd[0]!r} is no character" if odd else f"its ids are not 0 to {vocab - 1}, each once"
            raise InputError(what, where=str(path / VOCAB), then=AGAIN)
        state = {
            "embed_tokens.weight": table,
            "lm_head.weight": matrix(tensors, "rnnlm/softmax_w", (width, vocab), path).T.contiguous(),
            "lm_head.bias": matrix(tensors, "rnnlm/softmax_b", (vocab,), path),
            **cells,
        }
        config = RnnConfig(
            vocab_size=vocab,
            hidden_size=width,
            num_hidden_layers=len(cells) // 4,
            embedding_size=inputs,
            head_bias=True,
            tie_word_embeddings=False,
            bos_token_id=numbered.get(LINE),
        )
        tokens = Tokens(characters(numbered), bos=LINE if LINE in numbered else "", where=str(path / VOCAB))
        source: dict[str, Any] = {"format": "ml5 charRNN", "licence": "not stated in the files"}
        source |= {"repaired": repaired} if repaired else {}
        save(folder, build_model(config, state, str(path)), tokens, source)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name. Raises InputError naming the file that is missing or not of the size the manifest says."""
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict):
        raise InputError("is not a JSON object", where=str(path / MANIFEST), then=AGAIN)
    found: dict[str, Tensor] = {}
    for name, entry in manifest.items():
        if name == "Variable":  # the step counter
            continue
        file, shape = (entry.get("filename"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
        sizes = isinstance(shape, list) and all(type(n) is int and 1 <= n <= LARGEST for n in shape)
        if not isinstance(file, str) or not PLAIN.fullmatch(file) or not sizes:
            raise InputError(f"{name} has no plain filename or no shape", where=str(path / MANIFEST), then=AGAIN)
        if not (path / file).is_file():
            raise InputError(f"there is no file for {name}", where=str(path / file), then=AGAIN)
        found[name.replace("rnnlm_softmax", "rnnlm/softmax")] = floats(
            (path / file).read_bytes(), tuple(shape), name, path / file
        )
    return found


def matrix(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...], path: Path) -> Tensor:
    """A tensor by name. Raises InputError if it is missing, or not of this shape (None: of any size)."""
    if name not in tensors:
        raise InputError(f"names no tensor {name}", where=str(path / MANIFEST), then=AGAIN)
    found = tensors[name]
    if found.dim() != len(shape) or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True)):
        raise InputError(
            f"{name} is {list(found.shape)}, and should be {list(shape)}", where=str(path / MANIFEST), then=AGAIN
        )
    return found


def lstm(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The layers' weights by torch's names, in its order of the gates."""
    cells = {(int(m[1]), NAMES.get(m[2], m[2])): name for name in tensors if (m := CELL.fullmatch(name))}
    state: dict[str, Tensor] = {}
    inputs = matrix(tensors, "embedding", (None, None), path).shape[1]
    for layer in range(max(1, len(cells) // 2)):
        names = [cells.get((layer, part), f"kernel or bias of cell {layer}") for part in ("kernel", "bias")]
        bias = matrix(tensors, names[1], (None,), path)
        width = len(bias) // 4
        kernel = matrix(tensors, names[0], (inputs + width, 4 * width), path)
        new_order = [0, 2, 1, 3]
        rows = torch.cat([kernel.T.split(width)[gate] for gate in new_order])  # (4 H, I + H)
        added = torch.zeros(4 * width)
        added[width : 2 * width] = 1.0  # to the forget gate
        state[f"rnn.weight_ih_l{layer}"] = rows[:, :inputs].contiguous()
        state[f"rnn.weight_hh_l{layer}"] = rows[:, inputs:].contiguous()
        state[f"rnn.bias_ih_l{layer}"] = torch.cat([bias.split(width)[gate] for gate in new_order]) + added
        state[f"rnn.bias_hh_l{layer}"] = torch.zeros(4 * width)
        inputs = width
    return state


def read_vocab(path: Path) -> dict[str, int]:
    vocab = read_json(path)
    if (
        not isinstance(vocab, dict)
        or not vocab
        or not all(type(i) is int and 0 <= i <= LARGEST for i in vocab.values())
    ):
        raise InputError("is not an object of characters and their ids", where=str(path), then=AGAIN)
    twice = [i for i, count in Counter(vocab.values()).items() if count > 1]
    if twice:
        raise InputError(f"gives the id {twice[0]} twice", where=str(path), then=AGAIN)
    return vocab


def repair(vocab: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The vocabulary with the two misspelled keys set right, where the right ones are missing, and what was done."""
    wrong = {key: right for key, right in MISSPELLED.items() if key in vocab and right not in vocab}
    said = [f"vocab.json: the key {key!r} is {right!r}" for key, right in wrong.items()]
    return {wrong.get(key, key): i for key, i in vocab.items()}, said
