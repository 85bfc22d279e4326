"""Models of text beside n-grams: equal parameters, equal tokens, the same held-out bytes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from learning_figure import Columns, Figure, Measured, Plan, Seeds, sotu

from qualm.config import to_dict
from qualm.corpus import Document, Packed, pack, split
from qualm.models.base import Decoder
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.rnn import Rnn, RnnConfig
from qualm.text.ngram import NGram
from qualm.tokens.train import train_bpe
from qualm.training.data import TokenRows
from qualm.training.loop import fit
from qualm.training.losses import causal
from qualm.training.settings import TrainSettings

VOCAB, LENGTH, BATCH, PASSES = 512, 64, 16, 4
STEP = LENGTH // 2  # a held-out token is read after so many others at least
READ = 32  # rows read at once
LEARNT, HELD_OUT, SHOWN = 1_300_000, 0.2, 4_000  # characters to learn from; share held out; characters shown of each
ORDERS = (1, 3, 5)
RATES = {"llama": 6e-3, "elman": 5e-3, "gru": 1e-2, "lstm": 1e-2}  # of Muon, and of AdamW for embeddings
SETTINGS = TrainSettings(batch=BATCH, optimiser="muon", save_every=500)


def llama(end: int | None) -> Llama:
    """The dial's third step: 96 channels, 3 layers."""
    return Llama(LlamaConfig.sized(3, VOCAB, LENGTH, eos_token_id=end))


def recurrent(cell: str, wanted: int) -> Rnn:
    """Two layers, as wide as gives the number of parameters that is nearest to `wanted`."""
    configs = [RnnConfig(VOCAB, width, 2, cell) for width in range(32, 512, 4)]
    return Rnn(min(configs, key=lambda config: abs(config.parameters - wanted)))


def documents_of(shared: Path) -> tuple[list[Document], list[Document]]:
    """The first addresses of those that are not held out, and the beginning of those that are."""
    learnt, held = split([Document(name, text) for name, text in sotu(shared).items()], HELD_OUT)
    learnt = [learnt[i] for i in np.random.default_rng(0).permutation(len(learnt))]
    enough = int(np.searchsorted(np.cumsum([len(d.text) for d in learnt]), LEARNT)) + 1
    return learnt[:enough], [Document(d.id, d.text[:SHOWN]) for d in held]


@torch.inference_mode()
def nats_by_document(model: Decoder, held: Packed) -> np.ndarray:
    """(documents,) nats of each, read in rows of LENGTH that overlap, so that each token is told after STEP others or
    more, and once.
    """
    found, starts = np.zeros(held.tokens), np.arange(0, max(1, held.tokens - LENGTH + STEP), STEP)
    model.eval()
    for some in np.array_split(starts, math.ceil(len(starts) / READ)):
        places = some[:, None] + np.arange(LENGTH)  # (B, LENGTH)
        ids = torch.from_numpy(held.ids.take(places, mode="clip").astype(np.int64))
        wanted = torch.from_numpy(held.ids.take(places + 1, mode="clip").astype(np.int64))
        said = model.head(model.hidden(ids)).double().log_softmax(-1)
        nats = -said.gather(-1, wanted[..., None])[..., 0].numpy()
        fresh = (places < held.tokens) & ((np.arange(LENGTH) >= LENGTH - STEP) | (some == 0)[:, None])
        found[places[fresh]] = nats[fresh]
    return by_document(found, held)


def by_document(nats: np.ndarray, held: Packed) -> np.ndarray:
    """Sums (documents,) of nats a predicted token."""
    return np.add.reduceat(nats, np.concatenate(([0], held.ends[:-1] - 1)))


def ngram_nats(model: NGram, held: Packed) -> np.ndarray:
    starts = np.concatenate(([0], held.ends[:-1] - 1))
    return np.array([-model.logprobs(held.ids[a:b]).sum() for a, b in zip(starts, held.ends, strict=True)])


def bits(columns: Columns) -> float:
    return float(columns["nats"].sum() / math.log(2) / columns["bytes"].sum())


@dataclass(frozen=True)
class Task:
    """What is learnt from, what is asked about, and what makes an untrained model of each kind."""

    learnt: Packed
    held: Packed
    makers: Mapping[str, Callable[[], Decoder]]

    @classmethod
    def of(cls, learnt: Sequence[Document], held: Sequence[Document], work: Path) -> "Task":
        tokens = train_bpe((d.text for d in learnt), VOCAB)
        wanted = sum(p.numel() for p in llama(tokens.eos_id).parameters())
        cells = ("lstm", "elman", "gru")  # what is fast comes first
        makers: dict[str, Callable[[], Decoder]] = {cell: partial(recurrent, cell, wanted) for cell in cells}
        makers["llama"] = partial(llama, tokens.eos_id)
        return cls(pack(learnt, tokens, work / "learnt"), pack(held, tokens, work / "held_out"), makers)

    def columns(self, nats: np.ndarray) -> Columns:
        return {"nats": nats, "bytes": self.held.sizes.astype(float)}

    def grams(self) -> dict[int, NGram]:
        starts = np.concatenate(([0], self.learnt.ends[:-1] - 1))
        texts = [self.learnt.ids[a:b] for a, b in zip(starts, self.learnt.ends, strict=True)]
        return {order: NGram(texts, VOCAB, order) for order in ORDERS}

    def read(self, cell: str, settings: TrainSettings, folder: Path) -> Columns:
        """What a model reads that was trained in `folder`."""
        model = self.makers[cell]()
        model.init_weights(settings.seed)
        fit(model, TokenRows(self.learnt, LENGTH), causal, settings, folder)
        return self.columns(nats_by_document(model, self.held))

    def measured(self, plan: Plan) -> dict[str, list[Measured]]:
        found: dict[str, list[Measured]] = {cell: [] for cell in self.makers if plan.wants(cell)}
        for seed in plan.seeds:
            for cell in found:
                settings = replace(SETTINGS, epochs=PASSES * plan.budget, lr=RATES[cell], seed=seed)
                identity = [dict(self.learnt.identity), dict(self.held.identity)]
                made_of = [to_dict(self.makers[cell]().config), to_dict(settings), *identity]
                one = plan.once(f"{cell} {seed}", made_of, partial(self.read, cell, settings))
                found[cell] += [one] if one else []
        return found


def measure(plan: Plan) -> Figure:
    learnt, held_out = documents_of(plan.shared)
    task = Task.of(learnt, held_out, plan.work)
    packed, held, grams = task.learnt, task.held, task.grams()
    counted = {order: task.columns(ngram_nats(grams[order], held)) for order in ORDERS}
    figure = Figure(
        "text",
        f"State of the Union: {packed.bytes:,} bytes in {len(learnt)} addresses to learn from ({packed.tokens:,} "
        f"tokens of {VOCAB}), {PASSES * plan.budget:g} passes; the first {SHOWN:,} characters of {len(held_out)} "
        f"others held out ({held.bytes:,} bytes, {held.tokens:,} tokens). Intervals: bootstrap over addresses, the "
        "seeds pooled.",
        ("model", "parameters", "bits a byte", "each seed", "beside the 3-gram", "beside the 5-gram", "seconds a seed"),
    )

    def add(name: str, count: str, measured: list[Measured], *bases: int) -> None:
        seeds = Seeds(measured, bits)
        beside = [seeds.beside(counted[order]) if order in bases else None for order in ORDERS[1:]]
        figure.add(name, count, seeds.interval(), seeds.each(), *beside, seeds.seconds())

    for order in ORDERS:
        bases = () if order == ORDERS[1] else ORDERS[1:2]
        add(f"Kneser-Ney {order}-gram", f"{grams[order].size:,} counts", [Measured(counted[order], 0.0)], *bases)
    for cell, measured in task.measured(plan).items():
        if measured:
            add(cell, f"{task.makers[cell]().config.parameters:,}", measured, *ORDERS[1:])
    return figure
