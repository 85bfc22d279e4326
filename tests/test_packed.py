"""Weights laid out for reading: what is made of a row is `F.linear`'s, and the same however many stand beside it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qualm.models import _product, layers
from qualm.models._adapters import Adapted
from qualm.models._packed import Packed, in_half
from qualm.models.layers import Conv1D, Linear, pack, together
from qualm.models.llama import Llama, LlamaConfig

ROWS = (1, 2, 3, 7, 15, 16, 33, 64, 65, 300)


def weight(seed: int, dtype: torch.dtype, out: int = 320, width: int = 200) -> torch.Tensor:
    """A matrix (out, width) in float32 whose entries `dtype` holds."""
    return (torch.randn(out, width, generator=torch.Generator().manual_seed(seed)) / 14).to(dtype).float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@torch.no_grad()
def test_a_row_is_the_same_in_every_batch(dtype):
    w, x = weight(1, dtype), torch.randn(max(ROWS), 200, generator=torch.Generator().manual_seed(2))
    packed = Packed([w])
    whole = packed(x)
    assert (whole.double() - F.linear(x.double(), w.double())).abs().max() < 3e-6
    for rows in ROWS:
        assert torch.equal(packed(x[:rows]), whole[:rows])
    assert torch.equal(packed(x.view(3, 100, 200)), whole.view(3, 100, -1))


@torch.no_grad()
def test_without_avx_512_a_row_is_the_same_in_every_batch(monkeypatch):
    """There half precision, whose sums hang on the batch, is not read."""
    monkeypatch.setattr(_product, "WIDE", False)
    monkeypatch.setattr("qualm.models._packed.in_half", lambda weight: pytest.fail("half precision is read"))
    test_a_row_is_the_same_in_every_batch(torch.bfloat16)


def test_half_precision_is_used_where_it_loses_nothing():
    for dtype in (torch.bfloat16, torch.float16):
        assert in_half(weight(1, dtype))
        assert in_half(weight(1, dtype) * 2.0**40)
    assert not in_half(weight(1, torch.float32))
    assert in_half(torch.zeros(4, 4))
    wide = weight(1, torch.bfloat16)
    wide[0, 0], wide[0, 1] = 2.0**10, 1.0078125 * 2.0**-40
    assert not in_half(wide)
    for odd in (torch.inf, torch.nan):
        assert not in_half(torch.full((4, 4), odd))


@torch.no_grad()
def test_layers_beside_one_another_are_one_product(monkeypatch):
    monkeypatch.setattr(layers, "can_pack", lambda weights: True)

    class Pair(nn.Module):
        beside = ("left", "right")

        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = Linear(200, 320), Linear(200, 64, bias=False)

    pair = Pair()
    for i, weights in enumerate((pair.left.weight, pair.right.weight)):
        weights.copy_(weight(i, torch.bfloat16)[: len(weights)])
    pair.left.bias.fill_(2.0)
    x = torch.randn(5, 200)
    apart = [F.linear(x, pair.left.weight, pair.left.bias), F.linear(x, pair.right.weight)]
    pack(pair)
    assert pair.left.packed is not None
    assert pair.right.packed is None
    for got in (together(x, pair.left, pair.right), (pair.left(x), pair.right(x))):
        torch.testing.assert_close(list(got), apart, atol=1e-5, rtol=0)
    assert copy.deepcopy(pair).left.packed is None
    pair.right.weight.zero_()
    assert together(x, pair.left, pair.right)[1].eq(0).all()
    pack(pair)
    assert together(x, pair.left, pair.right)[1].eq(0).all()
    pair.right = Adapted(pair.right, 2, 1.0)
    nn.init.ones_(pair.right.lora_A.weight)
    nn.init.ones_(pair.right.lora_B.weight)
    torch.testing.assert_close(together(x, pair.left, pair.right)[1], 2 * x.sum(1, keepdim=True).expand(5, 64))


@torch.no_grad()
def test_a_weight_that_changes_is_not_read_from_its_layout(monkeypatch):
    monkeypatch.setattr(layers, "can_pack", lambda weights: True)
    for layer in (Linear(64, 48, bias=False), Conv1D(64, 48)):
        layer.weight.normal_()
        for weights in layer.parameters():
            weights.normal_()
        x = torch.randn(3, 64)
        pack(layer)
        before = layer(x)
        layer.weight.mul_(2)
        bias = 0 if layer.bias is None else layer.bias
        torch.testing.assert_close(layer(x), 2 * before - bias, atol=1e-4, rtol=0)


def test_a_model_that_is_packed_says_the_same():
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    plain, packed = Llama(config), Llama(config)
    pack(packed)
    assert packed.model.layers[0].self_attn.q_proj.packed is not None
    ids = torch.randint(600, (3, 40))
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids), plain(ids), atol=1e-5, rtol=1e-5)
    out = packed(ids)
    out.sum().backward()
    assert packed.lm_head.weight.grad is not None
