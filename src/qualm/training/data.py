"""Rows of token ids, and the order in which each epoch draws them: a function of seed, epoch and step alone."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from qualm.corpus.packing import Packed
from qualm.errors import InputError
from qualm.files import hash_json

IGNORE = -100  # a target that is not predicted


class Rows(Protocol):
    """What the loop draws from.

    `identity` names what the rows were made from; a resumed run must find the same. `bytes_per_target` is how many
    UTF-8 bytes of text a predicted token stands for on average, 0 if that is not known.
    """

    @property
    def bytes_per_target(self) -> float: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: np.ndarray) -> Tensor: ...


class TokenRows:
    """Packed ids in rows of `length` + 1, neighbours sharing one id, so that each token is predicted once.

    The last row is filled up with `IGNORE`.
    """

    def __init__(self, packed: Packed, length: int):
        if packed.tokens < 1:
            raise InputError("no tokens to predict", then="add text")
        self.ids, self.length, self.count = packed.ids, length, packed.rows(length)
        self.identity = {**packed.identity, "length": str(length)}
        self.bytes_per_target = packed.bytes / packed.tokens

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """Ids (B, length + 1) long of these rows."""
        places = rows[:, None] * self.length + np.arange(self.length + 1)  # (B, T + 1)
        ids = self.ids.take(places, mode="clip").astype(np.int64)
        ids[places >= len(self.ids)] = IGNORE
        return torch.from_numpy(ids)


class TensorRows:
    """The rows of a tensor, (N, ...), as they are."""

    bytes_per_target = 0.0

    def __init__(self, rows: Tensor):
        self.rows = rows

    @property
    def identity(self) -> Mapping[str, str]:
        return {"content": hash_json([list(self.rows.shape), str(self.rows.dtype), self.rows.tolist()])}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        return self.rows[torch.from_numpy(rows)]


def order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The rows of an epoch in the order they are drawn, (rows,)."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


class Draw:
    """Which rows each micro-step of each update takes; it has no state but a cache, so resuming needs only the step."""

    def __init__(self, rows: int, batch: int, accumulate: int, seed: int):
        self.rows, self.batch, self.accumulate, self.seed = rows, batch, accumulate, seed
        self.epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> Iterator[np.ndarray]:
        """`accumulate` arrays of `batch` rows for update `step` (from 1). Rows run on over the end of an epoch."""
        first = (step - 1) * self.batch * self.accumulate
        for start in range(first, first + self.batch * self.accumulate, self.batch):
            epochs, places = np.divmod(np.arange(start, start + self.batch), self.rows)
            yield np.array([self._epoch(e)[p] for e, p in zip(epochs, places, strict=True)])

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self.epochs:
            self.epochs = {k: v for k, v in self.epochs.items() if k == epoch - 1}
            self.epochs[epoch] = order(self.rows, self.seed, epoch)
        return self.epochs[epoch]
