"""A linear layer's weights laid out once for this machine, for reading only: the one place where a faster kernel goes.

A row by itself is bound by how fast memory is read, and goes the plain way; several rows go through oneDNN's blocked
layout, some dozens along a transposed copy. Both compute what `F.linear` does, but for the order of the sums.
"""

from typing import Any

import torch
from torch import Tensor

SMALLEST = 2**18  # weights of a matrix for which another layout pays
LARGEST = 2**30  # weights of a model whose matrices are held in other layouts besides: 4 GB of each
ROWS = 64  # that the blocked layout is chosen for
DOZENS = range(32, 257)  # rows for which the transposed copy is the faster one


class Packed:
    """The layouts of one weight (out, in). A copy of the layer starts without them, and a changed weight drops them."""

    def __init__(self, weight: Tensor):
        self.made_of = mark(weight)
        with torch.inference_mode():
            self.turned = weight.detach().T.contiguous()  # (in, out)
            self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)

    def fits(self, weight: Tensor, x: Tensor) -> bool:
        """Whether these are the layouts of that weight as it is, and one is to be used for `x`."""
        several = x.numel() > x.shape[-1]
        return several and x.dtype == torch.float32 and not torch.is_grad_enabled() and self.made_of == mark(weight)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (.., in) times the weight, plus the bias: (.., out)."""
        if x.numel() // x.shape[-1] in DOZENS:
            out = x.flatten(0, -2) @ self.turned
            return (out if bias is None else out + bias).unflatten(0, x.shape[:-1])
        return torch.ops.mkldnn._linear_pointwise(x, self.blocks, bias, "none", [], "")

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


def mark(weight: Tensor) -> tuple[int, int]:
    """What tells a weight that was changed, or replaced."""
    return weight.data_ptr(), weight._version


def can_pack(weight: Tensor) -> bool:
    """Whether other layouts are to be had here for a weight, and pay."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.is_inference()
    return plain and weight.dim() == 2 and weight.numel() >= SMALLEST and torch.backends.mkldnn.is_available()
