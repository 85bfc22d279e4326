"""A running mean of the weights, which is validated and saved in their place (Polyak and Juditsky 1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qualm.training import state

PREFIX = "raw."


class Average:
    """mean <- decay * mean + (1 - decay) * weights after each update, the decay rising to its value at first."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.updates = model, decay, torch.zeros((), dtype=torch.long)
        self.mean = {name: tensor.clone() for name, tensor in state.weights(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, float((1 + self.updates) / (10 + self.updates)))
        for name, tensor in state.weights(self.model).items():
            if tensor.is_floating_point():
                self.mean[name].lerp_(tensor, 1 - decay)
            else:
                self.mean[name].copy_(tensor)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model with the mean as its weights, as long as this lasts."""
        kept = {name: tensor.clone() for name, tensor in state.weights(self.model).items()}
        state.copy_weights(self.model, self.mean)
        try:
            yield
        finally:
            state.copy_weights(self.model, kept)

    def settle(self) -> None:
        """The mean as the model's weights, for good."""
        state.copy_weights(self.model, self.mean)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the mean, which is saved as its weights."""
        raw = {PREFIX + name: tensor.clone() for name, tensor in state.weights(self.model).items()}
        return {**raw, "updates": self.updates}

    def restore(self, tensors: state.Tensors) -> None:
        """From a checkpoint whose weights, the mean, are in the model."""
        self.mean = {name: tensor.clone() for name, tensor in state.weights(self.model).items()}
        state.copy_weights(self.model, {k.removeprefix(PREFIX): t for k, t in tensors.items() if k.startswith(PREFIX)})
        self.updates = tensors["updates"]
