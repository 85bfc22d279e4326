"""Every variant computes what transformers computes, both ways through the file, and however its rows are filled."""

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from parity_cases import BY_NAME
from parity_cells import ALLOWED as CELLS_ALLOWED
from parity_cells import STACKS, measured_cells
from parity_checks import ALLOWED, Pair, measured, pair_of
from parity_real import REAL, measured_real, pair_of_real
from qualm.models._caches import KVCache


@pytest.mark.parametrize("name", BY_NAME)
def test_ours_is_theirs(name, tmp_path):
    pair = pair_of(BY_NAME[name], tmp_path)
    assert not wrong(pair), pair.written.wrong


@pytest.mark.parametrize(
    "real", [pytest.param(r, marks=pytest.mark.network if r.by_name else pytest.mark.shared, id=str(r)) for r in REAL]
)
def test_a_published_checkpoint_is_theirs(real, tmp_path):
    pair = pair_of_real(real, tmp_path)
    assert not wrong(pair, measured_real), pair.written.wrong


def wrong(pair: Pair, how: Callable[[Pair], Mapping[str, float | None]] = measured) -> dict[str, float]:
    return {check: value for check, value in how(pair).items() if value is not None and not value <= ALLOWED}


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_our_recurrent_cells_are_torchs(stack):
    found = measured_cells(stack)
    assert not {what: value for what, value in found.items() if value is not None and not value <= CELLS_ALLOWED}


@pytest.fixture
def pair(tmp_path) -> Pair:
    return pair_of(BY_NAME["llama biases"], tmp_path)


def test_a_weight_that_was_read_wrongly_is_seen(pair):
    with torch.no_grad():
        pair.ours.model.layers[0].mlp.up_proj.weight[0, 0] += 0.01
    assert {"they write, we load", "hidden states", "right padding", "left padding"} <= set(wrong(pair))


def test_a_norm_after_the_wrong_layer_is_seen(pair):
    first, second = pair.ours.model.layers[:2]
    first.input_layernorm, second.input_layernorm = second.input_layernorm, first.input_layernorm
    assert "hidden states" in wrong(pair)


def test_a_cache_that_forgets_is_seen(pair, monkeypatch):
    reserve = KVCache.reserve

    def forgetful(self: KVCache, length: int) -> None:
        reserve(self, length)
        self.keys[1][:, :, 0] = 0

    monkeypatch.setattr(KVCache, "reserve", forgetful)
    assert set(wrong(pair)) == {"token by token", "greedy"}


def test_a_tensor_that_transformers_does_not_know_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "qualm.models.llama.Llama.name_in_file", classmethod(lambda cls, name, config: name.replace("up_proj", "up"))
    )
    assert "keys" in wrong(pair_of(BY_NAME["llama biases"], tmp_path))


def test_a_cell_that_is_too_large_is_marked_and_so_is_the_table(capsys):
    script = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "parity.py"))
    said = [script["cell"]("batch", value) for value in (None, 0.0, 9e-5, 1.1e-4, float("inf"))]
    assert said == ["–", "0", "9e-05", "1e-04 !", "inf !"]
    assert script["cell"]("greedy", 3.0) == "3 !"
    assert not script["table"]([{"batch": said[2]}], ["batch"])
    assert script["table"]([{"batch": said[2]}, {"batch": said[3]}], ["batch"])
    assert "1e-04 !" in capsys.readouterr().out
    assert script["main"](["no such family"]) == 2
