"""Copies of a model that share what the mend does not change."""

import copy

from torch import Tensor, nn

from qualm.errors import Unsupported
from qualm.lm.base import LM
from qualm.lm.local import Local
from qualm.models._adapters import is_adapted, merged
from qualm.models.base import Model


def local(lm: LM, of: type[Model] = Model, why: str = "") -> Local:
    """The model itself, with its weights; an adapter is put into them.

    Raises Unsupported if something stands around it, or if it is not `of` the kind that the mend is for; `why` tells.
    """
    if not isinstance(lm, Local):
        raise Unsupported(
            f"the weights of {lm.name} are not to be had", then="mend the weights first, wrap the model then"
        )
    if not isinstance(lm.model, of):
        raise Unsupported(f"this mend is not for a {lm.model.config.model_type} model: {why}")
    return lm.replace(merged(lm.model)) if is_adapted(lm.model) else lm


def shared_copy(model: Model, own: nn.Module | None = None) -> Model:
    """A copy whose modules are new and whose tensors are the model's, but for those of `own` (a module of it)."""
    apart = {id(t) for t in own.parameters()} if own else set()
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t for t in tensors if id(t) not in apart})
