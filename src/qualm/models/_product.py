"""x @ weight.T + bias in float32 on a CPU, by oneDNN where that pays: on some PyTorch's own takes twice as long.

Those are processors with AVX-512. With AVX2 alone PyTorch's own takes a ninth less (a BERT learning, an AMD EPYC).

The weight lies as it is, so this is for training and for models that are read once; `_packed` is for use.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST = 2**23  # multiplications of a product for which it pays
ROWS = 16  # of x, likewise
WIDE = "AVX512" in torch.backends.cpu.get_cpu_capability()  # what torch found; whoever wants those kernels asks here


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `F.linear` computes: x (.., in), weight (out, in) and bias (out,) -> (.., out)."""
    if not pays(x, weight):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return blocked(x, weight, bias)
    return _Product.apply(x, weight, bias)  # type: ignore[no-any-return]


def added(total: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """`total` (out, in) and the gradient of a weight besides, of x (N, in) and a gradient of outputs (N, out).

    Without gradients of its own; `total` may be changed.
    """
    if total.dtype != grad.dtype:
        return total.add_(grad.T @ x)
    if not pays(grad.T, x.T):
        return total.addmm_(grad.T, x)
    return torch.ops.mkldnn._linear_pointwise.binary(grad.T, total, x.T, None, "add")  # type: ignore[no-any-return]


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `blocked` is to be used: for plain float32 on a CPU, of some size, that nobody traces or casts."""
    kinds = (Tensor, nn.Parameter)
    plain = x.dtype == weight.dtype == torch.float32 and x.is_cpu and type(x) in kinds and type(weight) in kinds
    if not WIDE or not plain or x.numel() * len(weight) < LEAST or x.numel() < ROWS * x.shape[-1]:
        return False
    watched = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return not watched and not torch.is_autocast_enabled("cpu") and torch.backends.mkldnn.is_available()


def blocked(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` by oneDNN, without gradients; both may lie transposed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyrefly: ignore[bad-override]
        ctx.save_for_backward(x, weight)
        return blocked(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        (x, weight), [grad] = ctx.saved_tensors, outputs
        rows, (at_x, at_weight, at_bias) = grad.flatten(0, -2), ctx.needs_input_grad
        return (
            blocked(grad, weight.T) if at_x else None,
            blocked(rows.T, x.flatten(0, -2).T) if at_weight else None,
            rows.sum(0) if at_bias else None,
        )
