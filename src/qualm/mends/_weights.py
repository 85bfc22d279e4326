"""Copies of a model that share what the mend does not change."""

import copy

from torch import Tensor, nn

from qualm.errors import Unsupported
from qualm.lm.base import LM
from qualm.lm.local import Local
from qualm.models.base import Decoder


def local(lm: LM) -> Local:
    """The model itself, with its weights. Raises Unsupported if something stands around it."""
    if not isinstance(lm, Local):
        raise Unsupported(
            f"the weights of {lm.name} are not to be had", then="mend the weights first, wrap the model then"
        )
    return lm


def shared_copy(model: Decoder, own: nn.Module | None = None) -> Decoder:
    """A copy whose modules are new and whose tensors are the model's, but for those of `own` (a module of it)."""
    apart = {id(t) for t in own.parameters()} if own else set()
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t for t in tensors if id(t) not in apart})
