"""One recipe in which training and validation part, and what mends it.

A small LSTM reads a little Shakespeare many times over. Each mend alone, then all of them together.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from learning_figure import Cell, Columns, Figure, Measured, Plan, opened

from qualm.auditing.intervals import compare, interval
from qualm.config import to_dict
from qualm.corpus import Document, Packed, pack
from qualm.models.rnn import Rnn, RnnConfig
from qualm.tokens.dropout import Splitter
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from qualm.training.data import Rows, TokenRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.noise import ShakenRows, SplitRows
from qualm.training.reading import bits_per_byte
from qualm.training.settings import TrainSettings

VOCAB, LENGTH, WIDTH = 400, 64, 96
LEARNT, HELD_OUT = 20_000, 20_000  # characters; as many to validate on as to test on
SETTINGS = TrainSettings(epochs=36, batch=8, lr=1e-2, optimiser="muon", schedule="linear", weight_decay=0.0)
DROPOUT, DECAY, REPLACED, CUT, PATIENCE, READINGS = 0.3, 0.5, 0.15, 0.1, 3, 24


@dataclass(frozen=True)
class Mend:
    """What is done about it."""

    name: str
    dropout: float = 0.0
    settings: TrainSettings = SETTINGS
    replaced: float = 0.0  # the share of tokens that are read, not of those that are to be told
    cut: float = 0.0  # the share of merges that are left out


DECAYED = replace(SETTINGS, weight_decay=DECAY)
MENDS = (
    Mend("nothing"),
    Mend("early stopping", settings=replace(SETTINGS, patience=PATIENCE)),
    Mend(f"dropout {DROPOUT}", DROPOUT),
    Mend(f"weight decay {DECAY}", settings=DECAYED),
    Mend(f"{REPLACED:.0%} of tokens replaced", replaced=REPLACED),
    Mend(f"BPE-dropout {CUT}", cut=CUT),
    Mend("the four together", DROPOUT, replace(DECAYED, patience=PATIENCE), REPLACED),
)


@dataclass(frozen=True)
class Texts:
    """What is learnt from, what training is watched on, and what tells how good it became."""

    tokens: Tokens
    learnt: Packed
    held: Packed
    tested: Packed


@dataclass(frozen=True)
class Curve:
    """Bits a byte by step: of the rows of each update, of the held-out text, and of the tested one."""

    learning: np.ndarray  # (updates,)
    at: np.ndarray  # (readings,) steps
    validation: np.ndarray
    tested: np.ndarray

    @property
    def learnt(self) -> float:
        """Of the updates since the last reading but one."""
        return float(self.learning[-max(1, len(self.learning) // READINGS) :].mean())

    @property
    def last(self) -> float:
        return float(self.validation[-1])

    @property
    def best(self) -> float:
        return float(self.validation.min())

    def ends(self, stopped: bool) -> float:
        """What is kept reads of the tested text: with early stopping the weights that validated best, else the last."""
        return float(self.tested[self.validation.argmin() if stopped else -1])


def run(mend: Mend, seed: int, texts: Texts) -> Columns:
    """The curves of one training."""
    drop, learning, tested = mend.dropout, list[float](), list[float]()
    model = Rnn(RnnConfig(VOCAB, WIDTH, 2, embd_pdrop=drop, hidden_dropout_prob=drop, recurrent_dropout=drop))
    model.init_weights(seed)
    plain = TokenRows(texts.learnt, LENGTH)
    plain = SplitRows(plain, Splitter(texts.tokens), mend.cut, seed) if mend.cut else plain
    rows: Rows = ShakenRows(plain, mend.replaced, seed) if mend.replaced else plain
    settings = replace(mend.settings, seed=seed, eval_every=max(1, mend.settings.total(len(rows)) // READINGS))

    def read(trained: Rnn) -> float:
        tested.append(bits_per_byte(trained, texts.tested, LENGTH))
        return bits_per_byte(trained, texts.held, LENGTH)

    bits = 1 / math.log(2) / TokenRows(texts.learnt, LENGTH).bytes_per_target
    hooks = Hooks(validate=read, on_step=lambda row: learning.append(row["loss"] * bits))
    result = fit(model, rows, causal, settings, hooks=hooks)
    at, validation = zip(*result.validations, strict=True)
    curves = {"learning": learning, "at": at, "validation": validation, "tested": tested}
    return {name: np.array(values) for name, values in curves.items()}


def texts_of(plan: Plan) -> Texts:
    text = opened(plan.shared / "text-tinyshakespeare" / "tinyshakespeare.txt.gz")
    parts = {
        "learnt": text[:LEARNT],
        "held": text[-HELD_OUT:],
        "tested": text[-2 * HELD_OUT : -HELD_OUT],
    }
    tokens = train_bpe([parts["learnt"]], VOCAB)
    packed = {name: pack([Document(name, part)], tokens, plan.work / name) for name, part in parts.items()}
    return Texts(tokens, **packed)


def measured(plan: Plan, texts: Texts) -> dict[Mend, list[Measured]]:
    """Each mend with each seed, what is without a mend always."""
    mends = [mend for mend in MENDS if mend.name == "nothing" or plan.wants(mend.name)]
    found: dict[Mend, list[Measured]] = {mend: [] for mend in mends}
    packed = [dict(each.identity) for each in (texts.learnt, texts.held, texts.tested)]
    for seed in plan.seeds:
        for mend in mends:
            made_of = [to_dict(mend), seed, packed]
            one = plan.once(f"{mend.name} {seed}", made_of, lambda _, m=mend, s=seed: run(m, s, texts))
            found[mend] += [one] if one else []
    return found


def measure(plan: Plan) -> Figure:
    texts = texts_of(plan)
    figure = Figure(
        "overfitting",
        f"The first {LEARNT:,} characters of tinyshakespeare ({texts.learnt.tokens:,} tokens of {VOCAB}), "
        f"{SETTINGS.epochs:.0f} passes; validated on its last {HELD_OUT:,}, tested on the {HELD_OUT:,} before. Bits a "
        f"byte; what is kept are the last weights, with early stopping those that validated best. Means of "
        f"{len(plan.seeds)} seeds with Student's t over seeds; the difference from doing nothing is paired by seed.",
        ("mend", "training, at the end", "validation, last", "validation, best", "tested", "beside nothing", "steps"),
    )
    base = np.zeros(0)
    for mend, every in measured(plan, texts).items():
        curves = [Curve(**one.columns) for one in every]
        if not curves or len(curves) < len(plan.seeds):
            continue
        values = [np.array([getattr(curve, name) for curve in curves]) for name in ("learnt", "last", "best")]
        told = [None if mend.cut else of_seeds(values[0]), *map(of_seeds, values[1:])]  # of cut words, no bits a byte
        ends = np.array([curve.ends(mend.settings.patience > 0) for curve in curves])
        base = ends if mend.name == "nothing" else base
        steps = f"{np.mean([len(curve.learning) for curve in curves]):.0f}"
        figure.add(mend.name, *told, of_seeds(ends), None if ends is base else beside_seeds(base, ends), steps)
        if mend.name in SHOWN:
            figure.curves |= drawn_curves(mend.name, curves[0])
    return figure


SHOWN = ("nothing", f"dropout {DROPOUT}")


def drawn_curves(name: str, curve: Curve) -> dict[str, list[tuple[int, float]]]:
    """Of one seed: training as the mean of each stretch between two readings, and validation."""
    size = max(1, len(curve.learning) // READINGS)
    starts = range(0, len(curve.learning), size)
    passes = [(min(i + size, len(curve.learning)), float(curve.learning[i : i + size].mean())) for i in starts]
    validation = [(int(step), float(bits)) for step, bits in zip(curve.at, curve.validation, strict=True)]
    return {f"training: {name}": passes, f"validation: {name}": validation}


def of_seeds(values: np.ndarray) -> Cell:
    """The mean over seeds; of one seed, its value."""
    found = interval({"value": values}, np.arange(len(values)), share=False)
    return found or f"{float(values.mean()):.3f}"


def beside_seeds(base: np.ndarray, values: np.ndarray) -> Cell:
    """The mean difference, paired by seed; of one seed there is no interval."""
    found = compare({"value": base}, {"value": values}, np.arange(len(base)), share=False)
    return found or f"{float((values - base).mean()):+.3f}"
