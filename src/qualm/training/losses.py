"""Losses: (model, batch) in, the summed nats and the number of targets out, so that any split of a batch adds up."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.corpus.packing import Packed
from qualm.training.data import IGNORE, TokenRows

Loss = Callable[[nn.Module, Tensor], tuple[Tensor, int]]


def causal(model: nn.Module, batch: Tensor) -> tuple[Tensor, int]:
    """Next-token loss of rows (B, T + 1), whose tail may be filled with IGNORE: nats summed, targets counted."""
    targets = batch[:, 1:].flatten()  # (B * T,)
    count = targets.numel() - int((targets == IGNORE).sum())
    logits = model(batch[:, :-1].clamp(min=0))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum"), count


@torch.inference_mode()
def total_nats(model: nn.Module, packed: Packed, length: int, batch: int = 16) -> float:
    """Nats of all tokens of the packed documents, read in rows of `length`, summed in float64.

    The model is read in evaluation mode and left in the mode it was in.
    """
    rows, training = TokenRows(packed, length), model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        starts = range(0, len(rows), batch)
        groups = (np.arange(start, min(start + batch, len(rows))) for start in starts)
        return math.fsum(float(causal(model, rows[group].to(device))[0].double()) for group in groups)
    finally:
        model.train(training)


def bits_per_byte(model: nn.Module, packed: Packed, length: int, batch: int = 16) -> float:
    """Bits a UTF-8 byte of the packed documents; end tokens and template cost bits and count no bytes."""
    return total_nats(model, packed, length, batch) / math.log(2) / packed.bytes
