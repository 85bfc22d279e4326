"""Rows to train on, the batches they make, and the order in which each epoch draws them.

All of it is a function of seed, epoch, row and step alone: noise and order are the same after a resume, whatever the
batch is split into.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualm.corpus.packing import Packed
from qualm.errors import InputError
from qualm.files import hash_json

IGNORE = -100  # a target that is not predicted
BUCKET = 64  # batches whose rows are sorted by length together


class Batch(dict[str, Tensor]):
    """Tensors by name, a row an example: `ids` (B, T), `labels`, `lengths` (B,), ... as the loss reads them."""

    def to(self, device: torch.device | str) -> "Batch":
        return Batch({name: tensor.to(device) for name, tensor in self.items()})


class Rows(ABC):
    """What the loop draws from.

    `identity` names what the rows were made from; a resumed run must find the same. `bytes_per_target` is how many
    UTF-8 bytes of text a predicted token stands for on average, 0 if that is not known.
    """

    bytes_per_target: float = 0.0
    identity: Mapping[str, str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        """The batch of these rows (B,), each in its epoch (B,): noise hangs on both."""

    def order(self, seed: int, epoch: int, batch: int) -> np.ndarray:
        """The rows of an epoch in the order they are drawn, (rows,), `batch` of them at a time."""
        return order(len(self), seed, epoch)


def order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """A shuffle of all rows, (rows,)."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def next_token(rows: Tensor) -> Batch:
    """Rows of ids (B, T + 1), whose tail may be filled with IGNORE: each but the last is to be followed by the next."""
    return Batch(ids=rows[:, :-1].clamp(min=0), labels=rows[:, 1:])


class TokenRows(Rows):
    """Packed ids in rows of `length`, neighbours sharing one id, so that each token is predicted once.

    The last row is filled up with `IGNORE`. With `apart`, batches say which document each token belongs to, so that
    the model can keep them apart: an end token that opens a document belongs to it.
    """

    def __init__(self, packed: Packed, length: int, apart: bool = False):
        if packed.tokens < 1:
            raise InputError("no tokens to predict", then="add text")
        self.ids, self.length, self.count = packed.ids, length, packed.rows(length)
        self.ends = packed.ends if apart else None
        self.identity = {**packed.identity, "length": str(length), **({"apart": "yes"} if apart else {})}
        self.bytes_per_target = packed.bytes / packed.tokens

    def __len__(self) -> int:
        return self.count

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        """`ids` and `labels` (B, length), with `apart` also `documents` (B, length): a number a document."""
        places = rows[:, None] * self.length + np.arange(self.length + 1)  # (B, T + 1)
        ids = self.ids.take(places, mode="clip").astype(np.int64)
        ids[places >= len(self.ids)] = IGNORE
        made = next_token(torch.from_numpy(ids))
        if self.ends is not None:
            made["documents"] = torch.from_numpy(np.searchsorted(self.ends, places[:, 1:], "right"))
        return made


class StreamRows(TokenRows):
    """The same text as `streams` long streams side by side: row s of a batch goes on where it ended in the last one.

    For models that carry their state from batch to batch. What does not fill all streams is left out.
    """

    def __init__(self, packed: Packed, length: int, streams: int):
        super().__init__(packed, length)
        self.streams, self.steps = streams, packed.tokens // (length * streams)
        if not self.steps:
            raise InputError(
                f"{packed.tokens} tokens do not fill {streams} streams of {length}",
                then="add text, or lower the batch or the length",
            )
        self.identity = {**self.identity, "streams": str(streams)}

    def __len__(self) -> int:
        return self.steps * self.streams

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        """Also `first` (): 1 for a batch that opens an epoch, which no state is carried into."""
        return Batch(super().batch(rows, epochs), first=torch.tensor(int(rows[0]) % self.steps == 0))

    def order(self, seed: int, epoch: int, batch: int) -> np.ndarray:
        """Row `step * streams + s` of this order is stream s at that step."""
        return (np.arange(self.steps)[:, None] + np.arange(self.streams) * self.steps).flatten()


class TensorRows(Rows):
    """The rows of a tensor of ids, (N, T + 1), as `next_token` takes them."""

    def __init__(self, rows: Tensor):
        self.rows = rows

    @property
    def identity(self) -> Mapping[str, str]:  # pyrefly: ignore[bad-override]
        return {"content": hash_json([list(self.rows.shape), str(self.rows.dtype), self.rows.tolist()])}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        return next_token(self.rows[torch.from_numpy(rows)])


def collate(examples: Sequence[Mapping[str, Any]]) -> Batch:
    """Examples of unlike length as a batch: each maps a name to ids, to a number, or to numbers.

    Sequences are padded on the right, `labels` with IGNORE and all else with 0. The batch gets `lengths` (B,) of "ids",
    and NAME_lengths of every other padded sequence but labels.
    """
    made = Batch()
    for name, first in examples[0].items():
        values = [example[name] for example in examples]
        if not isinstance(first, Sequence | np.ndarray):
            made[name] = torch.tensor(values)
            continue
        width, fill = max(len(value) for value in values), IGNORE if name.endswith("labels") else 0
        made[name] = torch.tensor([[*value, *[fill] * (width - len(value))] for value in values])
        if fill == 0:
            key = "lengths" if name == "ids" else f"{name}_lengths"
            made[key] = torch.tensor([len(value) for value in values])
    return made


class ExampleRows(Rows):
    """Examples of unlike length, as `collate` takes them, in batches of like length.

    `long` names the sequence whose length decides which go together.
    """

    def __init__(self, examples: Sequence[Mapping[str, Any]], identity: Mapping[str, str], long: str = "ids"):
        if not examples:
            raise InputError("no examples", then="add some")
        self.examples, self.identity, self.long = examples, identity, long

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        return collate([self.examples[row] for row in rows])

    def order(self, seed: int, epoch: int, batch: int) -> np.ndarray:
        """Shuffled, then sorted by length within stretches of BUCKET batches, whose batches are shuffled again."""
        rng, shuffled = np.random.default_rng([seed, epoch]), order(len(self), seed, epoch)
        lengths = np.array([len(self.examples[row][self.long]) for row in shuffled])
        batches = []
        for start in range(0, len(shuffled), BUCKET * batch):
            stretch = slice(start, start + BUCKET * batch)
            by_length = shuffled[stretch][np.argsort(lengths[stretch], kind="stable")]
            whole = [by_length[i : i + batch] for i in range(0, len(by_length), batch)]
            batches += [whole[i] for i in rng.permutation(len(whole))]
        return np.concatenate(batches)


class Draw:
    """Which rows each micro-step of each update takes; it has no state but a cache, so resuming needs only the step."""

    def __init__(self, data: Rows, batch: int, accumulate: int, seed: int):
        self.data, self.batch, self.accumulate, self.seed = data, batch, accumulate, seed
        self.epochs: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`accumulate` times `batch` rows, and the epoch of each, for update `step` (from 1).

        Rows run on over the end of an epoch.
        """
        first = (step - 1) * self.batch * self.accumulate
        for start in range(first, first + self.batch * self.accumulate, self.batch):
            epochs, places = np.divmod(np.arange(start, start + self.batch), len(self.data))
            yield np.array([self._epoch(e)[p] for e, p in zip(epochs, places, strict=True)]), epochs

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self.epochs:
            self.epochs = {k: v for k, v in self.epochs.items() if k == epoch - 1}
            self.epochs[epoch] = self.data.order(self.seed, epoch, self.batch)
        return self.epochs[epoch]
