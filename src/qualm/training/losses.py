"""Losses: (model, batch) in, the summed nats and the number of targets out, so that any split of a batch adds up."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.errors import UsageError
from qualm.models._recurrent import RecurrentCache
from qualm.models.base import Causal, Decoder, Encoder, EncoderDecoder
from qualm.training.data import IGNORE, Batch
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


def head_logits(model: Encoder, batch: Batch) -> Tensor:
    """What a model with a head says of each text, (B, L), or of each token, (B, T, L)."""
    return model(batch["ids"], batch.get("lengths"), batch.get("segments"))  # type: ignore[no-any-return]


def label_nats(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Of one label each, as a long one less dimension than `logits` (..., L), IGNORE where there is none, or of several
    each, as 0 and 1 for every logit.
    """
    if labels.dim() == logits.dim():
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum"), labels.numel()
    flat = logits.flatten(0, -2)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORE, reduction="sum"), counted(labels)


def labels_right(logits: Tensor, labels: Tensor) -> int:
    """How many of the targets of `label_nats` are told right."""
    if labels.dim() == logits.dim():
        return int(((logits > 0) == (labels > 0)).sum())
    return int((logits.argmax(-1) == labels).sum())  # none is IGNORE


def labelled(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Of labels a text or a token, as `label_nats`."""
    return label_nats(head_logits(model, batch), batch["labels"])


def spanned(model: Encoder, batch: Batch) -> tuple[Tensor, int]:
    """Of the answer's first and last place, `starts` and `stops` (B,), among the places that count."""
    logits = head_logits(model, batch)  # (B, T, 2)
    padding = torch.arange(logits.shape[1], device=logits.device) >= batch["lengths"][:, None]
    first, last = logits.masked_fill(padding[..., None], -torch.inf).unbind(-1)
    at_start = F.cross_entropy(first, batch["starts"], reduction="sum")
    return at_start + F.cross_entropy(last, batch["stops"], reduction="sum"), 2 * len(logits)
