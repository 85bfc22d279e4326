"""Several arrays of token ids, each mapped from a file of its own, read as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Shards:
    """`ids` end to end without bringing them together: `take`, a place, a stretch, many places. (N,), read only."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0, *map(len, arrays)])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, places: np.ndarray, mode: str = "raise") -> np.ndarray:
        """The ids at these places, of their shape; with mode "clip", the nearest id for a place outside."""
        places = np.clip(places, 0, len(self) - 1) if mode == "clip" else np.asarray(places)
        if places.size and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"a place outside 0 to {len(self) - 1}")
        made, which = np.empty(places.shape, self.dtype), np.searchsorted(self.starts, places, "right") - 1
        for shard in np.unique(which).tolist():
            here = which == shard
            made[here] = self.arrays[shard][places[here] - self.starts[shard]]
        return made

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            pairs = zip(self.starts.tolist(), self.arrays, strict=False)
            parts = [array[max(start - at, 0) : max(stop - at, 0)] for at, array in pairs]
            return np.concatenate([self.arrays[0][:0], *(part for part in parts if len(part))])
        places = np.asarray(which)
        return self.take(np.where(places < 0, places + len(self), places))[()]

    def tolist(self) -> list[int]:
        return self[:].tolist()
