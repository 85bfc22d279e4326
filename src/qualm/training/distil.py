"""Distillation: a student learns what a teacher says of every token of the vocabulary, not only which one came.

Hinton et al. 2015 (arXiv 1503.02531). Both must have the same tokenizer, so that a place means the same token.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.errors import InputError, UsageError
from qualm.models.base import Decoder
from qualm.models.store import load_model
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import IGNORE, Batch
from qualm.training.head import summed
from qualm.training.losses import counted


class Distilled:
    """mix * T^2 * KL(teacher || student), both at temperature T, and (1 - mix) of the labels' loss: nats, summed over
    `labels` (B, T) that are not IGNORE.
    """

    def __init__(self, teacher: Decoder, temperature: float, mix: float):
        self.teacher, self.temperature, self.mix = teacher.eval().requires_grad_(False), temperature, mix

    def __call__(self, model: Decoder, batch: Batch) -> tuple[Tensor, int]:
        wanted = batch["labels"] != IGNORE
        with torch.no_grad():
            known = self._hidden(self.teacher.to(batch["ids"].device), batch)[wanted]  # (N, D of the teacher)
        rows = self._hidden(model, batch)[wanted]  # (N, D)
        return summed(model.head, rows, self._nats, batch["labels"][wanted], known), counted(batch["labels"])

    def _hidden(self, model: Decoder, batch: Batch) -> Tensor:
        apart: Any = {"documents": batch["documents"]} if "documents" in batch and model.keeps_apart else {}
        return model.hidden(batch["ids"], **apart)

    def _nats(self, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        with torch.no_grad():  # a teacher's table may be filled up beyond the tokenizer's ids
            aim = F.softmax(self.teacher.head(known).float()[:, : logits.shape[1]] / self.temperature, -1)
        said = F.log_softmax(logits / self.temperature, -1)
        soft = F.kl_div(said, aim, reduction="sum") * self.temperature**2
        return self.mix * soft + (1 - self.mix) * F.cross_entropy(logits, labels, reduction="sum")


def read_teacher(folder: Path, tokens: Tokens, length: int) -> Decoder:
    """The teacher in a model folder. Raises UsageError if it is no decoder, or cannot look at `length` tokens, and
    InputError, naming both, if it cuts text into other tokens than the student.
    """
    own = Tokens.load(folder)
    if own.hash != tokens.hash:
        raise InputError(
            f"the teacher's tokenizer ({own.vocab_size} tokens, {own.hash[:12]}) is not the student's, {tokens.where} "
            f"({tokens.vocab_size} tokens, {tokens.hash[:12]}): what one says of its tokens means nothing for others",
            where=str(folder),
            then="leave --tokenizer out: the teacher's is used then",
        )
    teacher = load_model(folder)
    if not isinstance(teacher, Decoder):
        kind = teacher.config.model_type
        raise UsageError(f"a {kind} model does not say which token comes next", where=str(folder), then="name another")
    if teacher.config.context < length:
        then = f"say --length {teacher.config.context}"
        raise UsageError(f"the teacher can look at {teacher.config.context} tokens", where=str(folder), then=then)
    return teacher
