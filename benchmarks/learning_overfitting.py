"""One recipe in which training and validation part, and what mends it.

A small LSTM reads a little Shakespeare many times over. Each mend alone, then all of them together.
"""

import time
from dataclasses import dataclass, field, replace

import numpy as np
from learning_figure import Cell, Figure, Plan, opened

from qualm.auditing.intervals import compare, interval
from qualm.corpus import Document, Packed, pack
from qualm.models.rnn import Rnn, RnnConfig
from qualm.tokens.train import train_bpe
from qualm.training.data import Batch, TokenRows
from qualm.training.loop import Hooks, Result, fit
from qualm.training.losses import bits_per_byte, causal
from qualm.training.settings import TrainSettings

VOCAB, LENGTH, WIDTH = 400, 64, 96
LEARNT, HELD_OUT = 20_000, 20_000  # characters
SETTINGS = TrainSettings(epochs=24, batch=8, lr=1e-2, optimiser="muon", schedule="linear", weight_decay=0.0)
DROPOUT, DECAY, REPLACED, PATIENCE, READINGS = 0.3, 0.5, 0.15, 3, 16


class Replaced(TokenRows):
    """Rows in which a share of the tokens that are read, not of those that are to be told, is any other one."""

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        made = super().batch(rows, epochs)
        ids = made["ids"].numpy().copy()
        for row, number, epoch in zip(ids, rows, epochs, strict=True):
            rng = np.random.default_rng([7, int(epoch), int(number)])
            changed = rng.random(len(row)) < REPLACED
            row[changed] = rng.integers(VOCAB, size=changed.sum())
        return Batch(made, ids=made["ids"].new_tensor(ids))


@dataclass(frozen=True)
class Mend:
    """What is done about it."""

    name: str
    dropout: float = 0.0
    settings: TrainSettings = SETTINGS
    rows: type[TokenRows] = TokenRows


DECAYED = replace(SETTINGS, weight_decay=DECAY)
MENDS = (
    Mend("nothing"),
    Mend("early stopping", settings=replace(SETTINGS, patience=PATIENCE)),
    Mend(f"dropout {DROPOUT}", DROPOUT),
    Mend(f"weight decay {DECAY}", settings=DECAYED),
    Mend(f"{REPLACED:.0%} of tokens replaced", rows=Replaced),
    Mend("all of them", DROPOUT, replace(DECAYED, patience=PATIENCE), Replaced),
)


@dataclass
class Curve:
    """Bits a byte by step: of the rows of each update, and of the held-out text."""

    result: Result
    learning: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def last(self) -> float:
        return self.result.validations[-1][1]

    @property
    def kept(self) -> float:
        """What the model that is kept reads: the best, where training was watched, else the last."""
        assert self.result.best is not None
        return self.result.best

    @property
    def learnt(self) -> float:
        """Of the last pass over the text."""
        return float(np.mean([bits for _, bits in self.learning[-len(self.learning) // READINGS :]]))


def run(mend: Mend, seed: int, packed: Packed, held: Packed) -> Curve:
    began, learning = time.perf_counter(), list[tuple[int, float]]()
    drop = mend.dropout
    config = RnnConfig(VOCAB, WIDTH, 2, embd_pdrop=drop, hidden_dropout_prob=drop, recurrent_dropout=drop)
    model, rows = Rnn(config), mend.rows(packed, LENGTH)
    model.init_weights(seed)
    steps = mend.settings.total(len(rows))
    settings = replace(mend.settings, seed=seed, eval_every=max(1, steps // READINGS))
    hooks = Hooks(
        validate=lambda trained: bits_per_byte(trained, held, LENGTH),
        on_step=lambda row: learning.append((row["step"], row["bits_per_byte"])),
    )
    return Curve(fit(model, rows, causal, settings, hooks=hooks), learning, time.perf_counter() - began)


def measure(plan: Plan) -> Figure:
    seeds, text = plan.seeds, opened(plan.shared / "text-tinyshakespeare" / "tinyshakespeare.txt.gz")
    learnt = [Document("learnt", text[:LEARNT])]
    held_out = [Document("held out", text[-HELD_OUT:])]
    tokens = train_bpe([learnt[0].text], VOCAB)
    packed, held = pack(learnt, tokens, plan.work / "learnt"), pack(held_out, tokens, plan.work / "held_out")
    figure = Figure(
        "overfitting",
        f"The first {LEARNT:,} characters of tinyshakespeare ({packed.tokens:,} tokens of {VOCAB}), "
        f"{SETTINGS.epochs:.0f} passes; validated on its last {HELD_OUT:,}. Bits a byte of the validation text at the "
        f"last step, of the weights that are kept (the best reading), and the difference in what is kept at the end "
        f"from doing nothing. Means of {len(seeds)} seeds with Student's t over seeds.",
        ("mend", "training, last pass", "validation, last", "validation, best", "beside nothing", "steps", "seconds"),
    )
    seeded, base = np.arange(len(seeds)), np.zeros(0)
    shown = {}
    for mend in (mend for mend in MENDS if mend.name == "nothing" or plan.wants(mend.name)):
        curves = [run(mend, seed, packed, held) for seed in seeds]
        learnt_, last, best = (
            np.array([getattr(curve, name) for curve in curves]) for name in ("learnt", "last", "kept")
        )
        ends = best if mend.settings.patience else last  # early stopping keeps the best weights
        base = ends if mend.name == "nothing" else base
        paired = None if ends is base else compare({"value": base}, {"value": ends}, seeded, share=False)
        alone = "" if ends is base else f"{float((ends - base).mean()):+.3f}"  # of one seed there is no interval
        beside = paired or alone
        estimates = [of_seeds(values) for values in (learnt_, last, best)]
        steps = f"{np.mean([curve.result.steps for curve in curves]):.0f}"
        figure.add(mend.name, *estimates, beside, steps, f"{sum(curve.seconds for curve in curves):.0f}")
        shown[mend.name] = curves[0]
    figure.curves = {
        f"{kind}: {name}": points
        for name in ("nothing", "all of them")
        if name in shown
        for kind, points in (
            ("training", passes(shown[name])),
            ("validation", list(shown[name].result.validations)),
        )
    }
    return figure


def of_seeds(values: np.ndarray) -> Cell:
    """The mean over seeds; of one seed, its value."""
    found = interval({"value": values}, np.arange(len(values)), share=False)
    return found or f"{float(values.mean()):.3f}"


def passes(curve: Curve) -> list[tuple[int, float]]:
    """The training curve as the mean of each stretch between two readings."""
    size = max(1, len(curve.learning) // READINGS)
    parts = [curve.learning[i : i + size] for i in range(0, len(curve.learning), size)]
    return [(part[-1][0], float(np.mean([bits for _, bits in part]))) for part in parts]
