"""Cross-entropy of logits whose gradient is made while the probabilities are there: one tensor of logits' size, and
half the passes over it that torch's own takes."""

from typing import Any

import torch
from torch import Tensor

from qualm.training.data import IGNORE


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        logprobs, wanted = logits.log_softmax(-1), labels != IGNORE
        places = labels.clamp(min=0)[:, None]
        total = -logprobs.gather(-1, places).squeeze(-1).masked_fill(~wanted, 0.0).sum()
        gradient = logprobs.exp_()
        gradient.scatter_add_(-1, places, gradient.new_full(places.shape, -1.0))
        if not bool(wanted.all()):
            gradient[~wanted] = 0.0
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        [gradient], [scale] = ctx.saved_tensors, outputs
        alone = gradient.device.type == "cpu" and float(scale) == 1.0  # a pass over the logits less
        return gradient if alone else gradient * scale, None


def summed_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of labels (N,) under logits (N, V), summed over those that are not IGNORE."""
    return _Nats.apply(logits, labels)  # type: ignore[no-any-return]
