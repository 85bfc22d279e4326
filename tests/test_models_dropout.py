"""Dropout of our own: what it drops, and that attention with it is torch's attention with the same draws."""

import pytest
import torch
import torch.nn.functional as F

from qualm.models import _dropout
from qualm.models._dropout import BLOCK, Dropout, attention, dropout, kept
from qualm.models.gpt import Gpt, GptConfig

B, H, T, D = 2, 4, 2 * BLOCK + 5, 8


def drawn(share: float) -> torch.Tensor:
    """What attention keeps after seed 7, block by block as it draws, times what it is scaled by: (B, H, T, T)."""
    torch.manual_seed(7)
    whole = torch.zeros(B, H, T, T)
    for first in range(0, T, BLOCK):
        last = min(first + BLOCK, T)
        keep, up = kept(torch.Size((B, H, last - first, T)), share)
        whole[:, :, first:last] = keep * up
    return whole


def tensors(heads: int = H) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(B, n, T, D, requires_grad=True) for n in (H, heads, heads)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_is_dropped_and_the_mean_stays(share):
    torch.manual_seed(0)
    keep, up = kept(torch.Size((401, 1001)), share)
    for part in range(4):  # 16 bits of each 64
        assert float(keep.flatten()[part::4].float().mean()) == pytest.approx(1 - share, abs=0.006)
    assert up == pytest.approx(1 / (1 - share), abs=1e-4)
    pairs = keep.flatten()[:400_000].view(-1, 2).float()
    assert float((pairs[:, 0] * pairs[:, 1]).mean()) == pytest.approx((1 - share) ** 2, abs=0.006)  # neighbours
    x = torch.ones(300, 300)
    assert set(dropout(x, share).unique().tolist()) == {0.0, torch.tensor(up).item()}
    assert dropout(x, 1.0).abs().sum() == 0


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(5, 5)
    layer = Dropout(0.5)
    assert layer(x) is not x
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("kind", ["none", "padding", "bias"])
@pytest.mark.parametrize("heads", [H, 2])
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_attention_is_torchs_with_the_same_draws(kind, heads, share):
    q, k, v = tensors(heads)
    bias = torch.randn(1, H, T, T, requires_grad=True)
    lengths = torch.tensor([T, T - 9])
    seen = (torch.arange(T) < lengths[:, None])[:, None, None]
    mask = {"none": False, "padding": seen, "bias": bias}[kind]
    leaves = [q, k, v, *([bias] if kind == "bias" else [])]
    up, keep = torch.randn(B, H, T, D), drawn(share) if share else 1.0
    torch.manual_seed(7)
    got = attention(q, k, v, mask, None, share)
    assert "Dropping" in got.grad_fn.name()
    added = 0.0 if mask is False else mask if kind == "bias" else torch.where(mask, 0.0, -torch.inf)
    wide = [part.repeat_interleave(H // heads, 1) for part in (k, v)]
    p = (q @ wide[0].mT * D**-0.5 + added).softmax(-1)
    wanted = (p * keep) @ wide[1]
    torch.testing.assert_close(got, wanted)
    for a, b in zip(torch.autograd.grad(got, leaves, up), torch.autograd.grad(wanted, leaves, up), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_without_dropout_blocks_are_for_training_what_fits(monkeypatch):
    q, k, v = tensors()
    with torch.no_grad():
        wanted = attention(q, k, v, True, None, 0.0)
    for learnt in (False, True):
        monkeypatch.setattr(_dropout, "HELD", B * H * T * T - (not learnt))
        got = attention(q, k, v, True, None, 0.0)
        assert ("Dropping" in got.grad_fn.name()) == learnt
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    assert "Dropping" not in attention(q.double(), k.double(), v.double(), True, None, 0.0).grad_fn.name()


def test_under_autocast_products_are_in_bf16_and_gradients_are_near():
    bias = torch.randn(1, H, T, T, requires_grad=True)
    leaves, up = [*tensors(), bias], torch.randn(B, H, T, D)
    found = []
    for half in (False, True):
        torch.manual_seed(7)
        with torch.autocast("cpu", enabled=half):
            out = attention(*leaves, None, 0.25)
        assert out.dtype == (torch.bfloat16 if half else torch.float32)
        found.append([out, *torch.autograd.grad(out, leaves, up.to(out.dtype))])
    for exact, near in zip(*found, strict=True):
        assert float((exact - near).detach().norm() / exact.detach().norm()) < 0.02
    assert [g.dtype for g in found[1][1:]] == [torch.float32] * 4


def test_causal_attention_has_the_right_mean_and_gradient():
    q, k, v = tensors()
    plain = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    tiny = attention(q, k, v, True, None, 1e-6)  # rounds to nothing dropped
    torch.testing.assert_close(tiny, plain, atol=1e-5, rtol=1e-4)
    up = torch.randn(B, H, T, D)
    for a, b in zip(torch.autograd.grad(tiny, (q, k, v), up), torch.autograd.grad(plain, (q, k, v), up), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.manual_seed(3)
    mean = torch.stack([attention(q, k, v, True, None, 0.3).detach() for _ in range(300)]).mean(0)
    assert float((mean - plain.detach()).abs().mean()) < 0.03


def test_a_model_with_dropout_is_the_same_after_the_same_seed():
    model = Gpt(GptConfig(50, 16, 2, 2, 32, attn_pdrop=0.2, resid_pdrop=0.2, embd_pdrop=0.2, initializer_range=0.2))
    ids = torch.randint(50, (2, 20))
    model.train()

    def one() -> torch.Tensor:
        torch.manual_seed(5)
        return model(ids)

    assert torch.equal(one(), one())
    assert not torch.equal(one(), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))
