"""What models keep of the ids they have read: keys and values, written in place; what was read of a source."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor


class Cache(ABC):
    """What a model keeps of the ids it has read, a row a text; `lengths` (B,) long counts them.

    A model's `hidden` writes to it in place. Decoding and scoring know no more of it than this.
    """

    lengths: Tensor

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""

    @abstractmethod
    def add(self, other: Any) -> None:
        """Put the rows of another cache of the same model behind these."""

    def beginning(self, row: int, length: int) -> Self | None:
        """A copy of what is kept of a row's first `length` ids; None if that cannot be told any more."""
        return None

    def rewind(self, lengths: Tensor) -> bool:
        """Forget all but the first `lengths` (B,) ids of each row; False, and nothing is done, if that cannot be."""
        return False


def stacked(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Rows of a, then rows of b, both filled up with zeros to the same size along `dim`."""
    size = max(a.shape[dim], b.shape[dim])
    after = [0, 0] * (a.dim() - 1 - dim)
    return torch.cat([F.pad(x, [*after, 0, size - x.shape[dim]]) for x in (a, b)])


class KVCache(Cache):
    """Keys and values of what was read so far; one slot a position, (B, Hkv, length, Dh) a layer.

    `lengths` counts the slots of each row that are in use: new tokens take the positions from there on, and slots at
    or beyond it are never seen, so rows padded on the right need no mask. All layers lie in one block of memory, which
    is written in place; it grows when slots or rows run out.
    """

    def __init__(self, layers: int, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device):
        self.block = torch.zeros(2, layers, *shape, dtype=dtype, device=device)  # (2, L, rows, Hkv, slots, Dh)
        self.lengths = torch.zeros(shape[0], dtype=torch.long, device=device)
        self._look()

    def _look(self) -> None:
        """Views of the rows in use, a layer each."""
        rows = len(self.lengths)
        self.keys, self.values = ([layer[:rows] for layer in half] for half in self.block)

    @property
    def length(self) -> int:
        """Slots a row."""
        return self.block.shape[4]

    @property
    def used(self) -> int:
        """Slots of the longest row that are in use."""
        return int(self.lengths.max()) if len(self.lengths) else 0

    @property
    def bytes(self) -> int:
        return self.block.numel() * self.block.element_size()

    def keep(self, rows: Tensor) -> None:
        order, used = rows.tolist(), self.used
        moved = [(to, row) for to, row in enumerate(order) if to != row]
        if len(order) > self.block.shape[2]:
            self.block = self.block.index_select(2, rows)
        elif moved:
            to, row = torch.tensor(moved, device=self.block.device).T
            self.block[:, :, to, :, :used] = self.block[:, :, row, :, :used]
        self.lengths = self.lengths[rows]
        self._look()

    def add(self, other: Any) -> None:
        rows, new, used = len(self.lengths), len(other.lengths), other.used
        self._rows(rows + new)
        self.reserve(used)
        self.block[:, :, rows : rows + new, :, :used] = other.block[:, :, :new, :, :used]
        self.lengths = torch.cat((self.lengths, other.lengths))
        self._look()

    def beginning(self, row: int, length: int) -> Self | None:
        made = copy.copy(self)
        made.block = self.block[:, :, row : row + 1, :, :length].clone()
        made.lengths = self.lengths.new_full((1,), length)
        made._look()
        return made

    def rewind(self, lengths: Tensor) -> bool:
        self.lengths = lengths
        return True

    def trim(self, length: int) -> None:
        """Forget what stands at or beyond position `length` in every row."""
        self.lengths = self.lengths.clamp(max=length)

    def reserve(self, length: int) -> None:
        """Have at least `length` slots; what was read stays."""
        missing = length - self.length
        if missing > 0:
            missing = max(missing, self.length)  # doubling keeps the cost of growing linear
            self.block = F.pad(self.block, (0, 0, 0, missing))
            self._look()

    def _rows(self, rows: int) -> None:
        """Have room for so many rows."""
        missing = rows - self.block.shape[2]
        if missing > 0:
            missing = max(missing, self.block.shape[2])
            self.block = F.pad(self.block, (0, 0, 0, 0, 0, 0, 0, missing))


class Memory:
    """What a decoder looks up in a source text that was read whole, for caches.

    `memory` holds keys and values (B, H, S, Dh) of the source for each layer, `memory_mask` (B, 1, 1, S) bool which
    of its tokens count; None for all.
    """

    memory: Sequence[tuple[Tensor, Tensor]]
    memory_mask: Tensor | None = None

    def keep_memory(self, rows: Tensor) -> None:
        if rows.tolist() == list(range(len(self.memory[0][0]))):
            return
        self.memory = [(k[rows], v[rows]) for k, v in self.memory]
        self.memory_mask = None if self.memory_mask is None else self.memory_mask[rows]

    def add_memory(self, other: "Memory") -> None:
        masks = [own.memory_mask if own.memory_mask is not None else own.everything() for own in (self, other)]
        self.memory = [
            (stacked(k, k2, 2), stacked(v, v2, 2)) for (k, v), (k2, v2) in zip(self.memory, other.memory, strict=True)
        ]
        self.memory_mask = stacked(masks[0], masks[1], 3)

    def everything(self) -> Tensor:
        rows, _, length, _ = self.memory[0][0].shape
        return self.memory[0][0].new_ones(rows, 1, 1, length, dtype=torch.bool)


class CrossCache(Memory, KVCache):
    """Keys and values of what was written, and what was read before."""

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.keep_memory(rows)

    def add(self, other: Any) -> None:
        super().add(other)
        self.add_memory(other)

    def beginning(self, row: int, length: int) -> Self | None:
        return None
