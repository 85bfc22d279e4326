"""Reading held-out rows: a batch at a time, in order, the model in evaluation mode and left in the mode it was in."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from qualm.corpus.packing import Packed
from qualm.training.data import Batch, Rows, TokenRows
from qualm.training.losses import Loss, causal

T = TypeVar("T")
READ = 16  # rows at once


@torch.inference_mode()
def each(
    model: Any, rows: Rows, read: Callable[[Any, Batch], T], more: Callable[[], bool] = lambda: True, batch: int = READ
) -> list[T]:
    """What `read` makes of the batches of all rows, with the noise of epoch 0, as long as `more` is so."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    found = []
    try:
        for start in range(0, len(rows), batch):
            if more():
                group = np.arange(start, min(start + batch, len(rows)))
                found.append(read(model, rows.batch(group, np.zeros_like(group)).to(device)))
    finally:
        model.train(training)
    return found


def mean_nats(model: Any, rows: Rows, loss: Loss) -> float:
    """Nats a target of all rows."""
    parts = each(model, rows, loss)
    return math.fsum(float(nats) for nats, _ in parts) / max(1, sum(count for _, count in parts))


def total_nats(model: Any, packed: Packed, length: int, batch: int = READ, apart: bool = False) -> float:
    """Nats of all tokens of the packed documents, read in rows of `length`, summed in float64."""

    def nats(model: Any, batch: Batch) -> float:
        return float(causal(model, batch)[0].double())

    return math.fsum(each(model, TokenRows(packed, length, apart), nats, batch=batch))


def bits_per_byte(model: Any, packed: Packed, length: int, batch: int = READ, apart: bool = False) -> float:
    """Bits a UTF-8 byte of the packed documents; end tokens and template cost bits and count no bytes."""
    return total_nats(model, packed, length, batch, apart) / math.log(2) / packed.bytes
