"""Eight-bit weights: a quarter of the bytes of float32, at the rounding of each row to 255 steps.

Mends cost: bytes on disk and in memory. Whether it is also faster is for the machine to say; often it is not.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from qualm.errors import UsageError
from qualm.lm.base import LM
from qualm.mends._weights import local, shared_copy
from qualm.mends.base import Mend
from qualm.models.layers import left_float, quantize_int8


@dataclass(frozen=True)
class Quantize(Mend):
    """All linear layers and embeddings in `bits` bits; norms and biases stay as they are."""

    bits: Literal[8] = 8

    mends: ClassVar[frozenset[str]] = frozenset({"cost"})
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def __call__(self, lm: LM) -> LM:
        base = local(lm)
        if left_float(base.model) is not None:
            raise UsageError(f"the weights of {base.name} are in 8 bits already", where="Quantize")
        model = shared_copy(base.model)
        quantize_int8(model)
        return base.replace(model, repr(self))
