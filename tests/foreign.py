"""Small made-up models in the formats that importers read, and what their own programs would compute of them."""

import json
import struct
from pathlib import Path

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = [" ", *LETTERS, "U", "\n", "."]


def random(*shape: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype("<f4")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_step(gates: dict[str, np.ndarray], c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The new h and c of what goes into the gates i, f, g and o."""
    c = sigmoid(gates["f"]) * c + sigmoid(gates["i"]) * np.tanh(gates["g"])
    return sigmoid(gates["o"]) * np.tanh(c), c


# -- llama2.c

LLAMA = {"dim": 16, "hidden": 24, "layers": 2, "heads": 4, "kv": 2, "vocab": 300, "length": 32}
SPELLED = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{b:02X}>" for b in range(256))]
SPELLED += [
    " ",
    *LETTERS,
    "th",
    " th",
    "he",
    " the",
    "an",
    "and",
    " a",
    " and",
    "in",
    "ing",
    "é",
    "lo",
    "ll",
    "llo",
]
SCORES = [-float(37 * i % 101) if i > 258 else 0.0 for i in range(len(SPELLED))]  # not in the order of the ids


def llama_shapes(sizes: dict[str, int], shared: bool = True) -> dict[str, tuple[int, ...]]:
    """Each kind of weight in the file's order."""
    d, inner, layers, heads, kv, vocab, length = sizes.values()
    head = d // heads
    shapes = {"emb": (vocab, d), "norm1": (layers, d), "q": (layers, d, d), "k": (layers, head * kv, d)}
    shapes |= {"v": (layers, head * kv, d), "o": (layers, d, d), "norm2": (layers, d), "w1": (layers, inner, d)}
    shapes |= {"w2": (layers, d, inner), "w3": (layers, inner, d), "norm": (d,), "turns": (2, length, head // 2)}
    return shapes if shared else {**shapes, "out": (vocab, d)}


def llama_parts(shared: bool = True) -> dict[str, np.ndarray]:
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(llama_shapes(LLAMA, shared).items())}


def read_llama(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Sizes and weights of a file, whose output matrix is the embedding."""
    data = path.read_bytes()
    sizes = dict(zip(LLAMA, struct.unpack_from("<7i", data), strict=True))
    shapes = llama_shapes(sizes)
    ends = np.cumsum([0, *(np.prod(shape) for shape in shapes.values())])
    numbers = np.frombuffer(data, "<f4", offset=28)
    parts = [numbers[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], shapes.values(), strict=False)]
    return sizes, dict(zip(shapes, parts, strict=True))


def write_llama(folder: Path, shared: bool = True) -> Path:
    """model.bin and tok300.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = list(LLAMA.values())
    sizes[5] = sizes[5] if shared else -sizes[5]
    parts = b"".join(part.tobytes() for part in llama_parts(shared).values())
    (folder / "model.bin").write_bytes(struct.pack("<7i", *sizes) + parts)
    write_llama_tokens(folder / "tok300.bin")
    return folder


def write_llama_tokens(path: Path, spelled: list[str] = SPELLED, scores: list[float] = SCORES) -> None:
    rows = (struct.pack("<fi", s, len(t.encode())) + t.encode() for t, s in zip(spelled, scores, strict=True))
    path.write_bytes(struct.pack("<i", max(len(t.encode()) for t in spelled)) + b"".join(rows))


def llama_logits(ids: list[int], parts: dict[str, np.ndarray], sizes: dict[str, int] = LLAMA) -> np.ndarray:
    """As llama2.c computes it: channels 2i and 2i + 1 of a head turn against each other."""
    p = {name: part.astype(np.float64) for name, part in parts.items()}
    d, _, layers, heads, kv, _, _ = sizes.values()
    head, n = d // heads, len(ids)
    angle = np.arange(n)[:, None] / 10000.0 ** (np.arange(0, head, 2) / head)
    turn = np.exp(1j * angle)[:, None]  # (T, 1, Dh / 2)

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def turned(x: np.ndarray) -> np.ndarray:
        pairs = x.reshape(n, -1, head // 2, 2)
        z = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        return np.stack([z.real, z.imag], -1).reshape(n, -1, head)

    x = p["emb"][ids]
    for i in range(layers):
        h = norm(x, p["norm1"][i])
        q, k, v = turned(h @ p["q"][i].T), turned(h @ p["k"][i].T), (h @ p["v"][i].T).reshape(n, kv, head)
        k, v = (np.repeat(z, heads // kv, 1) for z in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / head**0.5 + np.triu(np.full((n, n), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", weights, v).reshape(n, d) @ p["o"][i].T
        h = norm(x, p["norm2"][i])
        gate = h @ p["w1"][i].T
        x = x + (gate * sigmoid(gate) * (h @ p["w3"][i].T)) @ p["w2"][i].T
    return norm(x, p["norm"]) @ p.get("out", p["emb"]).T


# -- ml5's charRNN

CELL = "rnnlm/multi_rnn_cell/cell_{}/basic_lstm_cell/{}"


def charrnn_parts(old: bool = False, inputs: int = 6, width: int = 8) -> dict[str, np.ndarray]:
    vocab = len(CHARACTERS)
    shapes = {"embedding": (vocab, inputs), "rnnlm/softmax_w": (width, vocab), "rnnlm/softmax_b": (vocab,)}
    for i in (0, 1):
        shapes[CELL.format(i, "weights" if old else "kernel")] = ((width if i else inputs) + width, 4 * width)
        shapes[CELL.format(i, "biases" if old else "bias")] = (4 * width,)
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def write_charrnn(folder: Path, old: bool = False, misspelled: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"Variable": {"filename": "Variable", "shape": []}}
    for name, part in charrnn_parts(old).items():
        file = name.replace("/", "_")
        manifest[name] = {"filename": file, "shape": list(part.shape)}
        (folder / file).write_bytes(part.tobytes())
    wrong = {"u": "  ", "U": ""} if misspelled else {}
    vocab = {wrong.get(c, c): i for i, c in enumerate(CHARACTERS)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "vocab.json").write_text(json.dumps(vocab))
    return folder


def charrnn_logits(ids: list[int]) -> np.ndarray:
    """As TensorFlow computes it: input and state side by side, gates i, j, f, o, and 1 added to f."""
    p = {name: part.astype(np.float64) for name, part in charrnn_parts().items()}
    x = p["embedding"][ids]
    for i in (0, 1):
        kernel, bias = p[CELL.format(i, "kernel")], p[CELL.format(i, "bias")]
        h = c = np.zeros(len(bias) // 4)
        out = []
        for step in x:
            i_, j, f, o = np.split(np.concatenate([step, h]) @ kernel + bias, 4)
            h, c = lstm_step({"i": i_, "f": f + 1, "g": j, "o": o}, c)
            out.append(h)
        x = np.array(out)
    return x @ p["rnnlm/softmax_w"] + p["rnnlm/softmax_b"]


# -- textgenrnn

TEXTGEN = {"<s>": 1, **{c: i for i, c in enumerate(CHARACTERS, 2)}}


def textgenrnn_parts(inputs: int = 6, width: int = 8) -> dict[str, np.ndarray]:
    vocab, read = len(TEXTGEN) + 1, inputs + 2 * width
    shapes = {"embedding/embedding/embeddings:0": (vocab, inputs), "attention/attention/attention_W:0": (read, 1)}
    shapes |= {"output/output/kernel:0": (read, vocab), "output/output/bias:0": (vocab,)}
    for i, before in ((1, inputs), (2, width)):
        shapes[f"rnn_{i}/rnn_{i}/kernel:0"] = (before, 4 * width)
        shapes[f"rnn_{i}/rnn_{i}/recurrent_kernel:0"] = (width, 4 * width)
        shapes[f"rnn_{i}/rnn_{i}/bias:0"] = (8 * width,)
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def write_textgenrnn(folder: Path, parts: dict[str, np.ndarray] | None = None, name: str = "tiny") -> Path:
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}_weights.hdf5", "w") as file:
        for place, part in (parts or textgenrnn_parts()).items():
            file[place] = part
    (folder / f"{name}_vocab.json").write_text(json.dumps(TEXTGEN))
    return folder


def textgenrnn_logits(ids: list[int], parts: dict[str, np.ndarray] | None = None, window: int = 40) -> np.ndarray:
    """The logits after the last id, as Keras computes it of cuDNN's weights."""
    p = {name: np.asarray(part, np.float64) for name, part in (parts or textgenrnn_parts()).items()}
    kept = ids[-window:]
    x = p["embedding/embedding/embeddings:0"][[0] * (window - len(kept)) + kept]
    places = [x]
    for i in (1, 2):
        kernel, recurrent, bias = (p[f"rnn_{i}/rnn_{i}/{part}:0"] for part in ("kernel", "recurrent_kernel", "bias"))
        width = len(bias) // 8
        # Keras's own way from cuDNN's layout to its own
        w = [np.reshape(k.T, k.shape, order="F") for k in np.split(kernel, 4, 1)]
        u = [r.T for r in np.split(recurrent, 4, 1)]
        b = np.split(bias[: 4 * width] + bias[4 * width :], 4)
        h = c = np.zeros(width)
        out = []
        for step in x:
            gates = {name: step @ w[k] + h @ u[k] + b[k] for k, name in enumerate("ifgo")}
            h, c = lstm_step(gates, c)
            out.append(h)
        x = np.array(out)
        places.append(x)
    read = np.concatenate(places, -1)
    scores = (read @ p["attention/attention/attention_W:0"])[:, 0]
    weights = np.exp(scores - scores.max())
    mean = (read * (weights / weights.sum())[:, None]).sum(0)
    return mean @ p["output/output/kernel:0"] + p["output/output/bias:0"]


# -- the toxicity BiLSTM

WORDS = {word: i for i, word in enumerate(["the", "you", "a", "idiot", "don't", "i", "love", "article"], 1)}


def toxic_parts(inputs: int = 5, width: int = 6, inner: int = 7) -> dict[str, np.ndarray]:
    shapes = {"embedding.0": (len(WORDS) + 1, inputs)}
    for direction in ("forward", "backward"):
        for i, shape in enumerate(((inputs, 4 * width), (width, 4 * width), (4 * width,))):
            shapes[f"bidirectional.{direction}_layer.{i}"] = shape
    shapes |= {"dense.0": (2 * width, inner), "dense.1": (inner,), "dense_1.0": (inner, 6), "dense_1.1": (6,)}
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def write_toxic(folder: Path, parts: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "weights.npz", **(parts or toxic_parts()))
    (folder / "vocab.json").write_text(json.dumps(WORDS))
    return folder


def toxic_probabilities(ids: list[int], parts: dict[str, np.ndarray] | None = None, window: int = 100) -> np.ndarray:
    """As Keras computes it: padded or cut on the left, padding read like any word."""
    p = {name: np.asarray(part, np.float64) for name, part in (parts or toxic_parts()).items()}
    kept = ids[-window:]
    x = p["embedding.0"][[0] * (window - len(kept)) + kept]
    sides = []
    for direction, order in (("forward", x), ("backward", x[::-1])):
        kernel, recurrent, bias = (p[f"bidirectional.{direction}_layer.{i}"] for i in range(3))
        h = c = np.zeros(len(bias) // 4)
        out = []
        for step in order:
            gates = dict(zip("ifgo", np.split(step @ kernel + h @ recurrent + bias, 4), strict=True))
            h, c = lstm_step(gates, c)
            out.append(h)
        sides.append(np.array(out))
    pooled = np.concatenate([side.max(0) for side in sides])
    dense = np.maximum(pooled @ p["dense.0"] + p["dense.1"], 0)
    return sigmoid(dense @ p["dense_1.0"] + p["dense_1.1"])
