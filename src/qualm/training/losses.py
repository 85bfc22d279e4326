"""Losses: (model, batch) in, the summed nats and the number of targets out, so that any split of a batch adds up."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.corpus.packing import Packed
from qualm.errors import UsageError
from qualm.models._recurrent import RecurrentCache
from qualm.models.base import Causal, Decoder, Encoder, EncoderDecoder
from qualm.training.data import IGNORE, Batch, TokenRows
from qualm.training.head import causal_nats, cross_entropy

Loss = Callable[[Any, Batch], tuple[Tensor, int]]


@runtime_checkable
class Remembers(Protocol):
    """A loss that keeps something from batch to batch, which a checkpoint must hold."""

    def tensors(self) -> Mapping[str, Tensor]: ...
    def restore(self, model: Any, tensors: Mapping[str, Tensor]) -> None: ...


def counted(labels: Tensor) -> int:
    return labels.numel() - int((labels == IGNORE).sum())


def causal(model: Causal, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Next-token loss: nats summed over `labels` (B, T) that are not IGNORE. Smoothing as in `Seq2Seq`."""
    apart: Any = {"documents": batch["documents"]} if "documents" in batch else {}
    hidden = model.hidden(batch["ids"], **apart)  # (B, T, D)
    return causal_nats(model, hidden, batch["labels"], smoothing), counted(batch["labels"])


class Carried:
    """The causal loss of a recurrent model, whose state is carried from batch to batch and cut from the gradient there:
    truncated back-propagation through time (Williams and Peng 1990).

    Give it `data.StreamRows`; a batch that opens an epoch (`first`) starts from an empty state.
    """

    def __init__(self) -> None:
        self.cache: RecurrentCache | None = None

    def __call__(self, model: Decoder, batch: Batch) -> tuple[Tensor, int]:
        if self.cache is None or bool(batch["first"]):
            self.cache = _empty(model, len(batch["ids"]))
        hidden = model.hidden(batch["ids"], self.cache)  # (B, T, D)
        self.cache.detach()
        return causal_nats(model, hidden, batch["labels"]), counted(batch["labels"])

    def tensors(self) -> Mapping[str, Tensor]:
        return {f"carried.{i}": part for i, part in enumerate(self.cache.state)} if self.cache else {}

    def restore(self, model: Decoder, tensors: Mapping[str, Tensor]) -> None:
        parts = [tensors[name] for name in sorted(tensors) if name.startswith("carried.")]
        if parts:
            self.cache = _empty(model, parts[0].shape[1])
            self.cache.state = tuple(p.to(old.device) for p, old in zip(parts, self.cache.state, strict=True))


def _empty(model: Decoder, batch: int) -> RecurrentCache:
    cache = model.new_cache(batch, 0)
    if not isinstance(cache, RecurrentCache):
        raise UsageError(f"a {model.config.model_type} model has no state to carry", then="train it without")
    return cache


def masked(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Masked-token loss (Devlin et al. 2018, arXiv 1810.04805): only places with a label are put through the head."""
    hidden = model.hidden(batch["ids"], batch.get("lengths"))  # (B, T, D)
    wanted = batch["labels"] != IGNORE
    return cross_entropy(model.head, hidden[wanted], batch["labels"][wanted]), int(wanted.sum())


class Seq2Seq:
    """Loss of `labels` (B, T) under the source `ids` (B, S), the decoder being shown the labels one place later.

    `smoothing` of the target's probability is spread over the vocabulary (Szegedy et al. 2015, arXiv 1512.00567).
    """

    def __init__(self, smoothing: float = 0.0):
        self.smoothing = smoothing

    def __call__(self, model: EncoderDecoder, batch: Batch) -> tuple[Tensor, int]:
        labels = batch["labels"]
        start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
        ids = torch.cat((start, labels[:, :-1].clamp(min=0)), 1)  # (B, T)
        hidden = model.hidden(ids, model.encode(batch["ids"], batch.get("lengths"), ids.shape[1]))
        return causal_nats(model, hidden, labels, self.smoothing), counted(labels)


def classified(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Of one label a text, `labels` (B,) long, or of several, (B, labels) of 0 and 1."""
    logits = model(batch["ids"], batch.get("lengths"), batch.get("segments"))  # (B, labels)
    labels = batch["labels"]
    if labels.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum"), labels.numel()
    return F.cross_entropy(logits, labels, reduction="sum"), len(labels)


def tagged(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Of one label a token, `labels` (B, T), IGNORE where there is none."""
    logits = model(batch["ids"], batch.get("lengths"))  # (B, T, labels)
    labels = batch["labels"]
    summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    return summed, counted(labels)


def spanned(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Of the answer's first and last place, `starts` and `stops` (B,), among the places that count."""
    logits = model(batch["ids"], batch.get("lengths"), batch.get("segments"))  # (B, T, 2)
    padding = torch.arange(logits.shape[1], device=logits.device) >= batch["lengths"][:, None]
    first, last = logits.masked_fill(padding[..., None], -torch.inf).unbind(-1)
    at_start = F.cross_entropy(first, batch["starts"], reduction="sum")
    return at_start + F.cross_entropy(last, batch["stops"], reduction="sum"), 2 * len(logits)


@torch.inference_mode()
def total_nats(model: Any, packed: Packed, length: int, batch: int = 16, apart: bool = False) -> float:
    """Nats of all tokens of the packed documents, read in rows of `length`, summed in float64.

    The model is read in evaluation mode and left in the mode it was in.
    """
    rows, training = TokenRows(packed, length, apart), model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        starts = range(0, len(rows), batch)
        groups = (np.arange(start, min(start + batch, len(rows))) for start in starts)
        return math.fsum(float(causal(model, rows.batch(group, group).to(device))[0].double()) for group in groups)
    finally:
        model.train(training)


def bits_per_byte(model: Any, packed: Packed, length: int, batch: int = 16, apart: bool = False) -> float:
    """Bits a UTF-8 byte of the packed documents; end tokens and template cost bits and count no bytes."""
    return total_nats(model, packed, length, batch, apart) / math.log(2) / packed.bytes
