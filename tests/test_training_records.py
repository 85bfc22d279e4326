"""What a run leaves to be read: rows, TensorBoard's events and a log, none of it twice after a resume."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qualm.errors import QualmError, Stopped
from qualm.models.llama import Llama, LlamaConfig
from qualm.training import events, metrics
from qualm.training.data import TensorRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings
from qualm.training.speed import peak

SETTINGS = TrainSettings(steps=9, batch=4, lr=1e-2, threads=1, eval_every=3, save_every=3)


def llama() -> Llama:
    return Llama(LlamaConfig(16, 16, 32, 2, 2, tie_word_embeddings=True))


def rows() -> TensorRows:
    return TensorRows(torch.randint(16, (30, 9), generator=torch.Generator().manual_seed(1)))


# -- a reader of TensorBoard's format, written apart from the writer


def checksum(data: bytes) -> int:
    """CRC-32C bit by bit, masked."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 * (value & 1))
    value = ~value & 0xFFFFFFFF
    return (((value >> 15) | (value << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def message(data: bytes) -> list[tuple[int, object]]:
    """Fields of a protocol buffer by number."""
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            kind, size = {1: ("<d", 8), 5: ("<f", 4)}[key & 7]
            (value,), at = struct.unpack_from(kind, data, at), at + size
        found.append((key >> 3, value))
    return found


def board(path: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of a file, every checksum looked at."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        assert struct.unpack_from("<I", content, at + 8) == (checksum(content[at : at + 8]),)
        data = content[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", content, at + 12 + size) == (checksum(data),)
        event = dict(message(data))
        if at == 0:
            assert event[3] == b"brain.Event:2"
        else:
            for _, value in message(event[5]):
                inside = dict(message(value))
                found.append((event[2], inside[1].decode(), inside[2]))
        assert event[1] > 1.7e9
        at += 16 + size
    return found


def test_the_checksum_is_that_of_the_standard():
    masked = lambda crc: (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF  # noqa: E731
    assert events.crc(b"123456789") == masked(0xE3069283)  # RFC 3720, B.4: of 32 zeros too
    assert events.crc(bytes(32)) == masked(0x8A9136AA)


def test_events_hold_what_the_rows_say(tmp_path):
    fit(llama(), rows(), causal, SETTINGS, tmp_path, Hooks(lambda model: 2.5))
    told = board(tmp_path / events.NAME)
    log = metrics.read_rows(tmp_path / metrics.ROWS)
    for name, tag in (("loss", "train/loss"), ("lr", "train/lr"), ("norm", "train/norm")):
        assert [(s, v) for s, t, v in told if t == tag] == [(r["step"], pytest.approx(r[name])) for r in log]
    assert [(s, v) for s, t, v in told if t == "eval/validation"] == [(3, 2.5), (6, 2.5), (9, 2.5)]
    assert {t for _, t, _ in told} <= set(metrics.TAGS.values())


def test_after_a_resume_nothing_is_there_twice(tmp_path):
    stops = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        fit(llama(), rows(), causal, SETTINGS, tmp_path, Hooks(should_stop=lambda: next(stops)))
    board_file = tmp_path / events.NAME
    board_file.write_bytes(board_file.read_bytes() + events.scalars(300, {"train/loss": 1.0}) + b"half a rec")
    fit(llama(), rows(), causal, SETTINGS, tmp_path)
    told = board(board_file)
    assert [s for s, t, _ in told if t == "train/loss"] == list(range(1, 10))
    assert [r["step"] for r in metrics.read_rows(tmp_path / metrics.ROWS)] == list(range(1, 10))
    [said] = metrics.read_rows(tmp_path / metrics.LOG)
    assert "goes on from step 5 of 9" in said["event"]


def test_a_damaged_event_and_what_follows_it_go(tmp_path):
    path = tmp_path / "events"
    good = events.head() + events.scalars(1, {"a": 1.0})
    bad = bytearray(events.scalars(2, {"a": 2.0}))
    bad[20] ^= 1
    path.write_bytes(good + bytes(bad) + events.scalars(3, {"a": 3.0}))
    assert events.until(path, 10) == good
    assert board(path.with_name("none")) == [] if path.with_name("none").exists() else True
    assert dict(events.records(events.until(path.with_name("none"), 3))).__len__() == 1


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**40])
def test_a_step_is_read_back(step):
    [(whole, data)] = events.records(events.scalars(step, {"a": 1.0}))
    assert events.step_of(data) == step
    assert whole.endswith(struct.pack("<I", checksum(data)))


def test_tensorboard_reads_them(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    (tmp_path / events.NAME).write_bytes(events.head() + events.scalars(7, {"train/loss": 1.5}))
    read = list(loader.LegacyEventFileLoader(str(tmp_path / events.NAME)).Load())
    assert (read[1].step, read[1].summary.value[0].tag) == (7, "train/loss")
    assert read[1].summary.value[0].simple_value == 1.5


def test_a_spike_is_in_the_log_with_its_rows(tmp_path):
    calls = []

    def loss(model, batch):
        calls.append(1)
        nats, count = causal(model, batch)
        return nats * (float("nan") if len(calls) > 4 else 1), count

    with pytest.raises(QualmError, match="3 updates in a row"):
        fit(llama(), rows(), loss, SETTINGS, tmp_path)
    said = metrics.read_rows(tmp_path / metrics.LOG)
    assert [line["event"].split(":")[0] for line in said] == ["step 5", "step 6", "step 7"]
    assert all("(rows " in line["event"] and line["when"].endswith("+00:00") for line in said)
    assert not any(t == "train/loss" for s, t, _ in board(tmp_path / events.NAME) if s > 4)


def test_the_share_of_the_peak_is_the_work_done_over_what_could_be(tmp_path, monkeypatch):
    monkeypatch.setattr("qualm.training.loop.peak", lambda device, dtype: 1e9)
    taken = []
    fit(llama(), rows(), causal, replace(SETTINGS, accumulate=2), tmp_path, Hooks(on_step=taken.append, flops=1e4))
    for row in taken:
        seconds = 64 / row["tokens_per_second"]  # 8 rows of 8 targets
        assert row["peak_share"] == pytest.approx(3 * 1e4 * 8 / seconds / 1e9, rel=0.02, abs=1e-4)
    assert 1e9 < peak() < 1e14


def test_what_is_no_whole_row_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"event": "a"}) + '\n{"event": "b')
    assert metrics.read_rows(tmp_path / "log.jsonl") == [{"event": "a"}]
    assert metrics.read_rows(tmp_path / "none") == []
