"""Our cross-entropy is torch's, and so is its gradient."""

import pytest
import torch
import torch.nn.functional as F

from qualm.training.data import IGNORE
from qualm.training.nats import summed_nats


@pytest.mark.parametrize("ignored", [0, 7, 20])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_nats_and_gradients_are_torchs(ignored, scale):
    generator = torch.Generator().manual_seed(0)
    logits = (30 * torch.randn(20, 50, generator=generator)).requires_grad_()  # some p are too small for a float
    labels = torch.randint(50, (20,), generator=generator)
    labels[:ignored] = IGNORE
    found = []
    for nats in (summed_nats(logits, labels), F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")):
        found.append([nats.detach(), *torch.autograd.grad(scale * nats, logits)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
