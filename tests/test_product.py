"""Products by oneDNN: what `F.linear` computes, and who traces, casts or asks for little goes the plain way."""

import pytest
import torch
import torch.nn.functional as F

from qualm.models import _product
from qualm.models._product import added, pays, product
from qualm.training.optimisers import orthogonal


def made(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[-1] ** 0.5


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """As on a processor with AVX-512, whichever this is."""
    monkeypatch.setattr(_product, "WIDE", True)


@pytest.fixture
def counted(monkeypatch):
    """How often oneDNN was asked."""
    calls, own = [], _product.blocked
    monkeypatch.setattr(_product, "blocked", lambda *given: calls.append(1) or own(*given))
    return calls


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients(counted, biased, turned):
    weight = (made(400, 300).T if turned else made(300, 400)).requires_grad_()
    x, bias = made(2, 60, 400, seed=1).requires_grad_(), made(300, seed=2).requires_grad_() if biased else None
    given = [x, weight] + ([bias] if biased else [])
    out = product(x, weight, bias)
    grads = torch.autograd.grad(out.square().sum(), given)
    assert len(counted) == 3
    exact = [g.detach().double().requires_grad_() for g in given]
    wanted = F.linear(*exact)
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=0)
    for got, by in zip(grads, torch.autograd.grad(wanted.square().sum(), exact), strict=True):
        torch.testing.assert_close(got.double(), by, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(product(x, weight, bias), out)


def test_frozen_weights_get_no_gradients(counted):
    x, weight = made(64, 400, seed=1).requires_grad_(), made(400, 400)
    product(x, weight).sum().backward()
    assert x.grad is not None
    assert len(counted) == 2


def test_who_goes_the_plain_way(counted, monkeypatch):
    x, weight = made(64, 512), made(512, 512)
    assert pays(x, weight)
    assert not pays(x[:8], weight)
    assert not pays(x[:, :16], weight[:, :16])
    assert not pays(x.double(), weight.double())
    assert not pays(x.bfloat16(), weight)
    with monkeypatch.context() as narrow:
        narrow.setattr(_product, "WIDE", False)
        assert not pays(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight).dtype == torch.bfloat16
    rows = torch.func.vmap(lambda row: product(row[None], weight))(x)
    torch.testing.assert_close(rows[:, 0], F.linear(x, weight))
    assert not counted


def test_gradients_are_added_up(monkeypatch):
    total, grad, x = made(500, 300), made(100, 500, seed=1), made(100, 300, seed=2)
    wanted = total + grad.T @ x
    torch.testing.assert_close(added(total.clone(), grad, x), wanted, atol=1e-5, rtol=0)
    half = added(total.clone(), grad.bfloat16(), x.bfloat16())
    torch.testing.assert_close(half, wanted, atol=2e-2, rtol=0)
    monkeypatch.setattr(_product, "LEAST", 2**60)
    torch.testing.assert_close(added(total.clone(), grad, x), wanted, atol=1e-5, rtol=0)


def test_matrices_are_made_orthogonal_alike(monkeypatch):
    matrix = made(300, 500)
    fast = orthogonal(matrix)
    monkeypatch.setattr(_product, "LEAST", 2**60)
    torch.testing.assert_close(fast, orthogonal(matrix), atol=1e-4, rtol=0)
    assert torch.linalg.svdvals(fast).sub(1).abs().max() < 0.4
