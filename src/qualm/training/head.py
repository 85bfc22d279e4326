"""Cross-entropy of a large vocabulary, a few rows at a time: the logits of a whole batch are never held.

Gradients are taken in the forward pass, while a chunk's logits are there, as in Hsu et al. 2024 (arXiv 2410.10989).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.training.data import IGNORE
from qualm.training.nats import summed_nats

CHUNK = 256  # rows whose logits are held: 8 MB at a vocabulary of 8192

Head = Callable[[Tensor], Tensor]
Nats = Callable[..., Tensor]  # of logits (N, V) and whatever stands beside each row: summed


def cross_entropy(head: Head, hidden: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Nats summed over labels (...) that are not IGNORE, of the logits that `head` gives hidden states (..., D)."""

    def nats(logits: Tensor, labels: Tensor) -> Tensor:
        if not smoothing:
            return summed_nats(logits, labels)
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)

    return summed(head, hidden.reshape(-1, hidden.shape[-1]), nats, labels.flatten())


def summed(head: Head, rows: Tensor, nats: Nats, *beside: Tensor) -> Tensor:
    """What `nats` makes of the logits that `head` gives hidden states (N, D), and of tensors (N, ...) beside them."""
    if not torch.is_grad_enabled() or not len(rows):
        return sum((nats(head(part).float(), *more) for part, *more in _chunks(rows, *beside)), _zero(rows))
    return _Chunked.apply(rows, head, nats, beside, *_leaves(head(rows[:1].detach())))  # type: ignore[no-any-return]


def _chunks(*tensors: Tensor) -> Sequence[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True))


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
        ctx: Any, rows: Tensor, head: Head, nats: Nats, beside: Sequence[Tensor], *weights: Tensor
    ) -> Tensor:
        total, grads, at = _zero(rows), [torch.zeros_like(w) for w in weights], torch.empty_like(rows)
        for i, (part, *more) in enumerate(_chunks(rows, *beside)):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                found = nats(head(leaf).float(), *more)
            own, *rest = torch.autograd.grad(found, [leaf, *weights])
            at[i * CHUNK : i * CHUNK + len(part)] = own
            for grad, new in zip(grads, rest, strict=True):
                grad += new
            total += found.detach()
        ctx.save_for_backward(at, *grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        [scale] = outputs
        rows, *weights = ctx.saved_tensors
        return rows * scale, None, None, None, *(weight * scale for weight in weights)
