"""Preferences: of two answers to a prompt the better one is to gain on the other, measured from where the model began.

DPO (Rafailov et al. 2023, arXiv 2305.18290), IPO (Azar et al. 2023, arXiv 2310.12036) and KTO (Ethayarajh et al. 2024,
arXiv 2402.01306). What the model says of each answer before training is read once and kept with the rows, so no second
model is held.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
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
from qualm.training.reading import each
from qualm.training.state import hash_weights

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


ANSWERS = {"chosen": "", "rejected": "rejected_", "other": "other_"}  # and how their columns in a batch begin


def likelihoods(model: Causal, batch: Batch) -> tuple[Tensor, ...]:
    """Nats (B,) of the chosen answers, of the rejected ones and, where the batch has them, of those of another row."""
    starts = [start for start in ANSWERS.values() if f"{start}labels" in batch]
    return tuple(log_likelihoods(model, batch[f"{start}ids"], batch[f"{start}labels"]) for start in starts)


def gains(model: Causal, batch: Batch) -> Tensor:
    """By how many nats each answer gained since the start, (B, 2) or (B, 3), in the order of `likelihoods`."""
    now = likelihoods(model, batch)
    return torch.stack([nats - batch[f"{name}_before"] for nats, name in zip(now, ANSWERS, strict=False)], 1)


def preference_loss(gained: Tensor, kind: str, beta: float) -> Tensor:
    """Of each pair (B,), from what its answers gained (B, 2 or more) and, for kto, those of another row (column 2).

    With the margin chosen - rejected, dpo: -log sigmoid(beta * margin); ipo: (margin - 1 / (2 beta))^2. kto asks no
    pairs: the mean of 1 - sigmoid(beta (chosen - z)) and 1 - sigmoid(beta (z - rejected)), where the point z that gain
    and loss are felt from is how far the model went, read off answers that do not belong to their prompts: their mean
    gain in these rows, at least 0, through which no gradient goes (section 4.1 of that paper, both weights 1).
    """
    chosen, rejected = gained[:, 0], gained[:, 1]
    if kind == "kto":
        z = gained[:, 2].detach().mean().clamp(min=0)
        return (torch.sigmoid(beta * (z - chosen)) + torch.sigmoid(beta * (rejected - z))) / 2
    if kind == "ipo":
        return (chosen - rejected - 1 / (2 * beta)) ** 2
    return -F.logsigmoid(beta * (chosen - rejected))


class Preferred:
    """The loss of pairs of answers, summed, and how many pairs."""

    def __init__(self, kind: str, beta: float):
        self.kind, self.beta = kind, beta

    def __call__(self, model: Causal, batch: Batch) -> tuple[Tensor, int]:
        return preference_loss(gains(model, batch), self.kind, self.beta).sum(), len(batch["ids"])


class Prefer(Lesson):
    """A `prompt`, a text or messages, with an answer `chosen` and one `rejected`."""

    of = (Decoder,)
    before: Sequence[Tensor] = ()

    def example(self, record: Record) -> Example:
        chosen, rejected = record.text("chosen"), record.text("rejected")
        if chosen == rejected:
            raise InputError("chosen and rejected are the same", where=record.where, then="drop the row")
        better, worse = (self._answered(record, answer) for answer in (chosen, rejected))
        return {**better, "rejected_ids": worse["ids"], "rejected_labels": worse["labels"]}

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
        if self.wanted.preference == "kto":
            made = [{**one, **self._other(record, other)} for one, record, other in _followed(made, records)]
        name = hash_json([records_hash(records), hash_weights(model), self.length, "other_ids" in made[0]])
        path = folder / f"before-{name}.safetensors"
        if not path.exists():
            found = each(model, ExampleRows(made, {}), likelihoods)
            read = [torch.cat(parts).cpu() for parts in zip(*found, strict=True)]
            write_tensors(path, dict(zip(ANSWERS, read, strict=False)))
        kept = {f"{name}_before": values.tolist() for name, values in read_tensors(path).items()}
        return [{**example, **{name: kept[name][i] for name in kept}} for i, example in enumerate(made)]

    def _other(self, record: Record, other: Record) -> Example:
        """The answer of another row, which says nothing of this one's prompt."""
        found = self._answered(record, other.text("chosen"))
        return {"other_ids": found["ids"], "other_labels": found["labels"]}

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
        found = torch.cat(each(model, rows, gains)).double()
        losses, margin = preference_loss(found, self.wanted.preference, self.wanted.beta), found[:, 0] - found[:, 1]
        return {
            "loss": float(losses.mean()),
            "margin": float(margin.mean()),
            "accuracy": float((margin > 0).double().mean()),
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


def _followed(examples: Sequence[Example], records: Sequence[Record]) -> Iterator[tuple[Example, Record, Record]]:
    """Each example, its record and the next one's; after the last comes the first."""
    return zip(examples, records, [*records[1:], records[0]], strict=True)


def distributions(model: Any, batch: Batch) -> Tensor:
    """Log-probabilities (N, V) at the places of the chosen answers."""
    hidden = model.hidden(batch["ids"])[batch["labels"] != IGNORE]
    return F.log_softmax(model.head(hidden).float(), -1)
