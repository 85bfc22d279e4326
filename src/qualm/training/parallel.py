"""The processes that train one model together: what each draws, and how they agree."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes of this run, in step; one if torch.distributed was not set up.

    Every process draws the same batches and takes its own rows of each, so the gradient is that of the whole batch,
    however many there are.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def own(self, drawn: np.ndarray) -> np.ndarray:
        """This process's share of an array of rows (B,)."""
        return drawn[self.rank :: self.size]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in few messages."""
        if self.size == 1 or not tensors:
            return
        flat = torch._utils._flatten_dense_tensors(tensors)
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, torch._utils._unflatten_dense_tensors(flat, tensors), strict=True):
            tensor.copy_(summed)
