"""A linear layer's weights laid out once for this machine, for reading only: the one place where a faster kernel goes.

Weights that half precision holds exactly, as those of most published models after a change of scale, are read in half
the bytes by FBGEMM where there is AVX-512; others go through oneDNN's blocked layout. Both sum in float32, as
`F.linear` does but for the order of the sums, and in the same order for a row however many others stand beside it
(FBGEMM with AVX2 alone would not): what is made of a row does not hang on its batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qualm.models import _product

SMALLEST = 2**17  # weights of a matrix for which another layout pays
LARGEST = 2**30  # weights of a model whose matrices are held in other layouts besides: 4 GB, or 2 in half precision
ROWS = 64  # that the blocked layout is chosen for
TOP = 15  # the power of two under which scaled weights stay: half precision ends at 65504


class Packed:
    """The layout of one weight (out, in), or of several side by side that are multiplied by the same.

    A copy of a layer starts without it, and a changed weight drops it.
    """

    def __init__(self, weights: Sequence[Tensor]):
        self.made_of = [mark(weight) for weight in weights]
        self.sizes = [len(weight) for weight in weights]
        with torch.inference_mode():
            whole = weights[0].detach() if len(weights) == 1 else torch.cat([weight.detach() for weight in weights])
            self.times = (_product.WIDE and in_half(whole)) or in_blocks(whole)

    def fits(self, weights: Sequence[Tensor], x: Tensor) -> bool:
        """Whether this is the layout of those weights as they are, and is to be used for `x`."""
        if x.dtype != torch.float32 or torch.is_grad_enabled():
            return False
        return all(made == mark(weight) for made, weight in zip(self.made_of, weights, strict=True))

    def __call__(self, x: Tensor) -> Tensor:
        """x (.., in) times the weights: (.., out), the outputs of one behind those of another."""
        return self.times(x)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


def in_half(weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """x -> x @ weight.T, the weight times a power of two in half precision; None if it would lose a bit of one."""
    largest = weight.abs().max()
    scale = 2.0 ** (TOP - int(torch.frexp(largest).exponent))
    scaled = weight * scale
    exact = bool(largest.isfinite()) and torch.equal(scaled.half().float(), scaled)
    if not exact or not hasattr(torch.ops.quantized, "linear_prepack_fp16"):
        return None
    packed = torch.ops.quantized.linear_prepack_fp16(scaled.contiguous(), None)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed).mul_(1 / scale)


def in_blocks(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> x @ weight.T, of blocks that lie as they are read."""
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, blocks, None, "none", [], "")


def mark(weight: Tensor) -> tuple[int, int]:
    """What tells a weight that was changed, or replaced."""
    return weight.data_ptr(), weight._version


def can_pack(weights: Sequence[Tensor]) -> bool:
    """Whether another layout is to be had here for weights side by side, and pays."""
    plain = all(w.device.type == "cpu" and w.dtype == torch.float32 and not w.is_inference() for w in weights)
    large = sum(weight.numel() for weight in weights) >= SMALLEST
    return plain and large and weights[0].dim() == 2 and torch.backends.mkldnn.is_available()
