"""Where an adapter is put, and how it starts (see `qualm.models._adapters` for what it computes)."""

import copy
from collections.abc import Collection, Sequence
from difflib import get_close_matches

import torch

from qualm.errors import UsageError
from qualm.models._adapters import Adapted, ends_with, linear_layers, shared, within
from qualm.models.base import Model
from qualm.models.layers import Int8Linear
from qualm.training.optimisers import inner_matrices
from qualm.training.recipe import Lora


def adapt(model: Model, lora: Lora, whole: Sequence[str] = (), seed: int = 0) -> Model:
    """A copy of the model that shares its weights, which may not change in it; beside them stands a new adapter.

    `whole` are modules, such as a new head, of which the copy has its own, free to change. Raises UsageError for a
    target that names no linear layer, and for a rank beyond a layer's.
    """
    names = targets_of(model, lora.targets, whole)
    made, source = shared(model, frozen=True), torch.Generator().manual_seed(seed)
    for name in names:
        layer = made.get_submodule(name)
        most = min(layer.weight.shape)  # type: ignore[union-attr, arg-type]
        if lora.rank > most:
            raise UsageError(f"rank {lora.rank} is beyond that of {name}, {most}", then="name a lower one, or targets")
        adapted = Adapted(layer, lora.rank, (lora.alpha or 2 * lora.rank) / lora.rank, lora.dora)
        start = torch.empty(adapted.lora_A.weight.shape)
        adapted.lora_A.weight.data.copy_(start.uniform_(-1, 1, generator=source) / start.shape[1] ** 0.5)
        made.set_submodule(name, adapted)
    for name in whole:
        made.set_submodule(name, copy.deepcopy(made.get_submodule(name)).requires_grad_(True))
    return made


def targets_of(model: Model, endings: Collection[str] = (), but: Collection[str] = ()) -> list[str]:
    """The linear layers whose names end with one of `endings`; all but heads if there are none. Never those inside the
    modules `but`, and no layer that shares its weights with another module.

    Raises UsageError, with the nearest name, for an ending that no such layer has.
    """
    layers = {name: module for name, module in linear_layers(model).items() if not within(name, but)}
    if not layers:
        why = "are in 8 bits" if any(isinstance(m, Int8Linear) for m in model.modules()) else "share their weights"
        raise UsageError(f"this {model.config.model_type} model's linear layers {why}", then="leave out --lora")
    if not endings:
        inner = {id(weight) for weight in inner_matrices(model)}
        return [name for name, module in layers.items() if id(module.weight) in inner] or list(layers)
    for ending in endings:
        if not any(ends_with(name, ending) for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            near = get_close_matches(ending, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"say {', '.join(known)}"
            raise UsageError(f"no linear layer to adapt is named {ending!r}", where="targets", then=hint)
    return [name for name in layers if any(ends_with(name, ending) for ending in endings)]
