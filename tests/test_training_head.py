"""The loss of a large vocabulary, a few rows at a time, is torch's own, and so are its gradients."""

import pytest
import torch
import torch.nn.functional as F

from qualm.models.rnn import Rnn, RnnConfig
from qualm.training import head
from qualm.training.data import IGNORE
from qualm.training.size import build

ROWS = 11  # three chunks of four rows, the last one not full
NEAR = {"rtol": 1e-5, "atol": 1e-5}  # sums in another order


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 4)
    model = Rnn(RnnConfig(30, 16, head_bias=True, tie_word_embeddings=False))
    with torch.no_grad():
        model.lm_head.bias.uniform_(-1, 1)
        model.lm_head.weight.mul_(300)  # some probabilities are too small for a float
    return model


def labels_of(ignored: int) -> torch.Tensor:
    labels = torch.randint(30, (ROWS,), generator=torch.Generator().manual_seed(1))
    labels[:ignored] = IGNORE
    return labels


def nats_and_gradients(model, labels, loss, scale=2.5):
    hidden = torch.randn(ROWS, 16, generator=torch.Generator().manual_seed(0)).mul_(3).requires_grad_()
    weights = [w for w in model.lm_head.parameters() if w.requires_grad]
    nats = loss(model, hidden, labels)
    return [nats.detach(), *torch.autograd.grad(scale * nats, [hidden, *weights])]


def plain(model, hidden, labels):
    return F.cross_entropy(model.head(hidden).float(), labels, ignore_index=IGNORE, reduction="sum")


@pytest.mark.parametrize("ignored", [0, 5, ROWS])
def test_nats_and_gradients_of_a_linear_head_are_torchs(model, ignored):
    labels = labels_of(ignored)
    found = [nats_and_gradients(model, labels, loss) for loss in (head.causal_nats, plain)]
    assert ignored == ROWS or found[0][0] > 90 * ROWS  # beyond what exp can hold
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **NEAR)


def test_a_head_in_half_a_format_is_near_the_whole_one(model):
    model.lm_head.weight.data.mul_(0.01)
    labels = labels_of(3)
    whole = nats_and_gradients(model, labels, head.causal_nats)
    with torch.autocast("cpu", torch.bfloat16):
        half = nats_and_gradients(model, labels, head.causal_nats)
    for ours, theirs in zip(half, whole, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_a_frozen_or_adapted_head_is_no_other(model):
    labels = labels_of(0)
    model.lm_head.requires_grad_(False)
    torch.testing.assert_close(*(nats_and_gradients(model, labels, f)[1] for f in (head.causal_nats, plain)), **NEAR)
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Tanh())
    torch.testing.assert_close(*(nats_and_gradients(model, labels, f)[1] for f in (head.causal_nats, plain)), **NEAR)


@pytest.mark.parametrize("name", ["gpt", "llama", "rnn", "rnn_attention"])
def test_a_head_that_is_said_to_be_linear_is(name):
    model = build(name, 1, 300, 16).eval()
    hidden = torch.randn(3, model.get_submodule(model.linear_head).in_features)
    torch.testing.assert_close(model.head(hidden), model.get_submodule(model.linear_head)(hidden))
