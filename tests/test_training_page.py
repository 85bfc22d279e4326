"""The page of a run: curves of what was measured, what happened, nothing loaded, two languages."""

import json
import re
from html.parser import HTMLParser

import pytest

from qualm.errors import QualmError, Stopped
from qualm.training.curves import MOST, Curve, plot, reasonable, thinned
from qualm.training.loop import Hooks
from qualm.training.page import About, Page
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=12, batch=4, eval_every=4, save_every=4, threads=1)
RECIPE = Recipe(size=30_000, length=24, vocab=300, held_out=0.2, validate=300, train=SETTINGS)
HOSTILE = '<script>alert(1)</script>"&'


class Read(HTMLParser):
    """Tags with their attributes, and the visible text by language."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], {"en": [], "zh": [], "": []}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append((tag, dict(attrs).get("lang", "")))

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        tag, language = self.open[-1] if self.open else ("", "")
        if tag not in ("style", "script", "title"):
            self.words[language].append(data)


def rows(count: int = 30) -> list[dict]:
    read = [
        {"step": i, "loss": 5 / i, "lr": 0.01, "norm": 1.0, "steps": 40, "tokens": 10 * i, "tokens_per_second": 9.0,
         "seconds": 0.5 * i}
        for i in range(1, count + 1)
    ]  # fmt: skip
    for row in read[9::10]:
        row["validation"] = row["loss"] + 1
    return read


def page_of(
    folder, read: list[dict], told: list[str] = (), fault: str = "", name: str = "m", unit: str = "nats a token"
) -> str:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in read))
    when = "2026-01-01T00:00:00+00:00"
    (folder / "log.jsonl").write_text("".join(json.dumps({"when": when, "event": e}) + "\n" for e in told))
    about = About(name, unit, {("Data", "数据"): {"documents": name, "apart": True, "nothing": None}})
    Page(folder, folder / "training.html", about).write(fault)
    return (folder / "training.html").read_text(encoding="utf-8")


def test_training_writes_the_page_at_each_validation_and_says_how_it_ended(notes, tmp_path):
    path, seen = tmp_path / "m" / "training.html", []

    def on_step(row):
        seen.append(path.read_text() if path.exists() else "")

    train(notes, tmp_path / "m", RECIPE, Hooks(on_step=on_step))
    assert [bool(text) for text in seen] == [False] * 4 + [True] * 8
    assert "Step 4 of 12" in seen[5]
    text = path.read_text()
    assert "Step 12 of 12; at best" in text
    assert "bits per byte" in text
    identity = json.loads((tmp_path / "m" / "qualm.json").read_text())["training"]["data"]
    assert all(value in text for value in identity.values())


def test_a_run_that_stops_or_fails_says_why_on_its_page(notes, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        train(notes, tmp_path / "m", RECIPE, Hooks(should_stop=lambda: True))
    assert "stopped after step 1 of 12" in (tmp_path / "m" / "training.html").read_text()
    train(notes, tmp_path / "m", RECIPE)
    text = (tmp_path / "m" / "training.html").read_text()
    assert "stopped after" not in text
    assert "goes on from step 1 of 12" in text

    def broken(model, batch):
        return model.head(model.hidden(batch["ids"])).sum() * float("nan"), 1

    monkeypatch.setattr("qualm.training.objectives.causal", broken)
    with pytest.raises(QualmError, match="3 updates in a row"):
        train(notes, tmp_path / "bad", RECIPE)
    text = (tmp_path / "bad" / "training.html").read_text()
    assert "3 updates in a row were not finite" in text
    assert re.search(r"step 3: the loss or its gradient is not finite.*\(rows [\d, ]+\)", text)


def test_the_page_loads_nothing_and_runs_our_script_alone(tmp_path):
    text = page_of(tmp_path, rows(), [HOSTILE], HOSTILE, HOSTILE)
    read = Read(text)
    assert not read.open
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert not {tag for tag, _ in read.tags} & {"img", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in read.tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    (policy,) = (a["content"] for _, a in read.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert HOSTILE in "".join(read.words[""])


def test_every_word_of_ours_is_there_in_both_languages(tmp_path):
    read = Read(page_of(tmp_path, rows(), ["an event"]))
    assert len(read.words["en"]) == len(read.words["zh"]) > 20
    assert not any(re.search("[一-鿿]", text) for text in read.words["en"] if text != "中文")


def test_the_sentence_tells_the_best_reading_and_the_time_left(tmp_path):
    text = "".join(Read(page_of(tmp_path, rows(30))).words["en"])
    assert "Step 30 of 40; at best 1.167 nats a token, at step 30." in text
    assert "time left" in text
    assert "time left" not in "".join(Read(page_of(tmp_path, [{**r, "steps": 30} for r in rows(30)])).words["en"])
    assert "No step is done yet." in page_of(tmp_path, [])


def test_errors_are_not_drawn_on_the_scale_of_a_loss(tmp_path):
    text = "".join(Read(page_of(tmp_path, rows(30), unit="errors a target")).words["en"])
    assert "at best 1.167 errors a target" in text
    assert "Held out, errors a target" in text
    assert "Held out, " not in "".join(Read(page_of(tmp_path, rows(30))).words["en"])


def test_curves_show_what_was_measured():
    points = [(i, float(i % 7)) for i in range(1, 1001)]
    thin = thinned(points)
    assert len(thin) <= MOST
    assert thin[-1][0] == 1000
    assert sum(mean for _, mean, _, _ in thin) / len(thin) == pytest.approx(3.0, abs=0.1)
    assert all(low <= mean <= high for _, mean, low, high in thin)
    assert thinned([(1, 2.0)]) == [(1, 2.0, 2.0, 2.0)]
    figure = plot(("Loss", "损失"), [Curve(("a", "甲"), points[:5], band=True)], from_zero=False, marks=[3])
    (line,) = re.findall(r'class="curve main" d="M([^"]+)"', figure)
    ys = [float(pair.split()[1]) for pair in line.split("L")]
    assert ys == sorted(ys, reverse=True)  # up on the page is a smaller y
    assert figure.count("skipped") >= 2


def test_one_spike_does_not_flatten_a_curve_and_steps_with_no_value_do_no_harm():
    assert max(reasonable([1.0] * 99 + [1000.0])) == 1.0
    assert max(reasonable([1.0] * 99 + [2.0])) == 2.0
    assert reasonable([]) == []
    assert "<svg" in plot(("Loss", "损失"), [Curve(("a", "甲"), [])], from_zero=True)
    assert "<svg" in plot(("Loss", "损失"), [Curve(("a", "甲"), [(1, 0.0)])], from_zero=True)
