"""The processes that train one model together: which rows each takes, and how they agree.

Every process draws the same batches and takes its own rows of each; gradients and counts are summed once an update, so
the gradient is that of the whole batch however many processes there are (Li et al. 2020, arXiv 2006.15704). They are
not sent while the backward pass still runs: on a CPU that computes and sends with the same cores nothing is gained by
that.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from qualm.errors import QualmError

MESSAGE = 25 * 2**20  # bytes of gradients that are sent at once
ROWS = "rows."  # what tensors that were put together from all processes are named by
APART = 1_000_003  # between the seeds of two processes


class LostRank(QualmError):
    """Another process of the run has ended without a word; what it has saved stands."""

    exit_code: ClassVar[int] = 76


class Ranks:
    """The processes of this run, in step; one if torch.distributed was not set up.

    All methods but `own` and `first` must be called by all of them. A process that is gone is told of by LostRank.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def own(self, drawn: np.ndarray) -> np.ndarray:
        """This process's share of an array of rows (B,)."""
        return drawn[self.rank :: self.size]

    def seed(self, seed: int) -> int:
        """A seed of this process's own, so that dropout differs; that of the first is the seed itself."""
        return seed + APART * self.rank

    def wait(self) -> None:
        """Until all are here."""
        self._tell(None)

    def same(self, value: Any) -> Any:
        """What the first process has for `value`: a number, a string, or nothing."""
        return self._tell(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether one process says so."""
        said = torch.tensor([float(flag)], device=self.device)
        self.sum([said])
        return bool(said)

    def agree(self, value: Any) -> None:
        """Raises QualmError, on all processes, if `value` is not the same on all."""
        if any(other != value for other in self._tell(value)):
            raise QualmError(
                "the processes of this run have unlike settings, data or weights", then="give all of them the same"
            )

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does this, then all others: they find the files that it wrote."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over all processes, in few messages."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with _together():
                dist.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients. One that no process has stays None; a process without rows takes part with zeros."""
        if self.size == 1 or isinstance(parameters[0], DTensor):  # the sharded are summed already
            return
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        self.sum([there])
        wanted = [p for p, count in zip(parameters, there.tolist(), strict=True) if count]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for dtype in sorted({p.dtype for p in wanted}, key=str):
            self.sum([p.grad for p in wanted if p.dtype == dtype and p.grad is not None])

    def each(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What every process has: the first's by their names, those of process 1 as rank1.NAME, and so on."""
        told = self._tell({name: tensor.cpu() for name, tensor in tensors.items()})
        return {_of(rank, name): tensor for rank, part in enumerate(told) for name, tensor in part.items()}

    def mine(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Of what `each` made, this process's tensors of these names; fewer if there were fewer processes then."""
        return {name: tensors[_of(self.rank, name)] for name in names if _of(self.rank, name) in tensors}

    def join(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors (layers, rows, ...), of which each process has those of its own rows, as those of the whole batch."""
        told = self._tell({name: tensor.cpu() for name, tensor in tensors.items()})
        joined = {}
        for name, like in told[0].items():
            parts = [part[name] for part in told if name in part]
            whole = like.new_empty(like.shape[0], sum(part.shape[1] for part in parts), *like.shape[2:])
            for rank, part in enumerate(parts):
                whole[:, rank :: self.size] = part
            joined[ROWS + name] = whole
        return joined

    def split(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of what `join` made, on any number of processes."""
        return {
            name.removeprefix(ROWS): tensor[:, self.rank :: self.size]
            for name, tensor in tensors.items()
            if name.startswith(ROWS)
        }

    def _tell(self, value: Any) -> list[Any]:
        """What each process says, in order."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(told, value)
        return told


def _of(rank: int, name: str) -> str:
    return f"rank{rank}.{name}" if rank else name


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket, held = list[Tensor](), 0
    for tensor in tensors:
        bucket.append(tensor)
        held += tensor.nbytes
        if held >= MESSAGE:
            yield bucket
            bucket, held = [], 0
    if bucket:
        yield bucket


@contextmanager
def _together() -> Iterator[None]:
    """Raises LostRank where another process can no longer be reached."""
    try:
        yield
    except RuntimeError as error:  # gloo has no kind of its own
        raise lost() from error


def lost() -> LostRank:
    return LostRank("another process of this run has ended", then="run it again to go on")
