"""The figures of benchmarks/learning.py: its scores against sacreBLEU's, its baselines, and what can be read again."""

import importlib
import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from conftest import SHARED
from qualm.auditing.intervals import Estimate, interval

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SAID = ["Un homme joue de la guitare dans la rue.", "Deux chiens courent."]
WANTED = ["Un homme joue de la guitare sur la place.", "Deux chiens courent dans l'herbe."]


@pytest.fixture
def part(monkeypatch):
    """`part("text")` is benchmarks/learning_text.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"learning_{name}")

    return load


@pytest.fixture
def data() -> Path:
    return Path(os.environ[SHARED])


def test_scores_are_those_of_sacrebleu(part):
    """sacreBLEU 2.6.0: corpus_chrf; corpus_bleu(tokenize="none") of the words joined with spaces."""
    mt = part("translation")
    columns = mt.counted(SAID, WANTED)
    assert math.isclose(mt.chrf(columns), 65.22026789859832)
    assert math.isclose(mt.bleu(columns), 44.66113088400615)
    plain = mt.counted(["the cat sat on the mat .", "a dog"], ["the cat is on a mat .", "a big dog"])
    assert math.isclose(mt.chrf(plain), 37.19960302079541)
    assert mt.bleu(plain) == 0
    assert math.isclose(mt.chrf(mt.counted(WANTED, WANTED)), 100)
    assert math.isclose(mt.bleu(mt.counted(WANTED, WANTED)), 100)
    assert mt.chrf(mt.counted(["zzz"], ["aaa"])) == mt.bleu(mt.counted(["zzz"], ["aaa"])) == 0


def test_a_lexicon_is_learnt_from_what_stands_together(part):
    """Das Haus, das Buch, ein Buch: the example with which model 1 is taught."""
    mt = part("translation")
    known = mt.lexicon([("the house", "das Haus"), ("the book", "das Buch"), ("a book", "ein Buch")])
    assert {word: known[word] for word in ("the", "house", "book", "a")} == {
        "the": "das",
        "house": "Haus",
        "book": "Buch",
        "a": "ein",
    }
    assert mt.looked_up(known, "A house, Oslo.") == "Ein Haus, Oslo."


def test_words_are_joined_as_they_were_parted(part):
    mt = part("translation")
    text = "L'homme joue, et l'enfant rit."
    assert mt.joined(mt.words(text)) == text


def test_tf_idf_by_hand(part):
    """ "b" stands in two of three texts, twice in the first; "a", in two; "c" in one, so it is left out."""
    sentiment = part("sentiment")
    made = sentiment.TfIdf(["b b a", "b", "a c"])
    assert list(made.places) == ["a", "b"]
    idf = math.log(4 / 3) + 1
    a, b = idf, (1 + math.log(2)) * idf
    found = made(["b b a", "c"])
    assert found.height == 2
    read = found.times(torch.tensor([1.0, 10.0]))
    assert torch.allclose(read, torch.tensor([(a + 10 * b) / math.hypot(a, b), 0.0]))


def test_the_regression_is_at_its_optimum(part):
    """The gradient of its loss vanishes there."""
    sentiment = part("sentiment")
    texts, labels = ["good day", "good soup", "bad day", "bad soup", "good bad"], torch.tensor([1.0, 1, 0, 0, 1])
    made = sentiment.TfIdf(texts)
    x, strength = made(texts), 1e-3
    logits = sentiment.regression(x, labels, len(made.places), strength)
    none = torch.zeros(0, dtype=torch.long)
    bias = logits(sentiment.Sparse(none, none, torch.zeros(0), 1))
    every = torch.arange(len(made.places))
    alone = logits(sentiment.Sparse(every, every, torch.ones(len(every)), len(every)))  # a feature a row
    weight = (alone - bias).requires_grad_()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x.times(weight) + bias, labels)
    (loss + strength * weight.square().sum()).backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) < 1e-3


def test_tokens_are_replaced_where_they_are_read_alone(part):
    over = part("overfitting")
    packed = over.Packed(np.arange(1, 400, dtype=np.int64), np.array([399]), np.array([1000]), {})
    rows, plain = over.Replaced(packed, over.LENGTH), over.TokenRows(packed, over.LENGTH)
    some, first = np.arange(6), np.zeros(6, int)
    made, same, true = rows.batch(some, first), rows.batch(some, first), plain.batch(some, first)
    assert torch.equal(made["labels"], true["labels"])
    assert torch.equal(made["ids"], same["ids"])
    assert not torch.equal(made["ids"], rows.batch(some, first + 1)["ids"])
    share = float((made["ids"] != true["ids"]).double().mean())
    assert 0.5 * over.REPLACED < share < 1.5 * over.REPLACED


def test_a_cell_shows_value_and_interval(part):
    figure = part("figure").Figure("name", "about", ("what", "how much"))
    estimate = interval({"value": np.array([1.0, 1, 0, 1])}, np.arange(4))
    assert isinstance(estimate, Estimate)
    figure.add("it", estimate)
    low, high = estimate.bounds()
    assert figure.table().splitlines()[-1] == f"| it | 0.750 [{low:.3f}, {high:.3f}] |"
    assert figure.plain()["rows"] == [["it", {"value": 0.75, "low": low, "high": high, "n": 4, "method": "wilson"}]]


@pytest.mark.shared
def test_nothing_that_is_tested_is_learnt_from(part, data):
    sentiment = part("sentiment")
    for task in (sentiment.english(data), sentiment.chinese(data)):
        tested = {sentiment.bare(text) for text, _ in task.tested}
        others = [text for text, _ in (*task.learnt, *task.chosen)] + list(task.plain)
        assert not tested & {sentiment.bare(text) for text in others}
        assert len(task.tested) == {"SST-2": 872, "ChnSentiCorp": 800}[task.name]
        assert len(task.learnt) > 6_000


@pytest.mark.shared
@pytest.mark.slow
def test_the_n_grams_read_what_the_page_says(part, data, tmp_path):
    rows = part("text").measure(part("figure").Plan(data, tmp_path, ())).rows
    assert [round(row[3].value, 2) for row in rows] == [2.95, 1.71, 1.67]


@pytest.mark.shared
@pytest.mark.slow
def test_the_lookup_translates_as_the_page_says(part, data, tmp_path):
    rows = part("translation").measure(part("figure").Plan(data, tmp_path, ())).rows
    assert 50 < rows[0][3].value < 60
    assert rows[0][3].value > rows[1][3].value + 20


@pytest.mark.shared
@pytest.mark.slow
def test_training_and_validation_part_and_dropout_mends_it(part, data, tmp_path):
    over = part("overfitting")
    nothing, dropout = over.measure(over.Plan(data, tmp_path, (0, 1), only="dropout")).rows
    _, learnt, last, best, *_ = nothing
    assert last.value > best.value + 0.1 > learnt.value + 1
    assert dropout[2].value < last.value - 0.2
