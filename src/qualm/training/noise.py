"""What is hidden from a model so that it learns to fill it in: a function of seed, epoch and row alone."""

import random
from abc import abstractmethod
from collections.abc import Collection, Sequence

import numpy as np
import torch

from qualm.corpus.packing import Packed
from qualm.errors import InputError, UsageError
from qualm.tokens.dropout import Splitter
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import IGNORE, Batch, Rows, TokenRows, collate

SENTINELS = tuple(f"<extra_id_{i}>" for i in range(100))  # as T5's tokenizers call them

SHOWN, RANDOM = 0.1, 0.1  # of those: left as they are, replaced by any other
SPAN = 3.0  # tokens of a hidden span, on average


def mask(
    ids: np.ndarray, rng: np.random.Generator, marker: int, vocab: int, kept: Collection[int], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (T,) as the model sees them, and labels (T,): what stood there at the places to fill in, else IGNORE.

    A share of the tokens, of which 80 % become `marker`, 10 % another token and 10 % stay (Devlin et al. 2018, arXiv
    1810.04805, section 3.1), drawn anew each time (Liu et al. 2019, arXiv 1907.11692). Those in `kept` are left
    alone; at least one of the others is drawn.
    """
    free = np.flatnonzero(~np.isin(ids, list(kept)))
    shown, labels = ids.copy(), np.full_like(ids, IGNORE)
    if not len(free):
        return shown, labels
    drawn = free[rng.random(len(free)) < share]
    drawn = drawn if len(drawn) else free[rng.integers(len(free), size=1)]
    labels[drawn] = ids[drawn]
    fate = rng.random(len(drawn))
    shown[drawn[fate >= SHOWN]] = marker
    other = drawn[(fate >= SHOWN) & (fate < SHOWN + RANDOM)]
    shown[other] = rng.integers(vocab, size=len(other))
    return shown, labels


def hide_spans(
    ids: np.ndarray, rng: np.random.Generator, markers: Sequence[int], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (T,) with spans replaced by one marker each, and the spans, each after its marker.

    A share of the tokens in spans of 3 on average (Raffel et al. 2019, arXiv 1910.10683, section 3.3.4), as many spans
    as there are markers at most.
    """
    hidden = min(max(1, round(share * len(ids))), len(ids) - 1)
    if hidden < 1:
        return ids, ids[:0]
    spans = min(max(1, round(hidden / SPAN)), len(markers), hidden, len(ids) - hidden)
    lengths, gaps = _parts(hidden, spans, rng), _parts(len(ids) - hidden, spans, rng)
    source: list[int] = []
    target: list[int] = []
    at = 0
    for marker, gap, length in zip(markers, gaps, lengths, strict=False):
        source += [*ids[at : at + gap], marker]
        target += [marker, *ids[at + gap : at + gap + length]]
        at += gap + length
    return np.array(source), np.array(target)


def _parts(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """A random cut of `total` into that many numbers of at least 1, (parts,)."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff([0, *cuts, total])


def goldfish(ids: np.ndarray, every: int, before: int = 13) -> np.ndarray:
    """Labels (T,): the ids, but for one in `every`, chosen by a hash of the `before` ids that stand before it.

    The same text has the same gaps wherever it stands, so it cannot be learnt by heart whole (Hans et al. 2024, arXiv
    2406.10209).
    """
    padded = np.concatenate((np.zeros(before, np.uint64), ids[:-1].astype(np.uint64)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, before)  # (T, before)
    factors = np.random.default_rng(0).integers(2**63, size=before, dtype=np.uint64) | np.uint64(1)
    hashed = (windows * factors).sum(1) >> np.uint64(33)  # multiply-shift (Dietzfelbinger et al. 1997)
    return np.where(hashed % np.uint64(every) == 0, IGNORE, ids)


class GoldfishRows(TokenRows):
    """Rows of tokens in which one in `every` has no label."""

    def __init__(self, packed: Packed, length: int, apart: bool, every: int):
        super().__init__(packed, length, apart)
        self.every, self.identity = every, {**self.identity, "goldfish": str(every)}

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        made = super().batch(rows, epochs)
        labels = np.stack([goldfish(row, self.every) for row in made["labels"].numpy()])
        return Batch(made, labels=torch.from_numpy(labels))


class ShakenRows(Rows):
    """Rows of which a share of the input ids is replaced by ids from anywhere in the text, so that a model does not
    lean on single tokens; what is to be predicted stays (unigram noising: Xie et al. 2017, arXiv 1703.02573).
    """

    def __init__(self, rows: TokenRows, share: float, seed: int):
        self.rows, self.share, self.seed = rows, share, seed
        self.bytes_per_target = rows.bytes_per_target
        self.identity = {**rows.identity, "shaken": str(share), "noise_seed": str(seed)}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        made, text = self.rows.batch(rows, epochs), self.rows.ids
        for i, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            rng = np.random.default_rng([self.seed, int(epoch), int(row)])
            places = np.flatnonzero(rng.random(self.rows.length) < self.share)
            drawn = text[rng.integers(len(text), size=len(places))].astype(np.int64)
            made["ids"][i, torch.from_numpy(places)] = torch.from_numpy(drawn)
        return made


class SplitRows(TokenRows):
    """Rows whose tokens are cut into smaller ones, otherwise in each epoch (BPE-dropout), so that a model knows words
    by more than one spelling. What is over at a row's end is left out; the first id, which is not told, stays whole.
    """

    def __init__(self, rows: TokenRows, split: Splitter, share: float, seed: int):
        self.rows, self.split, self.share, self.seed = rows, split, share, seed
        self.ids, self.length = rows.ids, rows.length
        self.bytes_per_target = 0.0  # there are more targets to as many bytes
        self.identity = {**rows.identity, "bpe_dropout": str(share), "split_seed": str(seed)}

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        made = self.rows.batch(rows, epochs)
        for i, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            rng = random.Random(f"{self.seed}/{epoch}/{row}")
            wanted = [label for label in made["labels"][i].tolist() if label != IGNORE]
            cut = [self.split(label, self.share, rng) for label in wanted]
            labels = torch.tensor([part for parts in cut for part in parts][: self.length])
            places = torch.arange(len(wanted)).repeat_interleave(torch.tensor([len(parts) for parts in cut]))
            made["labels"][i, : len(labels)] = labels
            made["ids"][i, 1 : len(labels)] = labels[:-1]
            if "documents" in made:
                made["documents"][i, : len(labels)] = made["documents"][i, places[: self.length]]
        return made


class NoisyRows(Rows):
    """Stretches of packed text, of which a share is hidden, anew in each row and epoch."""

    def __init__(self, packed: Packed, tokens: Tokens, length: int, share: float, seed: int):
        if packed.tokens < 2:
            raise InputError("no text to hide tokens of", then="add text")
        self.packed, self.tokens, self.share, self.seed = packed, tokens, share, seed
        self.own = length - len(tokens.start) - len(tokens.end)  # ids of text a row
        if self.own < 2:
            raise UsageError(f"rows of {length} tokens have no room for text", then="say a larger --length")
        noise = {"noise": type(self).__name__, "hidden": str(share), "seed": str(seed)}
        self.identity = {**packed.identity, "length": str(length), **noise}

    def __len__(self) -> int:
        return max(1, self.packed.tokens // self.own)

    def stretch(self, row: int) -> np.ndarray:
        """The ids of a row, without the end token that opens the packed text."""
        return self.packed.ids[1 + row * self.own : 1 + (row + 1) * self.own].astype(np.int64)

    def generator(self, row: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, row])

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        return collate([self.example(int(row), int(epoch)) for row, epoch in zip(rows, epochs, strict=True)])

    @abstractmethod
    def example(self, row: int, epoch: int) -> dict[str, np.ndarray]:
        """A row with the noise of this epoch."""


class MaskedRows(NoisyRows):
    """`ids` (B, T) between the tokenizer's start and end, some masked, and `labels` (B, T) of those."""

    def example(self, row: int, epoch: int) -> dict[str, np.ndarray]:
        tokens, rng = self.tokens, self.generator(row, epoch)
        if tokens.mask_id is None:
            raise InputError("the tokenizer has no mask token", where=tokens.where, then="name one as mask_token")
        kept = frozenset(tokens.special.values())
        ids, labels = mask(self.stretch(row), rng, tokens.mask_id, tokens.vocab_size, kept, self.share)
        sides = [IGNORE] * len(tokens.start), [IGNORE] * len(tokens.end)
        return {
            "ids": np.concatenate([tokens.start, ids, tokens.end]).astype(np.int64),
            "labels": np.concatenate([sides[0], labels, sides[1]]).astype(np.int64),
        }


class SpanRows(NoisyRows):
    """`ids` (B, S) with spans hidden, and `labels` (B, T): the spans, each after its marker; both with their end."""

    def example(self, row: int, epoch: int) -> dict[str, np.ndarray]:
        tokens = self.tokens
        markers = [tokens.special[name] for name in SENTINELS if name in tokens.special]
        if not markers:
            raise InputError(f"the tokenizer has no {SENTINELS[0]}", where=tokens.where, then="learn one: leave it out")
        ids, labels = hide_spans(self.stretch(row), self.generator(row, epoch), markers, self.share)
        both = {"ids": ids, "labels": labels}
        return {name: np.concatenate([part, tokens.end]).astype(np.int64) for name, part in both.items()}
