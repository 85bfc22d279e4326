"""A model is trained on a GPU if there is one, or where it was said, and comes back. The GPU here is a made-up one."""

import pytest
import torch

from qualm.errors import UsageError
from qualm.models.rnn import Rnn, RnnConfig
from qualm.training import state
from qualm.training.data import Batch, TensorRows
from qualm.training.device import device_of
from qualm.training.loop import fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with two GPUs, the second of which is this process's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_a_gpu_is_taken_if_there_is_one(gpu):
    assert [device_of(wanted, CPU) for wanted in ("auto", "cuda", "cpu")] == [GPU, GPU, CPU]
    assert device_of("auto", torch.device("cuda", 0)) == torch.device("cuda", 0)  # where the caller put it
    assert device_of("cpu", torch.device("cuda", 0)) == CPU


def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto", CPU) == device_of("cpu", CPU) == CPU
    with pytest.raises(UsageError, match="no GPU"):
        device_of("cuda", CPU)


def test_model_and_batches_go_there_and_the_model_comes_back(gpu, monkeypatch):
    moved, model = [], Rnn(RnnConfig(20, 8))
    rows = TensorRows(torch.randint(20, (4, 6)))
    monkeypatch.setattr(model, "to", lambda device: moved.append(device))
    monkeypatch.setattr(Batch, "to", lambda batch, device: moved.append("batch") or batch)
    fit(model, rows, causal, TrainSettings(steps=1, batch=4))
    assert moved == [GPU, "batch", CPU]
    moved.clear()
    fit(model, rows, causal, TrainSettings(steps=1, batch=4, device="cpu"))
    assert moved == [CPU, "batch", CPU]


def test_the_generator_of_a_gpu_is_kept(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.full((3,), device.index, dtype=torch.uint8))
    assert state.random_state(GPU)["random.cuda"].tolist() == [1, 1, 1]
    assert list(state.random_state(CPU)) == ["random.cpu"]


def test_a_checkpoint_says_on_what_it_was_made(tmp_path):
    fit(Rnn(RnnConfig(20, 8)), TensorRows(torch.randint(20, (4, 6))), causal, TrainSettings(steps=1), tmp_path)
    [step] = tmp_path.glob("step-*")
    assert state.read_facts(step)["machine"]["device"] == "cpu"
