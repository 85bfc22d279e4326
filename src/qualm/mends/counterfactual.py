"""Counterfactual data augmentation: training on documents and their gender-swapped twins, with replay.

Mends bias (Zhao et al. 2018, arXiv 1804.06876; Lu et al. 2018, arXiv 1807.11714). Both sides are swapped, so that a
document and its twin together say nothing of who does what; neutral documents are replayed beside them, because
training on gendered text alone closes the gap by forgetting everything else. The weights change and nothing else, so
the mended model is a plain checkpoint.
Misses: bias in words that have no counterpart in `qualm.text.swap`, such as personal names.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from qualm.corpus.documents import Document, read
from qualm.corpus.packing import Packed
from qualm.errors import InputError, Unsupported, UsageError
from qualm.lm.base import LM
from qualm.mends._weights import local
from qualm.mends.base import Mend
from qualm.models.base import Decoder
from qualm.models.layers import left_float
from qualm.text.swap import swap
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import TokenRows
from qualm.training.loop import fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings


@dataclass(frozen=True)
class Counterfactual(Mend):
    """`steps` updates of `batch` rows of `length` tokens at the rate `lr`, on text from `docs`.

    The share `replay` of the documents trained on are neutral ones. What the model was trained on is the best `docs`:
    other text teaches its own odds and style besides.
    """

    docs: Path
    steps: int = 80
    lr: float = 3e-4
    batch: int = 12
    length: int = 128
    replay: float = 0.75
    seed: int = 0

    mends: ClassVar[frozenset[str]] = frozenset({"bias"})
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.length) < 1 or not 0 <= self.replay < 1 or self.lr <= 0:
            raise UsageError(
                "steps, batch and length must be at least 1, lr above 0, replay from 0 to below 1",
                where="Counterfactual",
            )

    def __call__(self, lm: LM) -> LM:
        base = local(lm, Decoder, "it trains on plain text, as only a decoder is trained")
        if left_float(base.model) is not None:
            raise Unsupported(f"the weights of {base.name} are in 8 bits", then="apply it first, quantize then")
        text, length = self._text(list(read(self.docs)), base.tokens, base.context)
        rows = TokenRows(text, length, apart=base.model.keeps_apart)
        model = copy.deepcopy(base.model)
        settings = TrainSettings(
            steps=self.steps, lr=self.lr, batch=self.batch, schedule="linear", min_lr=0.0, seed=self.seed
        )
        fit(model, rows, causal, settings)
        return base.replace(model.eval(), repr(self))

    def _text(self, documents: Sequence[Document], tokens: Tokens, context: int) -> tuple[Packed, int]:
        """As much text as is trained on, each document ended by an end token, and the tokens of a row."""
        end = tokens.eos_id
        if end is None:
            raise InputError("the tokenizer has no end token", where=tokens.where, then="name one as eos_token")
        count, length, ids, ends = self.steps * self.batch, min(self.length, context), [end], []
        for document in self._mixture(documents):
            ids += [*encode(document, tokens), end]
            ends.append(len(ids))
            if len(ids) > count * length:
                break
        kept = np.array(ids[: count * length + 1])
        return Packed(kept, np.array(ends), np.zeros(len(ends), np.int64), {"documents": "counterfactual"}), length

    def _mixture(self, documents: Sequence[Document]) -> Iterator[Document]:
        """Without end: a gendered document and its twin, and neutral ones in the share `replay`; seeded."""
        rng = random.Random(f"{self.seed}/counterfactual")
        twins = [(document, twin) for document in documents if (twin := swapped(document))]
        gendered = {document.id for document, _ in twins}
        neutral = [document for document in documents if document.id not in gendered]
        if not twins:
            raise InputError("no document has a gendered word", where=str(self.docs), then="name other text")
        if self.replay and not neutral:
            raise InputError("no document is free of gendered words", where=str(self.docs), then="set replay=0")
        while True:
            if rng.random() < 2 * self.replay / (1 + self.replay):  # a pair is two documents
                yield rng.choice(neutral)
            else:
                yield from rng.choice(twins)


def swapped(document: Document) -> Document | None:
    """The document with its gendered words exchanged in every message; None if it has none."""
    contents = document.contents
    twins = [swap(content) for content in contents]
    if not any(twins):
        return None
    new = [twin or content for twin, content in zip(twins, contents, strict=True)]
    messages = [{**m, "content": content} for m, content in zip(document.messages, new, strict=False)]
    return Document(f"{document.id}/swapped", "" if messages else new[0], tuple(messages), document.source)


def encode(document: Document, tokens: Tokens) -> list[int]:
    """The ids of a document without the end tokens around it."""
    ends = {tokens.eos_id, tokens.bos_id}
    ids = (
        tokens.encode_prompt(document.messages, generation=False) if document.messages else tokens.encode(document.text)
    )
    start, stop = int(ids[:1] != [] and ids[0] in ends), len(ids)
    return ids[start : stop - int(stop > start and ids[-1] in ends)]
