"""What a person gets wrong about training data, at the command line: one line that says where, and an exit code."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from test_errors import one_line
from test_training_adapters import made
from test_tuning import reviews, written

FAST = ("--steps", 2, "--batch", 4, "--threads", 1, "-q")
NONE = {"text": [], "answer_start": []}
TRAIN = ("--size", "30k", "--vocab", 300, *FAST)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """A folder with a BERT and a Llama."""
    root = tmp_path_factory.mktemp("bases")
    for family in ("bert", "llama"):
        made(family, root / family)
    return root


def chats(count: int = 6) -> list[dict]:
    said = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}] for i in range(count)]
    return [{"messages": messages} for messages in said]


def test_a_label_that_is_not_among_those_learnt(qualm, bases, tmp_path):
    written(tmp_path / "rows", [{"text": "a", "label": 0}, {"text": "b", "label": 1}], "train.jsonl")
    written(tmp_path / "rows", [{"text": "c", "label": 0}, {"text": "a", "label": 7}], "validation.jsonl")
    done = qualm("tune", bases / "bert", tmp_path / "rows", "--task", "classify", "-o", "out", *FAST)
    assert done.code == 4
    one_line(done, "validation.jsonl:2: label '7' is not among those learnt; say 0, 1")


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [
        (reviews(9), [], "validation.jsonl: holds no rows; add some"),
        ([], reviews(9), "train.jsonl: holds no rows; add some"),
        ([reviews(1)[0]] * 9, None, "fewer than two distinct rows; add rows, or give a folder with train and valid"),
    ],
)
def test_a_split_that_is_empty(qualm, bases, tmp_path, train, held, said):
    written(tmp_path / "rows", train, "train.jsonl")
    if held is not None:
        written(tmp_path / "rows", held, "validation.jsonl")
    done = qualm("tune", bases / "bert", tmp_path / "rows", "--task", "classify", "-o", "out", *FAST)
    assert done.code == 4
    one_line(done, said)


def test_text_that_cannot_be_split(qualm, tmp_path):
    (tmp_path / "one.txt").write_text("a single document")
    done = qualm("train", "one.txt", "-o", "out", *TRAIN)
    assert done.code == 4
    one_line(done, "fewer than two distinct documents; add text, or hold none out")


@pytest.mark.parametrize(
    ("task", "good", "bad", "said"),
    [
        ("classify", {"text": "a", "label": 0}, {"text": "b"}, "field 'label' is missing; add it; this row has text"),
        ("classify", {"text": "a", "label": 0}, {"label": 1}, "field 'text' is missing; add it; this row has label"),
        ("tag", {"tokens": ["a"], "tags": ["X"]}, {"tokens": ["b"]}, "field 'tags' is missing"),
        ("qa", {"question": "q", "context": "c", "answers": NONE}, {"question": "q"}, "field 'context' is missing"),
        ("seq2seq", {"prompt": "a", "completion": "b"}, {"prompt": "c"}, "field 'completion' is missing"),
        ("chat", chats(1)[0], {"text": "a"}, "field 'messages' is missing"),
        ("prefer", {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "b"}, "field 'chosen' is missing"),
    ],
)
def test_a_row_without_a_field_that_is_needed(qualm, bases, tmp_path, task, good, bad, said):
    rows = [good, bad, good]
    written(tmp_path / "rows", rows, "train.jsonl")
    written(tmp_path / "rows", [good], "validation.jsonl")
    family = "bert" if task in ("classify", "tag", "qa") else "llama"
    done = qualm("tune", bases / family, tmp_path / "rows", "--task", task, "-o", "out", *FAST)
    assert done.code == 4
    one_line(done, "train.jsonl:2: field", said)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only one turn') }}", "the chat template does not take these messages: only one turn"),
        ("{{ messages[0].content | nothing }}", "the chat template does not work"),
        ("{% for m in messages %}{{ m.content }}", "template"),
        ("{% for i in range(10**9) %}x{% endfor %}", "template"),
    ],
)
def test_a_template_that_fails(qualm, bases, tmp_path, template, said):
    base = shutil.copytree(bases / "llama", tmp_path / "base")
    (base / "chat_template.jinja").write_text(template)
    written(tmp_path, chats())
    done = qualm("tune", base, "rows.jsonl", "--task", "chat", "-o", "out", *FAST)
    assert done.code == 4
    one_line(done, said)


@pytest.mark.parametrize("family", ["gpt", "bert", "llama", "t5"])
def test_rows_longer_than_the_model_has_positions(qualm, notes, family):
    key = "n_positions" if family in ("gpt", "t5") else "max_position_embeddings"
    words = ("--family", family, "--length", 64, f"--keys.{key}", 32, *TRAIN)
    done = qualm("train", notes, "-o", "out", *words)
    assert done.code == 2
    one_line(done, "length: 64 tokens are more than the 32 positions of the model; say --length 32 or less")


def test_a_lesson_longer_than_the_model_has_positions(qualm, bases, tmp_path):
    written(tmp_path, chats())
    done = qualm("tune", bases / "llama", "rows.jsonl", "--task", "chat", "--length", 9999, "-o", "out", *FAST)
    assert done.code == 2
    one_line(done, "length: 9999 tokens are more than the", "positions of the model")


def test_weights_of_several_formats_are_learnt_in_one(qualm, bases, tmp_path):
    """What is read is put into fp32; a format that holds no such numbers is refused."""
    base = shutil.copytree(bases / "llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    names = sorted(name for name, weight in weights.items() if weight.dim() == 2)
    weights[names[0]], weights[names[1]] = weights[names[0]].half(), weights[names[1]].bfloat16()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    written(tmp_path, chats())
    done = qualm("tune", base, "rows.jsonl", "--task", "chat", "-o", "out", *FAST, "--precision", "fp32")
    assert done.code == 0, done.err
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    weights[names[0]] = weights[names[0]].to(torch.int32)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    done = qualm("tune", base, "rows.jsonl", "--task", "chat", "-o", "other", *FAST)
    assert done.code == 4
    one_line(done, names[0])


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_a_model_spread_over_one_process(qualm, bases, notes, tmp_path, verb):
    written(tmp_path, chats())
    words = ("train", notes, *TRAIN) if verb == "train" else ("tune", bases / "llama", "rows.jsonl", "--task", "chat")
    done = qualm(*words, "-o", "out", "--shard")
    assert done.code == 2
    one_line(done, "--shard spreads a model over several processes, and this is one; say --nproc 2")
    assert not (tmp_path / "out").exists()


def test_a_key_that_does_nothing(qualm, notes):
    done = qualm("train", notes, "-o", "out", "--keys.rope_theta", "5000", *TRAIN)
    assert done.code == 4
    one_line(done, "keys: key 'rope_theta' does nothing beside the config's other keys")
