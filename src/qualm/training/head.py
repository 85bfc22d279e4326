"""Cross-entropy of a large vocabulary, a few rows at a time: the logits of a whole batch are never held.

Gradients are taken in the forward pass, while a chunk's logits are there, as in Hsu et al. 2024 (arXiv 2410.10989).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.models._product import added, product
from qualm.models.base import Causal
from qualm.models.layers import Linear
from qualm.training.data import IGNORE
from qualm.training.nats import summed_nats

CHUNK = 256  # rows whose logits are held: 8 MB at a vocabulary of 8192
CHUNKS = 4  # in half a format: so many chunks go through one product, as its result has to be added to one of fp32
RARE = 1e-30  # a probability below this has lost digits

Head = Callable[[Tensor], Tensor]
Nats = Callable[..., Tensor]  # of logits (N, V) and whatever stands beside each row: summed


def causal_nats(model: Any, hidden: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """`cross_entropy` of a model's own head; in half the passes if that is a linear layer and no more, on a CPU."""
    named = model.linear_head if isinstance(model, Causal) else ""  # any module with a head can be trained
    layer = model.get_submodule(named) if named else None
    if type(layer) is not Linear or not layer.weight.is_cpu or smoothing or not torch.is_grad_enabled():
        return cross_entropy(model.head, hidden, labels, smoothing)
    return _Linear.apply(hidden.flatten(0, -2), layer.weight, layer.bias, labels.flatten())  # type: ignore[no-any-return]


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
        return sum((nats(head(part).float(), *more) for part, *more in _chunks(CHUNK, rows, *beside)), _zero(rows))
    return _Chunked.apply(rows, head, nats, beside, *_leaves(head(rows[:1].detach())))  # type: ignore[no-any-return]


def _chunks(size: int, *tensors: Tensor) -> Sequence[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


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
        for i, (part, *more) in enumerate(_chunks(CHUNK, rows, *beside)):
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


class _Linear(torch.autograd.Function):
    """The same for rows (N, D) under a weight (V, D) and a bias (V,) or None, in buffers for some rows: logits
    become probabilities, then their gradient, and gradients of the weight are added up inside the product.
    """

    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
        x, table, shift = rows.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        at, at_weight, at_bias = torch.empty_like(x), torch.zeros_like(weight), weight.new_zeros(len(weight))
        wide = x.new_empty(min(CHUNK, len(x)), len(table), dtype=torch.promote_types(dtype, torch.float32))
        half, total = wide.dtype != dtype, wide.new_zeros(())
        at_once = CHUNKS * CHUNK if half else CHUNK
        for part, at_part, aims in _chunks(at_once, x, at, labels):
            logits = product(part, table, shift)
            for some, z, aim in _chunks(CHUNK, part, logits, aims):
                p = wide[: len(z)].copy_(z) if half else z
                torch.softmax(p, -1, out=p)
                total += _settle(p, aim, lambda rare, some=some: F.linear(some[rare], table, shift))
                if ctx.needs_input_grad[2]:
                    at_bias += p.sum(0)
                if half:
                    z.copy_(p)
            at_part.copy_(product(logits, table.T))
            if ctx.needs_input_grad[1]:
                at_weight = added(at_weight, logits, part)
        ctx.save_for_backward(at.to(rows.dtype), at_weight, at_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        found, needed = ctx.saved_tensors, ctx.needs_input_grad
        return *(grad * outputs[0] if need else None for grad, need in zip(found, needed, strict=False)), None


def _settle(p: Tensor, labels: Tensor, again: Callable[[Tensor], Tensor]) -> Tensor:
    """Nats of labels (N,), summed, under probabilities (N, V), which become the gradient of their logits.

    `again` computes the logits of some rows: those whose probability is too small a float to keep its digits.
    """
    counted, places = labels != IGNORE, labels.clamp(min=0)[:, None]
    own = p.gather(-1, places).squeeze(-1)
    nats, rare = -own.log(), own < RARE
    if bool(rare.any()):
        nats[rare] = F.cross_entropy(again(rare).to(p.dtype), places[rare, 0], reduction="none")
    p.scatter_add_(-1, places, p.new_full(places.shape, -1.0))
    if not bool(counted.all()):
        p[~counted] = 0.0
    return nats[counted].sum()
