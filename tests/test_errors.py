"""Bad input of every kind: one line that says what, where and what to do next, and the exit code that scripts go by."""

import errno
import json
import os
import resource
import shutil
import socket
from contextlib import contextmanager

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qualm import errors
from qualm.files import write_text

TRAIN = ["--size", "30k", "--vocab", "300", "--length", "32", "--batch", "4", "--threads", "1"]


def one_line(done, *parts):
    """The error of a command: a single line, the last on stderr, that holds all `parts`."""
    told = [line for line in done.err.splitlines() if line.startswith("qualm: ")]
    assert len(told) == 1, done.err
    assert done.err.rstrip().endswith(told[0])
    assert "Traceback" not in done.err
    for part in parts:
        assert part in told[0]
    return told[0]


@pytest.fixture
def broken(small_model, tmp_path):
    """A copy of the small model to be damaged."""
    folder = tmp_path / "broken"
    shutil.copytree(small_model, folder, ignore=shutil.ignore_patterns("run"))
    return folder


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["generate", "nowhere", "x"], "nowhere"),
        (["audit", "nowhere.gguf"], "nowhere.gguf"),
        (["train", "nowhere.txt", "-o", "m"], "nowhere.txt"),
        (["compare", "nowhere", "either"], "nowhere"),
        (["mend", "nowhere", "--with", "identity", "-o", "m"], "nowhere"),
        (["mend", "fake:oracle", "--with", "retrieval", "--docs", "nowhere", "-o", "m"], "nowhere"),
        (["list", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_that_is_not_there(qualm, words, where):
    done = qualm(*words)
    assert done.code == 4
    one_line(done, where)
    assert done.out == ""


def test_an_empty_corpus(qualm, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "blank.txt").write_text(" \n\n")
    done = qualm("train", "text", "-o", "m")
    assert done.code == 4
    one_line(done, "text: holds no text")
    assert not (tmp_path / "m" / "config.json").exists()


def test_a_broken_line_of_a_corpus_is_named(qualm, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": "good"}\n{"text": "cut\n')
    done = qualm("train", "text.jsonl", "-o", "m")
    assert done.code == 4
    one_line(done, "text.jsonl:2: not a JSON record")


def test_safetensors_that_are_cut_off(qualm, broken):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = qualm("generate", broken, "x")
    assert done.code == 4
    one_line(done, str(weights))


@pytest.mark.parametrize("kept", [0, 3, 40, -64])
def test_a_gguf_file_that_is_cut_off(qualm, tmp_path, kept):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.write_bytes(path.read_bytes()[:kept])
    done = qualm("generate", path, "x")
    assert done.code == 4
    one_line(done, str(path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_a_pickle_is_refused_and_never_opened(qualm, broken, tmp_path, name):
    (broken / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    (broken / name).write_bytes(f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    done = qualm("generate", broken, "x")
    assert done.code == 4
    one_line(done, "broken", "pickle")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["audit", "fake:oracle", "--probe", "arithmatic"], "'arithmetic'"),
        (["mend", "fake:oracle", "--with", "retreival", "-o", "m"], "'retrieval'"),
        (["mend", "fake:oracle", "--with", "retrieval", "--doc", "x", "-o", "m"], "'docs'"),
        (["audit", "fake:oracel"], "'oracle'"),
        (["adit", "fake:oracle"], "'audit'"),
        (["audit", "fake:oracle", "--quik"], "--quick"),
        (["train", "notes", "-o", "m", "--size", "tinny"], "'tiny'"),
        (["list", "prob"], '"probes"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_is_none_and_the_nearest_that_is(qualm, notes, words, near):
    done = qualm(*(notes if word == "notes" else word for word in words))
    assert done.code == 2
    one_line(done, f"did you mean {near}?")


def test_a_key_that_no_setting_has(qualm, tmp_path, monkeypatch):
    (tmp_path / "qualm.toml").write_text("[train]\nstpes = 3\n")
    done = qualm("train", "x", "-o", "m")
    assert done.code == 2
    one_line(done, "qualm.toml", "no setting is named 'stpes'", "did you mean 'steps'?")
    (tmp_path / "qualm.toml").write_text("[trian]\nsteps = 3\n")
    one_line(qualm("train", "x", "-o", "m"), "qualm.toml", "did you mean 'train'?")
    (tmp_path / "qualm.toml").write_text("[train\n")
    assert qualm("train", "x", "-o", "m").code == 4
    (tmp_path / "qualm.toml").unlink()
    monkeypatch.setenv("QUALM_TRAIN_STPES", "3")
    one_line(qualm("train", "x", "-o", "m"), "environment", "did you mean 'steps'?")


def test_a_key_of_config_json_that_would_change_the_maths(qualm, broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "attention_sink_size": 4}))
    done = qualm("generate", broken, "x")
    assert done.code == 4
    one_line(done, "config.json", "attention_sink_size")


def test_a_tokenizer_of_another_model(qualm, broken):
    tokens = json.loads((broken / "tokenizer.json").read_text())
    size = len(tokens["model"]["vocab"])
    config = json.loads((broken / "config.json").read_text())
    weights = load_file(broken / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file({**weights, name: weights[name][: size // 2].clone()}, broken / "model.safetensors", {"format": "pt"})
    (broken / "config.json").write_text(json.dumps({**config, "vocab_size": size // 2}))
    done = qualm("generate", broken, "x")
    assert done.code == 4
    one_line(done, "broken", "vocabulary mismatch", str(config["vocab_size"]), str(size // 2))


def test_weights_that_are_no_numbers(qualm, broken):
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"].view(-1)[3] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    done = qualm("generate", broken, "x")
    assert done.code == 4
    one_line(done, str(broken), "model.embed_tokens.weight", "NaN or infinity in 1 of")


def test_an_endpoint_that_is_down(qualm, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1#small"
    done = qualm("generate", url, "x")
    assert done.code == 5
    one_line(done, f"127.0.0.1:{port}")


@contextmanager
def full_disk(most=1024):
    """No file may grow beyond so many bytes; writing on fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [1024, 20_000], ids=["metrics", "checkpoint"])
def test_a_disk_that_fills_up_costs_no_checkpoint(qualm, notes, tmp_path, monkeypatch, most):
    words = ["train", notes, "-o", "m", *TRAIN, "--steps", 8, "--save-every", 4]
    stop = iter([False, False, False, True])
    monkeypatch.setattr("qualm.cli.stop.Stop.__call__", lambda self: next(stop, False))
    assert qualm(*words).code == 75
    kept = sorted(path.name for path in (tmp_path / "m" / "run").glob("step-*"))
    assert kept == ["step-000004"]
    with full_disk(most):
        done = qualm(*words)
    assert done.code == 1
    one_line(done, "m", os.strerror(errno.EFBIG))
    assert sorted(path.name for path in (tmp_path / "m" / "run").glob("step-*")) == kept
    done = qualm(*words)
    assert done.code == 0
    assert "goes on from step 4 of 8" in done.err


def test_an_answer_cache_on_a_full_disk(qualm):
    with full_disk():
        done = qualm("audit", "fake:oracle", "--probe", "arithmetic")
    assert done.code in (0, 1)
    assert "Traceback" not in done.err


def test_under_json_an_error_is_json_too(qualm):
    done = qualm("generate", "nowhere", "x", "--json")
    told = json.loads(done.out)
    assert told["schema"] == "qualm.error/1"
    assert told["error"]["exit_code"] == done.code == 4
    assert told["error"]["where"] == "nowhere"
    assert told["error"]["what"]
    assert told["error"]["then"]


def test_debug_shows_the_traceback_and_nothing_else_does(qualm):
    assert "Traceback" in qualm("generate", "nowhere", "x", "--debug").err
    assert "Traceback" not in qualm("generate", "nowhere", "x", "-v").err
    assert "Traceback" not in qualm("generate", "nowhere", "--", "--debug").err


def test_a_mistake_of_ours_keeps_its_traceback(qualm, monkeypatch):
    def mistake(spec, common):
        raise ZeroDivisionError

    monkeypatch.setattr("qualm.cli.generate.load", mistake)
    with pytest.raises(ZeroDivisionError):
        qualm("generate", "m", "x")


def test_exit_codes():
    found = {
        kind.__name__: kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.QualmError)
    }
    assert found == {
        "QualmError": 1,
        "UsageError": 2,
        "GateError": 3,
        "InputError": 4,
        "MissingExtra": 5,
        "Unreachable": 5,
        "Unsupported": 1,
        "TooLong": 1,
        "Stopped": 75,
    }


def test_an_error_says_what_where_and_what_then():
    assert (
        str(errors.InputError("is cut off", where="a.txt:3", then="fetch it again"))
        == "a.txt:3: is cut off; fetch it again"
    )
    assert str(errors.QualmError("no")) == "no"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "kept.txt", "old")
    with full_disk(), pytest.raises(errors.QualmError, match="cannot write"):
        write_text(tmp_path / "kept.txt", "x" * 10_000)
    assert (tmp_path / "kept.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
