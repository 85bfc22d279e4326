"""Every variant computes what transformers computes, both ways through the file, and however its rows are filled."""

import pytest
import torch

from parity_cases import BY_NAME
from parity_cells import ALLOWED as CELLS_ALLOWED
from parity_cells import STACKS, measured_cells
from parity_checks import ALLOWED, Pair, measured, pair_of
from qualm.models.layers import KVCache


@pytest.mark.parametrize("name", BY_NAME)
def test_ours_is_theirs(name, tmp_path):
    pair = pair_of(BY_NAME[name], tmp_path)
    assert not wrong(pair), pair.written.wrong


def wrong(pair: Pair) -> dict[str, float]:
    return {check: value for check, value in measured(pair).items() if value is not None and not value <= ALLOWED}


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
