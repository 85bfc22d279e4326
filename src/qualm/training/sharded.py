"""A model whose weights, gradients and moments are spread over the processes: each keeps its part of every layer.

FSDP2 (Zhao et al. 2023, arXiv 2304.11277): a layer's weights are put together just before it is computed, and taken
apart behind it. Moments are written by torch.distributed.checkpoint, every process its own part, as safetensors, and
read on any number of processes.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from qualm.errors import QualmError, Unsupported, UsageError
from qualm.models.base import Decoder
from qualm.training.losses import Loss
from qualm.training.parallel import Ranks, lost
from qualm.training.settings import TrainSettings

FILES = "moments-*.safetensors"


def check_processes(settings: TrainSettings) -> None:
    """Raises UsageError if a model is to be spread over the processes, and there is one."""
    if settings.shard and Ranks().size == 1:
        raise UsageError("--shard spreads a model over several processes, and this is one", then="say --nproc 2")


class Sharded:
    """A copy of `plain` that is spread over the processes, as `model`, with its loss.

    `plain` stays whole in the memory of each process, where `gather` puts what was learnt: for model files, and for the
    end. Raises Unsupported if it is no decoder of layers: only theirs read no weight of one layer in another.
    """

    def __init__(self, plain: nn.Module, loss: Loss, settings: TrainSettings):
        self.plain, self.model = plain, copy.deepcopy(plain)
        layers = [each for module in self.model.modules() if isinstance(module, nn.ModuleList) for each in module]
        if not isinstance(plain, Decoder) or not layers:
            raise Unsupported(f"a {type(plain).__name__} cannot be spread over processes", then="leave out --shard")
        if settings.optimiser == "muon" or settings.ema or settings.batch < dist.get_world_size():
            raise UsageError("--shard goes with adamw or sgd, no ema, and a row of each batch for every process")
        device = "cuda" if torch.cuda.is_available() else next(plain.parameters()).device.type
        mesh = init_device_mesh(device, (dist.get_world_size(),))  # layers are moved there one by one
        self.root = _Root(self.model, loss)
        for module in (*layers, self.root):
            fully_shard(module, mesh=mesh)
        for module in self.root.modules():
            if isinstance(module, FSDPModule):  # gradients are sums, as everywhere here; gloo knows no other
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        return self.root(batch)

    @contextmanager
    def open(self) -> Iterator[None]:
        """The model's own methods can be called."""
        self.root.unshard()  # type: ignore[operator]
        try:
            yield
        finally:
            self.root.reshard()  # type: ignore[operator]

    @torch.no_grad()
    def gather(self) -> None:
        """Put the weights together into the plain model."""
        spread = dict(self.model.named_parameters())
        for name, weight in self.plain.named_parameters():
            weight.copy_(whole(spread[name]))


class _Root(nn.Module):
    """The loss as a module: what is outside the layers stays put together while it is computed, the head too."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> tuple[Tensor, int]:
        return self.loss(self.model, batch)


@contextmanager
def reached() -> Iterator[None]:
    """Raises LostRank where another process can no longer be reached; errors of other kinds stay as they are.

    gloo has no kind of its own for that, but names the peer.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "peer" in str(error):
            raise lost() from error
        raise


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from the parts of all processes, which all must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fitted(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor, spread as `like` is if they have one shape."""
    if isinstance(like, DTensor) and not isinstance(tensor, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


def write_moments(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Each process its part, into a folder that is not there yet. Raises QualmError if the disk is full."""
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        checkpoint.save({k: t for k, t in tensors.items() if isinstance(t, DTensor)}, storage_writer=writer)
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise QualmError(f"cannot save a checkpoint: {reason}", where=str(folder), then="free some space") from error


def move_moments(parts: Path, folder: Path) -> None:
    """What `write_moments` wrote, into a checkpoint."""
    for number, path in enumerate(sorted(parts.glob("*.safetensors"))):
        path.rename(folder / FILES.replace("*", f"{number:05d}"))


def read_moments(folder: Path, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moments in a checkpoint by name, spread as the parameters are; {} if it has no such files."""
    if not list(folder.glob(FILES)):
        return {}
    reader = checkpoint.HuggingFaceStorageReader(str(folder))
    found: dict[str, Tensor] = {}
    for key in reader.read_metadata().state_dict_metadata:
        name = key.removeprefix("optimiser.").rpartition(".")[0]
        if key.startswith("optimiser.") and name in parameters and not key.endswith(".step"):
            found[key] = torch.empty_like(parameters[name].detach())
    checkpoint.load(found, storage_reader=reader, no_dist=not dist.is_initialized())
    return found
