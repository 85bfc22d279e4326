"""Where a model is trained: the processor or a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from qualm.errors import UsageError
from qualm.training.settings import TrainSettings


def device_of(wanted: str, home: torch.device) -> torch.device:
    """ "cpu", "cuda" (this process's GPU) or "auto": a GPU if there is one, for a model that is on the CPU.

    Raises UsageError for "cuda" where torch finds no GPU.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UsageError("torch finds no GPU here", where="device", then="say --device cpu, or leave it to auto")
    if wanted == "cuda" or (wanted == "auto" and there and home.type == "cpu"):
        return torch.device("cuda", torch.cuda.current_device())
    return home if wanted == "auto" else torch.device("cpu")


@contextmanager
def placed(model: nn.Module, settings: TrainSettings) -> Iterator[None]:
    """The model where it is to be trained, its parameters the same objects; afterwards it is where it was.

    With `settings.shard` it stays: what is spread over processes goes to their GPUs layer by layer.
    """
    home = next(model.parameters()).device
    if not settings.shard:
        model.to(device_of(settings.device, home))
    try:
        yield
    finally:
        model.to(home)
