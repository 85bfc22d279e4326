"""llama2.c's checkpoints: the same logits and ids as its own program's, a plain Llama for others, damage named."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from foreign import LLAMA, SCORES, SPELLED, llama_logits, llama_parts, read_llama, write_llama, write_llama_tokens
from qualm.errors import InputError
from qualm.importers.stories260k import Stories260k, entries
from qualm.lm.base import Sampling
from qualm.lm.load import load_base

TEXTS = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "In 1984 he had 12 apples, 3.5 pears\nand\n\n  two  spaces at the end  ",
    "naïve café – “quoted” … ½ 快速的狐狸 Привет",
    "Emoji 😀 👩‍👩‍👧 and \x07 a bell\tand a tab\r\n",
    " leading space",
    "the thing and the other, hello llama",
)


def program_ids(text: str, spelled: list[str], scores: list[float]) -> list[int]:
    """How llama2.c encodes: a space, then characters (bytes where they are unknown), then the best-scored joins."""
    ids_of = {token: i for i, token in enumerate(spelled)}
    ids = [1]
    for c in f" {text}" if text else "":
        ids += [ids_of[c]] if c in ids_of else [b + 3 for b in c.encode()]
    while True:
        joins = [
            (scores[ids_of[t]], -i)
            for i in range(len(ids) - 1)
            if (t := spelled[ids[i]] + spelled[ids[i + 1]]) in ids_of
        ]
        if not joins:
            return ids
        at = -max(joins)[1]
        ids[at : at + 2] = [ids_of[spelled[ids[at]] + spelled[ids[at + 1]]]]


@pytest.fixture
def folder(tmp_path):
    return write_llama(tmp_path / "tiny")


def load(path: Path, tmp_path: Path):
    return load_base(path, cache=tmp_path / "cache")


@pytest.mark.parametrize("shared", [True, False])
def test_logits_are_the_programs(tmp_path, shared):
    lm = load(write_llama(tmp_path / "tiny", shared), tmp_path)
    ids = lm.tokens.encode_prompt("the other and\nthe hello")
    with torch.no_grad():
        ours = lm.model.double()(torch.tensor([ids]))[0].numpy()
    difference = np.abs(ours - llama_logits(ids, llama_parts(shared))).max()
    assert difference < 1e-5  # the angles are float32


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_the_programs(folder, tmp_path, text):
    tokens = load(folder, tmp_path).tokens
    ids = tokens.encode_prompt(text)
    assert ids == program_ids(text, SPELLED, SCORES)
    assert tokens.decode(ids) == text


def test_transformers_reads_what_is_written(folder, tmp_path):
    lm = load(folder, tmp_path)
    Stories260k().write(folder, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(TEXTS[5], return_tensors="pt").input_ids
    assert ids[0].tolist() == lm.tokens.encode_prompt(TEXTS[5])
    with torch.no_grad():
        assert (theirs(ids).logits - lm.model(ids)).abs().max() < 1e-4


def test_the_file_itself_and_a_folder_of_two(folder, tmp_path):
    lm = load(folder / "model.bin", tmp_path)
    assert lm.name == "model.bin"
    assert lm.card == load(folder, tmp_path).card
    (folder / "other.bin").write_bytes((folder / "model.bin").read_bytes())
    with pytest.raises(InputError, match="holds 2 models"):
        load(folder, tmp_path)
    assert load(folder / "other.bin", tmp_path).card == lm.card


def damaged(folder: Path, at: int, data: bytes) -> None:
    file = folder / "model.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + data + whole[at + len(data) :])


NAN = struct.pack("<f", float("nan"))
EMBEDDING = 28 + 4 * LLAMA["vocab"] * LLAMA["dim"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "model.bin").write_bytes((f / "model.bin").read_bytes()[:-4]), "model.bin.*header says"),
        (lambda f: damaged(f, 0, struct.pack("<i", 32)), "model.bin.*header says"),
        (lambda f: damaged(f, 40, NAN), "model.bin.*embed_tokens holds NaN"),
        (lambda f: damaged(f, EMBEDDING, NAN), "model.bin.*input_layernorm holds NaN"),
        (lambda f: damaged(f, 0, b"\x80\x02}q"), "model.bin.*pickle"),
        (lambda f: (f / "tok300.bin").unlink(), "tok.*there is none"),
        (lambda f: write_llama_tokens(f / "tok300.bin", SPELLED[:-1], SCORES[:-1]), "300 tokens.*with 299"),
        (lambda f: (f / "tok300.bin").write_bytes((f / "tok300.bin").read_bytes()[:-1]), "tok300.bin.*token 299"),
        (lambda f: write_llama_tokens(f / "tok300.bin", [*SPELLED[:-1], "a"]), "tok300.bin.*'a'"),
        (lambda f: write_llama_tokens(f / "tok300.bin", SPELLED, [*SCORES[:-1], float("nan")]), "tok300.*token 299"),
        (lambda f: (f / "tok300.bin").write_bytes(struct.pack("<ifi", 9, 0, 2) + b"\xff\xfe"), "tok300.*token 0 is no"),
    ],
)
def test_damage_is_named(folder, tmp_path, damage, said):
    damage(folder)
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
        load(folder, tmp_path)
    assert not list((tmp_path / "cache").glob("imported/*"))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return load_base(Path(os.environ["QUALM_SHARED"], "weights-stories260k"), cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.shared
def test_the_real_one_tells_its_story(real):
    assert real.card.parameters == 260_032
    (told,) = real.generate(["Once upon a time"], Sampling(max_tokens=120))
    assert told.text.startswith(
        ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
        " She wanted to play with it, but it was too high.\nLily's mom said"
    )


@pytest.mark.shared
def test_the_real_ones_tokens_are_the_programs(real):
    sizes, parts = read_llama(Path(os.environ["QUALM_SHARED"], "weights-stories260k", "stories260K.bin"))
    ids = real.tokens.encode_prompt("Once upon a time")
    (told,) = real.generate(["Once upon a time"], Sampling(max_tokens=120))
    whole = [*ids, *real.tokens.encode("Once upon a time" + told.text)[len(ids) - 1 :]]
    assert len(whole) == len(ids) + 120
    for n in range(len(ids), len(whole)):
        assert llama_logits(whole[:n], parts, sizes)[-1].argmax() == whole[n]


@pytest.mark.shared
@pytest.mark.parametrize("text", TEXTS)
def test_the_real_ones_ids(real, text):
    read = entries(Path(os.environ["QUALM_SHARED"], "weights-stories260k", "tok512.bin"))
    ids = real.tokens.encode_prompt(text)
    assert ids == program_ids(text, *map(list, zip(*read, strict=True)))
    assert real.tokens.decode(ids) == text
