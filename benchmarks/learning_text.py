"""Models of text beside n-grams: equal parameters, equal tokens, the same held-out bytes."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from learning_figure import Figure, Plan, sotu

from qualm.auditing.intervals import compare, interval
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

VOCAB, LENGTH, BATCH, PASSES = 1024, 128, 8, 5
LEARNT, HELD_OUT, SHOWN = 850_000, 0.2, 4_000  # characters to learn from; share held out; characters shown of each
ORDERS = (1, 3, 5)
RATES = {"llama": 6e-3, "elman": 5e-3, "gru": 1e-2, "lstm": 1e-2}  # of Muon, and of AdamW for embeddings


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
    """(documents,) nats of each, read in the rows of `bits_per_byte`."""
    rows, found = TokenRows(held, LENGTH), []
    model.eval()
    for start in range(0, len(rows), BATCH):
        some = np.arange(start, min(start + BATCH, len(rows)))
        batch = rows.batch(some, some)
        logits = model.head(model.hidden(batch["ids"])).double()
        wanted = batch["labels"].clamp(min=0)
        found.append(-logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0].flatten())
    return by_document(torch.cat(found).numpy()[: held.tokens], held)


def by_document(nats: np.ndarray, held: Packed) -> np.ndarray:
    """Sums (documents,) of nats a predicted token."""
    return np.add.reduceat(nats, np.concatenate(([0], held.ends[:-1] - 1)))


def ngram_nats(model: NGram, held: Packed) -> np.ndarray:
    starts = np.concatenate(([0], held.ends[:-1] - 1))
    return np.array([-model.logprobs(held.ids[a:b]).sum() for a, b in zip(starts, held.ends, strict=True)])


def trained(model: Decoder, cell: str, rows: TokenRows, seed: int, passes: float) -> Decoder:
    model.init_weights(seed)
    fit(model, rows, causal, TrainSettings(epochs=passes, batch=BATCH, lr=RATES[cell], optimiser="muon", seed=seed))
    return model


def bits(columns: Mapping[str, np.ndarray]) -> float:
    return float(columns["nats"].sum() / math.log(2) / columns["bytes"].sum())


def measure(plan: Plan) -> Figure:
    learnt, held_out = documents_of(plan.shared)
    tokens = train_bpe((d.text for d in learnt), VOCAB)
    packed, held = pack(learnt, tokens, plan.work / "learnt"), pack(held_out, tokens, plan.work / "held_out")
    sizes, passes = held.sizes.astype(float), PASSES * plan.budget
    clusters = np.arange(len(sizes))
    starts = np.concatenate(([0], packed.ends[:-1] - 1))
    texts = [packed.ids[a:b] for a, b in zip(starts, packed.ends, strict=True)]
    grams = {order: ngram_nats(NGram(texts, VOCAB, order), held) for order in ORDERS}
    figure = Figure(
        "text",
        f"State of the Union: {packed.bytes:,} bytes in {len(learnt)} addresses to learn from ({packed.tokens:,} "
        f"tokens of {VOCAB}), {passes:g} passes; the first {SHOWN:,} characters of {len(held_out)} others held out "
        f"({held.bytes:,} bytes, {held.tokens:,} tokens). Intervals: bootstrap over addresses.",
        ("model", "parameters", "seed", "bits a byte", "beside the 3-gram", "seconds"),
    )

    def add(name: str, count: str, seed: str, nats: np.ndarray, seconds: float) -> None:
        columns, base = {"nats": nats, "bytes": sizes}, {"nats": grams[3], "bytes": sizes}
        figure.add(
            name,
            count,
            seed,
            interval(columns, clusters, bits, share=False),
            None if nats is grams[3] else compare(base, columns, clusters, bits, share=False),
            f"{seconds:.0f}",
        )

    for order in ORDERS:
        add(f"Kneser-Ney {order}-gram", f"{NGram(texts, VOCAB, order).size:,} counts", "", grams[order], 0)
    gpt = llama(tokens.eos_id)
    wanted = sum(p.numel() for p in gpt.parameters())
    makers: dict[str, Callable[[], Decoder]] = {"llama": lambda: llama(tokens.eos_id)}
    makers |= {cell: lambda cell=cell: recurrent(cell, wanted) for cell in ("elman", "gru", "lstm")}
    for cell, make in makers.items():
        for seed in plan.seeds if plan.wants(cell) else ():
            began, model = time.perf_counter(), make()
            nats = nats_by_document(trained(model, cell, TokenRows(packed, LENGTH), seed, passes), held)
            add(cell, f"{model.config.parameters:,}", str(seed), nats, time.perf_counter() - began)
    return figure
