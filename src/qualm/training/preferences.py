"""Preferences: of two answers to a prompt the better one is to gain on the other, measured from where the model began.

DPO (Rafailov et al. 2023, arXiv 2305.18290) and IPO (Azar et al. 2023, arXiv 2310.12036). What the model says of each
answer before training is read once and kept with the rows, so no second model is held.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qualm.corpus.records import Record, records_hash
from qualm.errors import InputError
from qualm.files import hash_json
from qualm.models.base import Causal, Decoder
from qualm.models.store import read_tensors, write_tensors
from qualm.training.data import IGNORE, Batch, ExampleRows
from qualm.training.head import CHUNK, Head
from qualm.training.lessons import Example, Lesson, messages_of, next_of
from qualm.training.losses import Loss
from qualm.training.objectives import READ
from qualm.training.state import hash_weights

T = TypeVar("T")
HELD = 2**24  # log-probabilities of the start that are held to read the divergence by: 64 MB


def log_likelihoods(model: Causal, ids: Tensor, labels: Tensor) -> Tensor:
    """Nats (B,) of the labels (B, T) that are not IGNORE, after ids (B, T); logits are held a few rows at a time."""
    hidden = model.hidden(ids)  # (B, T, D)
    rows, places = (labels != IGNORE).nonzero(as_tuple=True)
    parts = zip(hidden[rows, places].split(CHUNK), labels[rows, places].split(CHUNK), strict=True)
    found = [_chunk(model.head, *part) for part in parts]
    return hidden.new_zeros(len(ids), dtype=torch.float32).index_add(0, rows, torch.cat(found))


def _chunk(head: Head, hidden: Tensor, labels: Tensor) -> Tensor:
    """Computed again on the way back, so that its logits are not kept."""
    if not torch.is_grad_enabled():
        return _said(head, hidden, labels)
    return checkpoint(_said, head, hidden, labels, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]


def _said(head: Head, hidden: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden).float(), labels, reduction="none")


def likelihoods(model: Causal, batch: Batch) -> tuple[Tensor, Tensor]:
    """Nats (B,) of the chosen answers, and of the rejected ones."""
    chosen = log_likelihoods(model, batch["ids"], batch["labels"])
    return chosen, log_likelihoods(model, batch["rejected"], batch["rejected_labels"])


def margins(model: Causal, batch: Batch) -> Tensor:
    """By how many nats (B,) the chosen answer gained more than the rejected one since the start."""
    chosen, rejected = likelihoods(model, batch)
    return (chosen - batch["chosen_before"]) - (rejected - batch["rejected_before"])


def preference_loss(margin: Tensor, kind: str, beta: float) -> Tensor:
    """Of each margin (B,), in nats. dpo: -log sigmoid(beta * margin); ipo: (margin - 1 / (2 beta))^2."""
    if kind == "ipo":
        return (margin - 1 / (2 * beta)) ** 2
    return -F.logsigmoid(beta * margin)


class Preferred:
    """The loss of pairs of answers, summed, and how many pairs."""

    def __init__(self, kind: str, beta: float):
        self.kind, self.beta = kind, beta

    def __call__(self, model: Causal, batch: Batch) -> tuple[Tensor, int]:
        return preference_loss(margins(model, batch), self.kind, self.beta).sum(), len(batch["ids"])


class Prefer(Lesson):
    """A `prompt`, a text or messages, with an answer `chosen` and one `rejected`."""

    of = (Decoder,)
    before: Sequence[Tensor] = ()

    def example(self, record: Record) -> Example:
        chosen, rejected = record.text("chosen"), record.text("rejected")
        if chosen == rejected:
            raise InputError("chosen and rejected are the same", where=record.where, then="drop the row")
        better, worse = (self._answered(record, answer) for answer in (chosen, rejected))
        return {**better, "rejected": worse["ids"], "rejected_labels": worse["labels"]}

    def _answered(self, record: Record, answer: str) -> Example:
        if isinstance(record.get("prompt"), list):
            messages = record.take("prompt", messages_of, "a text or a list of messages with a role and a content")
            ids, said = self.tokens.encode_turns([*messages, {"role": "assistant", "content": answer}])
            last = len(said) - said[::-1].index(True) if True in said else 0
            first = next((i + 1 for i in range(last - 1, -1, -1) if not said[i]), 0)
            learnt = [first <= i < last for i in range(len(ids))]
        else:
            ids, first = self.tokens.encode_pair(record.text("prompt"), answer)
            ids = [*ids, *([] if self.tokens.eos_id is None else [self.tokens.eos_id])]
            learnt = [i >= first for i in range(len(ids))]
        if not any(learnt[: self.length + 1]):
            raise InputError(f"the prompt leaves no room in {self.length} tokens", where=record.where, then="cut it")
        return next_of(self.shortened(ids, self.length + 1), learnt)

    def examples(self, records: Sequence[Record], model: Any, folder: Path) -> list[Example]:
        """With what the model says of both answers now, read once and kept in `folder`."""
        made = super().examples(records, model, folder)
        name = hash_json([records_hash(records), hash_weights(model), self.length])
        path = folder / f"before-{name}.safetensors"
        if not path.exists():
            found = each(model, ExampleRows(made, {}), likelihoods)
            chosen, rejected = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
            write_tensors(path, {"chosen": chosen, "rejected": rejected})
        kept = read_tensors(path)
        before = zip(kept["chosen"].tolist(), kept["rejected"].tolist(), strict=True)
        return [
            {**example, "chosen_before": chosen, "rejected_before": rejected}
            for example, (chosen, rejected) in zip(made, before, strict=True)
        ]

    def loss(self, model: Any) -> Loss:
        return Preferred(self.wanted.preference, self.wanted.beta)

    def begin(self, model: Any, rows: ExampleRows) -> None:
        """Keep the whole distributions at the first chosen answers' places, as far as they fit."""
        room = max(1, HELD // model.config.vocab_size)

        def some(model: Any, batch: Batch) -> Tensor:
            nonlocal room
            found = distributions(model, batch)[:room]
            room -= len(found)
            return found

        self.before = each(model, rows, some, lambda: room > 0)

    def read(self, model: Any, rows: ExampleRows, loss: Loss) -> Mapping[str, float]:
        """`margin` in nats, `accuracy`: the share of pairs whose margin is above 0, and `kl`: how far the model went
        from where it began, in nats a token, KL(now || before) over the whole vocabulary at the places of held-out
        chosen answers.
        """
        found = torch.cat(each(model, rows, margins)).double()
        losses = preference_loss(found, self.wanted.preference, self.wanted.beta)
        return {
            "loss": float(losses.mean()),
            "margin": float(found.mean()),
            "accuracy": float((found > 0).double().mean()),
            "kl": self.divergence(model, rows),
        }

    def divergence(self, model: Any, rows: ExampleRows) -> float:
        """KL(now || before), nats a token."""
        left = list(self.before)

        def some(model: Any, batch: Batch) -> Tensor:
            before = left.pop(0)
            now = distributions(model, batch)[: len(before)]
            return (now.exp() * (now - before)).sum(1).double()

        return float(torch.cat(each(model, rows, some, lambda: bool(left))).mean())


def distributions(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities (N, V) at the places of the chosen answers."""
    hidden = model.hidden(batch["ids"])[batch["labels"] != IGNORE]
    return F.log_softmax(model.head(hidden).float(), -1)


def each(
    model: nn.Module, rows: ExampleRows, read: Callable[[Any, Batch], T], more: Callable[[], bool] = lambda: True
) -> list[T]:
    """What `read` makes of the batches of all rows in order, the model in evaluation mode, as long as `more` is so."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    found = []
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), READ):
                if more():
                    group = np.arange(start, min(start + READ, len(rows)))
                    found.append(read(model, rows.batch(group, np.zeros_like(group)).to(device)))
    finally:
        model.train(training)
    return found
