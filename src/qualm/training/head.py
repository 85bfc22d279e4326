"""Cross-entropy of a large vocabulary, a few rows at a time: the logits of a whole batch are never held.

Gradients are taken in the forward pass, while a chunk's logits are there, as in Hsu et al. 2024 (arXiv 2410.10989).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.training.data import IGNORE

CHUNK = 256  # rows whose logits are held: 8 MB at a vocabulary of 8192

Head = Callable[[Tensor], Tensor]


def cross_entropy(head: Head, hidden: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Nats summed over labels (...) that are not IGNORE, of the logits that `head` gives hidden states (..., D)."""
    rows, wanted = hidden.reshape(-1, hidden.shape[-1]), labels.flatten()
    if not torch.is_grad_enabled() or not len(rows):
        return sum((_nats(head, *part, smoothing) for part in _chunks(rows, wanted)), _zero(rows))
    return _Chunked.apply(rows, wanted, head, smoothing, *_leaves(head(rows[:1].detach())))  # type: ignore[no-any-return]


def _chunks(rows: Tensor, labels: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    return list(zip(rows.split(CHUNK), labels.split(CHUNK), strict=True))


def _nats(head: Head, rows: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    logits = head(rows).float()
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)


def _zero(rows: Tensor) -> Tensor:
    """No nats, in fp32 at least: half a format's digits are too few for a sum."""
    return rows.new_zeros((), dtype=torch.promote_types(rows.dtype, torch.float32))


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The weights that a tensor was computed from."""
    found: dict[int, Tensor] = {}
    below, seen = [tensor.grad_fn], set()
    while below:
        node = below.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        below += [each for each, _ in node.next_functions]
    return list(found.values())


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        ctx: Any, rows: Tensor, labels: Tensor, head: Head, smoothing: float, *weights: Tensor
    ) -> Tensor:
        total, grads, at = _zero(rows), [torch.zeros_like(w) for w in weights], torch.empty_like(rows)
        for i, (part, wanted) in enumerate(_chunks(rows, labels)):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                nats = _nats(head, leaf, wanted, smoothing)
            own, *rest = torch.autograd.grad(nats, [leaf, *weights])
            at[i * CHUNK : i * CHUNK + len(part)] = own
            for grad, new in zip(grads, rest, strict=True):
                grad += new
            total += nats.detach()
        ctx.save_for_backward(at, *grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        [scale] = outputs
        rows, *weights = ctx.saved_tensors
        return rows * scale, None, None, None, *(weight * scale for weight in weights)
