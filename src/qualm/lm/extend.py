"""Give a model new words: tokenizer, config and weights grow together.

A new token's rows (its embedding, and what the head says of it) are the mean of its old pieces' rows. Near the mean of
what is there a new row leaves the model's predictions about as they were, where a random one may take them over (Hewitt
2021, "Initializing New Word Embeddings for Pretrained Language Models"); the mean over a token's own pieces says
besides what it is about (Gee et al. 2022, "Fast Vocabulary Transfer", arXiv 2402.09977). Training has to follow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from qualm.errors import Unsupported
from qualm.lm.base import LM, PSEUDO
from qualm.lm.export import with_weights
from qualm.lm.local import Local
from qualm.models.base import Config, Model
from qualm.models.layers import left_float
from qualm.tokens.extend import Extended, extend

SIZES = ("vocab_size", "decoder_vocab_size")  # keys of a config that say how many rows there are


@dataclass(frozen=True)
class Change:
    """What a larger vocabulary did to a held-out text; `why` says why bits per byte are None."""

    name: str
    bytes: int
    tokens_before: int
    tokens_after: int
    before: float | None
    after: float | None
    why: str = ""


def extend_model(lm: LM, words: Sequence[str]) -> tuple[Local, Extended]:
    """The model with these words as tokens, and which ids they got. `lm` is left as it was.

    Raises Unsupported if there are no weights here or they are in 8 bits, and all that `qualm.tokens.extend` raises.
    """
    local = with_weights(lm)
    if left_float(local.model) is not None:
        raise Unsupported(f"the weights of {lm.name} are in 8 bits", then="extend the model first, quantize it then")
    extended = extend(local.tokens, words)
    model = grown(local.model, extended.tokens.vocab_size, extended.pieces)
    about = {**local.about, "extended": [*local.about.get("extended", ()), *extended.words]}
    return type(local)(model, extended.tokens, name=local.name, about=about), extended


@torch.no_grad()
def grown(model: Model, size: int, pieces: Mapping[int, Sequence[int]]) -> Model:
    """The same with a vocabulary of at least `size`; row i of everything that has a row a token is, for i in `pieces`,
    the mean of these rows. Other tensors are shared with `model`.
    """
    config: Config = model.config
    with torch.device("meta"):
        made = type(model)(resized(config, size))
        larger = type(model)(resized(config, max(size, config.vocab_size) + 1)).state_dict()  # type: ignore[attr-defined]
    state = {}
    for name, tensor in model.state_dict().items():
        unlike = [at for at, (a, b) in enumerate(zip(tensor.shape, larger[name].shape, strict=True)) if a != b]
        rows = made.state_dict()[name].shape[unlike[0]] if unlike else 0
        state[name] = with_rows(tensor, unlike[0], rows, pieces) if unlike else tensor
    made.load_state_dict(state, assign=True)
    made.tie()
    return made.eval()


def resized(config: Config, size: int) -> Config:
    named = (field.name for field in fields(config) if field.name in SIZES)
    sizes: dict[str, Any] = {name: max(size, getattr(config, name)) for name in named}
    return replace(config, **sizes)


def with_rows(tensor: Tensor, along: int, count: int, pieces: Mapping[int, Sequence[int]]) -> Tensor:
    """The tensor with `count` rows along a dimension, of which those in `pieces` are the means of others."""
    old = tensor.movedim(along, 0)
    new = old.new_zeros((count, *old.shape[1:]))
    new[: len(old)] = old
    for row, ids in pieces.items():
        new[row] = old[list(ids)].float().mean(0)
    return new.movedim(0, along).contiguous()


def change(before: Local, after: Local, name: str, texts: Sequence[str]) -> Change:
    """Tokens and bits per byte of texts before and after; no training lies between."""
    size = sum(len(text.encode()) for text in texts)
    taken, then_taken = (sum(map(len, lm.tokens.encode_many(texts))) for lm in (before, after))
    why = "a pseudo-likelihood cannot be compared between vocabularies" if before.card.scoring == PSEUDO else ""
    why = why if "score" in before.can else "it gives no scores"
    bits = [None, None] if why else [bits_per_byte(lm, texts) for lm in (before, after)]
    return Change(name, size, taken, then_taken, bits[0], bits[1], why)


def bits_per_byte(lm: LM, texts: Sequence[str]) -> float:
    nats = sum(scored.total for scored in lm.score([("", text) for text in texts]))
    return -nats / math.log(2) / sum(len(text.encode()) for text in texts)
