"""Labelled rows: what each lesson makes of them, that models learn from them, and rows that cannot be used."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

import qualm
from qualm.corpus.records import Record, read_records, split_records
from qualm.errors import InputError, Stopped, UsageError
from qualm.lm.base import Sampling
from qualm.lm.load import load_base
from qualm.teaching import Tuning, tune
from qualm.training.data import IGNORE
from qualm.training.lessons import Chat, Labels, Pairs, Question, Tag
from qualm.training.loop import Hooks
from qualm.training.losses import label_nats, labels_right
from qualm.training.preferences import Prefer
from qualm.training.recipe import RIGHT_OR_WRONG, Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings, TuneSettings
from qualm.training.tuning import LESSONS
from tiny import TEMPLATES, templated, tiny_tokens

GOOD, BAD = ("fine", "kind", "warm", "bright"), ("cold", "mean", "dull", "grim")
THINGS = ("day", "house", "soup", "song", "road", "friend")
FAST = TuneSettings(steps=150, batch=16, lr=3e-3, threads=1, eval_every=50, save_every=50)


def reviews(count: int = 240) -> list[dict]:
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        good = rng.random() < 0.5
        rows.append(
            {"text": f"a {rng.choice(GOOD if good else BAD)} {rng.choice(THINGS)}", "label": "+" if good else "-"}
        )
    return rows


def written(folder: Path, rows: list[dict], name: str = "rows.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A BERT, a T5 and a GPT that have seen a few words."""
    root = tmp_path_factory.mktemp("made")
    texts = [{"text": f"{row['text']} is {word}"} for row in reviews(80) for word in ("here", "there")]
    data = written(root, texts, "text.jsonl")

    def one(family: str):
        settings = TrainSettings(steps=20, batch=8, threads=1)
        train(data, root / family, Recipe(size=150_000, family=family, length=48, vocab=400, train=settings))
        return load_base(root / family)

    return {family: one(family) for family in ("bert", "t5", "gpt")}


# -- learning


def test_an_encoder_learns_labels(made, tmp_path):
    rows = written(tmp_path, reviews())
    tuned = tune(made["bert"], rows, tmp_path / "out", Tuning("classify", train=FAST))
    assert tuned.rows + tuned.held_out == 240
    lm = qualm.load(tmp_path / "out")
    held = reviews()[:60]
    said = [max(p, key=p.get) for p in lm.classify([row["text"] for row in held])]
    assert sum(a == row["label"] for a, row in zip(said, held, strict=True)) >= 57
    about = json.loads((tmp_path / "out" / "qualm.json").read_text())
    assert about["training"]["tuning"]["task"] == "classify"
    assert made["bert"].can == {"score", "fill", "embed", "weights"}  # it stays as it was


def test_a_label_is_read_from_the_first_token_or_from_all(made, tmp_path):
    rows, short = written(tmp_path, reviews()), replace(FAST, steps=10)

    def kind(lm, folder: str, pooling: Literal["cls", "mean"] | None = None) -> str:
        tune(lm, rows, tmp_path / folder, Tuning("classify", pooling=pooling, train=short))
        return json.loads((tmp_path / folder / "config.json").read_text())["model_type"]

    assert kind(made["bert"], "first") == kind(made["bert"], "first too", "cls") == "bert"
    assert kind(made["bert"], "all", "mean") == "qualm-bert"
    said = [qualm.load(tmp_path / folder).classify(["a kind soup", "cold"]) for folder in ("first", "first too", "all")]
    assert said[0] == said[1] != said[2]
    averaging = load_base(tmp_path / "all")
    assert kind(averaging, "all again") == "qualm-bert"
    assert kind(averaging, "back", "cls") == "bert"
    words = [{"tokens": row["text"].split(), "tags": ["O", row["label"], "O"]} for row in reviews()]
    tagged = tune(averaging, written(tmp_path, words, "words.jsonl"), tmp_path / "tags", Tuning("tag", train=short))
    assert json.loads((tagged.folder / "config.json").read_text())["model_type"] == "bert"  # averages nothing
    tune(made["bert"], rows, tmp_path / "merged", Tuning("classify", pooling="mean", lora=2, merge=True, train=short))
    assert load_base(tmp_path / "merged").model.config.pooling == "mean"


def test_a_mean_that_goes_with_nothing_is_refused():
    with pytest.raises(UsageError, match="for classify, not tag") as caught:
        Tuning("tag", pooling="mean")
    assert caught.value.where == "pooling"
    with pytest.raises(UsageError, match="would not know") as caught:
        Tuning("classify", pooling="mean", lora=4)
    assert caught.value.then == "say --merge"


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_the_weights_that_tell_most_right_can_be_kept(made, tmp_path, task):
    """Labels that are wrong by chance: a model that learns them by heart loses nats before it loses labels."""
    rng, rows = random.Random(2), reviews()
    for row in rows:
        row["label"] = rng.choice("+-") if rng.random() < 0.4 else row["label"]
    if task == "tag":
        rows = [{"tokens": row["text"].split(), "tags": ["O", row["label"], "O"]} for row in rows]
    data, settings = written(tmp_path, rows), replace(FAST, steps=40, eval_every=4, save_every=40)
    said: dict[str, list[str]] = {"loss": [], "accuracy": []}
    kept = {
        keep: tune(
            made["bert"],
            data,
            tmp_path / keep,
            Tuning(task, keep=keep, train=settings),  # type: ignore[arg-type]
            Hooks(on_event=said[keep].append),
        )
        for keep in ("loss", "accuracy")
    }
    read = [line for line in said["accuracy"] if line.startswith("held out: ")]
    assert read == [line for line in said["loss"] if line.startswith("held out: ")]  # they learn the same
    losses, right = zip(*(map(float, re.findall(r"[\d.]+", line)) for line in read), strict=True)
    assert kept["loss"].result.best_step == 4 * (1 + losses.index(min(losses)))
    assert kept["accuracy"].result.best_step == 4 * (1 + right.index(max(right)))
    assert kept["accuracy"].result.best == pytest.approx(1 - max(right), abs=1e-4)
    assert kept["accuracy"].figures["accuracy"] == pytest.approx(max(right), abs=1e-4)
    units = [json.loads((tmp_path / keep / "qualm.json").read_text())["training"]["unit"] for keep in kept]
    assert units == ["nats a target", "errors a target"]
    if task == "classify":
        _, held = split_records(*read_records(data)[:1], 0.1)
        found = qualm.load(tmp_path / "accuracy").classify([row["text"] for row in held])
        share = sum(max(p, key=p.get) == row["label"] for p, row in zip(found, held, strict=True)) / len(held)
        assert share == pytest.approx(max(right), abs=1e-4)


def test_what_is_told_right_is_counted_of_texts_tokens_and_several_labels():
    one = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert labels_right(one, torch.tensor([0, 0, 0])) == 2
    words = one[None]
    assert labels_right(words, torch.tensor([[0, IGNORE, 1]])) == 1
    assert label_nats(words, torch.tensor([[0, IGNORE, 1]]))[1] == 2
    several = torch.tensor([[2.0, -1.0], [0.5, 1.0]])
    assert labels_right(several, torch.tensor([[1.0, 1.0], [0.0, 1.0]])) == 2
    assert label_nats(several, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))[1] == 4


def test_most_right_cannot_be_kept_of_what_is_not_right_or_wrong():
    for task in ("seq2seq", "chat", "qa"):
        with pytest.raises(UsageError, match="told right or wrong") as caught:
            Tuning(task, keep="accuracy")
        assert caught.value.where == "keep"
    assert {name for name, kind in LESSONS.items() if issubclass(kind, Labels | Prefer)} == set(RIGHT_OR_WRONG)


def test_the_weights_that_tell_most_pairs_right_can_be_kept(made, tmp_path):
    rows = [{"prompt": "a", "chosen": f" {row['text']}", "rejected": f" {row['text'][::-1]}"} for row in reviews(60)]
    settings = replace(FAST, steps=8, eval_every=2, save_every=8)
    tuned = tune(
        made["gpt"], written(tmp_path, rows), tmp_path / "out", Tuning("prefer", keep="accuracy", train=settings)
    )
    assert tuned.result.best == pytest.approx(1 - tuned.figures["accuracy"])
    assert tuned.result.best == min(value for _, value in tuned.result.validations)


def test_several_labels_at_once(made, tmp_path):
    rows = [{**row, "label": [row["label"], "food"] if "soup" in row["text"] else [row["label"]]} for row in reviews()]
    tune(made["bert"], written(tmp_path, rows), tmp_path / "out", Tuning("classify", train=FAST))
    [p] = qualm.load(tmp_path / "out").classify(["a kind soup"])
    assert p["+"] > 0.5 < p["food"]
    assert p["-"] < 0.5


def test_an_encoder_learns_tags(made, tmp_path):
    rows = [
        {"tokens": row["text"].split(), "tags": ["O", "B-" + ("POS" if row["label"] == "+" else "NEG"), "B-THING"]}
        for row in reviews()
    ]
    tune(made["bert"], written(tmp_path, rows), tmp_path / "out", Tuning("tag", train=FAST))
    [spans] = qualm.load(tmp_path / "out").tag(["a grim song"])
    assert [(span.label, "a grim song"[span.start : span.end]) for span in spans] == [
        ("NEG", "grim"),
        ("THING", "song"),
    ]


def test_an_encoder_learns_to_find_answers(made, tmp_path):
    rows, rng = [], random.Random(1)
    for _ in range(300):
        word, thing = rng.choice(GOOD + BAD), rng.choice(THINGS)
        context = f"a {word} {thing} is {rng.choice(('here', 'there'))}"
        answers = {"text": [word], "answer_start": [2]}
        rows.append({"question": "how is it", "context": context, "answers": answers})
    tune(made["bert"], written(tmp_path, rows), tmp_path / "out", Tuning("qa", train=FAST))
    [found] = qualm.load(tmp_path / "out").answer([("how is it", "a dull road is here")])
    assert found.text == "dull"


@pytest.mark.parametrize("family", ["t5", "gpt"])
def test_writers_learn_pairs(made, family, tmp_path):
    rows = [{"prompt": row["text"], "completion": " light" if row["label"] == "+" else " bad"} for row in reviews()]
    tune(
        made[family],
        written(tmp_path, rows),
        tmp_path / "out",
        Tuning("seq2seq", train=replace(FAST, steps=250, lr=5e-3)),
    )
    said = qualm.load(tmp_path / "out").generate(["a warm house", "a mean friend"], Sampling(max_tokens=8))
    assert [answer.text.strip() for answer in said] == ["light", "bad"]
    assert all(answer.finish == "stop" for answer in said)


def test_a_decoder_learns_to_answer_in_its_template(made, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": f"so {row['label']}"}]}
        for row in reviews()
    ]
    tune(made["gpt"], written(tmp_path, rows), tmp_path / "out", Tuning("chat", train=FAST))
    lm = qualm.load(tmp_path / "out")
    assert lm.generate([[{"role": "user", "content": "a bright song"}]])[0].text == "so +"


def test_a_stopped_tuning_goes_on_bit_for_bit(made, tmp_path):
    rows, tuning = written(tmp_path, reviews()), Tuning("classify", train=replace(FAST, steps=12, save_every=4))
    tune(made["bert"], rows, tmp_path / "whole", tuning)
    stops = iter([False] * 5 + [True])
    with pytest.raises(Stopped):
        tune(made["bert"], rows, tmp_path / "cut", tuning, Hooks(should_stop=lambda: next(stops)))
    tune(made["bert"], rows, tmp_path / "cut", tuning)
    first, second = (qualm.load(tmp_path / name).card.weights for name in ("whole", "cut"))
    assert first == second


# -- what is learnt of a row


def test_only_what_the_assistant_says_is_learnt():
    tokens = templated("turns")
    messages = [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
        {"role": "assistant", "content": "five six"},
    ]
    example = Chat(tokens, 64, []).example(Record({"messages": messages}, "here:1"))
    learnt = [i for i in example["labels"] if i != IGNORE]
    assert tokens.decode(learnt, skip_special=False) == f"three{tokens.eos}five six{tokens.eos}"
    ids, said = tokens.encode_turns(messages)
    assert ids == tokens.encode_prompt(messages, generation=False)
    assert len(said) == len(ids)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_is_learnt_is_what_is_said_in_every_template(name):
    tokens = templated(name)
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two three"}]
    ids, said = tokens.encode_turns(messages)
    learnt = tokens.decode([i for i, learn in zip(ids, said, strict=True) if learn])
    assert "two three" in learnt
    assert "one" not in learnt


def test_pairs_learn_the_completion_and_its_end():
    tokens = tiny_tokens()
    example = Pairs(tokens, 64, []).example(Record({"prompt": "ab cd", "completion": " ef"}, "here:1"))
    learnt = [i for i in example["labels"] if i != IGNORE]
    assert tokens.decode(learnt, skip_special=False) == f" ef{tokens.eos}"
    assert len(example["ids"]) == len(example["labels"])


def test_a_tag_stands_on_the_first_token_of_its_word():
    tokens = tiny_tokens()
    row = Record({"tokens": ["Zażółć", "a", "gęślą"], "tags": ["B-X", "O", "I-X"]}, "here:1")
    lesson = Tag(tokens, 64, [row])
    example = lesson.example(row)
    assert [lesson.labels[i] for i in example["labels"] if i != IGNORE] == ["B-X", "O", "I-X"]
    inside = example["ids"][len(tokens.start) :]
    firsts = [i for i, label in enumerate(example["labels"][len(tokens.start) :]) if label != IGNORE]
    assert [tokens.decode(inside[a:b]).strip() for a, b in zip(firsts, [*firsts[1:], len(inside)], strict=True)] == [
        "Zażółć",
        "a",
        "gęślą",
    ]


def test_a_long_context_keeps_the_window_with_the_answer():
    tokens = tiny_tokens()
    context = "nothing " * 80 + "the key is blue " + "nothing " * 80
    answers = {"text": ["blue"], "answer_start": [context.index("blue")]}
    lesson = Question(tokens, 48, [])
    example = lesson.example(Record({"question": "which key", "context": context, "answers": answers}, "here:1"))
    assert len(example["ids"]) <= 48
    assert tokens.decode(example["ids"][example["starts"] : example["stops"] + 1]).strip() == "blue"
    assert lesson.cut == 1


# -- rows that cannot be used


@pytest.mark.parametrize(
    ("task", "rows", "said"),
    [
        ("classify", [{"text": "a"}], r"rows.jsonl:1: field 'label' is missing; .*text"),
        (
            "classify",
            [{"text": "a", "label": "x"}, {"text": "b", "label": 1.5}],
            r":2: field 'label' is 1.5, not a lab",
        ),
        ("classify", [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], r"all rows have the label 'x'"),
        ("classify", [{"text": "", "label": "x"}, {"text": "b", "label": "y"}], r"field 'text' is '', not a text"),
        ("tag", [{"tokens": ["a", "b"], "tags": ["X"]}, {"tokens": ["a"], "tags": ["X"]}], r":1: 2 tokens and 1 tags"),
        ("qa", [{"question": "q", "context": "c", "answers": 3}] * 2, r":1: field 'answers' is 3"),
        (
            "qa",
            [{"question": f"q{i}", "context": "c", "answers": {"text": ["d"], "answer_start": [0]}} for i in range(3)],
            r"the context has no 'd' at character 0",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(made, task, rows, said, tmp_path):
    folder = tmp_path / "rows"
    written(folder, rows, "train.jsonl")
    written(folder, rows, "validation.jsonl")
    with pytest.raises(InputError, match=said.replace("rows.jsonl", "train.jsonl")):
        tune(made["bert"], folder, tmp_path / "out", Tuning(task, train=FAST))


def test_labels_out_of_range_and_lessons_that_do_not_go_with_the_model(made, tmp_path):
    folder = tmp_path / "rows"
    written(folder, [{"text": "a", "label": 0}, {"text": "b", "label": 1}], "train.jsonl")
    written(folder, [{"text": "a", "label": 7}], "validation.jsonl")
    with pytest.raises(InputError, match=r"validation.jsonl:1: label '7' is not among those learnt; say 0, 1"):
        tune(made["bert"], folder, tmp_path / "out", Tuning("classify", train=FAST))
    with pytest.raises(UsageError, match=r"a gpt2 model does not learn 'classify'; say --task seq2seq or chat"):
        tune(made["gpt"], folder, tmp_path / "out", Tuning("classify", train=FAST))
    with pytest.raises(UsageError, match="no task is named 'clasify'"):
        tune(made["gpt"], folder, tmp_path / "out", Tuning("clasify", train=FAST))


def test_rows_are_read_from_tables_and_folders(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one, two",x\nthree,y\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text("text\tlabel\nein\tx\n")
    rows, held = read_records(tmp_path / "a.csv")
    assert [dict(row) for row in rows] == [{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]
    assert not held
    assert rows[1].where.endswith("a.csv:3")
    assert read_records(tmp_path / "a.tsv")[0][0]["text"] == "ein"
    (tmp_path / "b.csv").write_text("text,label\none\n")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\nnot json\n')
    for name, said in (("b.csv", r"b.csv:2: has not as many cells"), ("b.jsonl", r"b.jsonl:2: not a JSON record")):
        with pytest.raises(InputError, match=said):
            read_records(tmp_path / name)
    for bad, said in ((tmp_path / "none.csv", "no such file"), (tmp_path, r"holds no train.jsonl")):
        with pytest.raises(InputError, match=said):
            read_records(bad)


def test_rows_are_split_by_content():
    rows = [Record({"text": str(i % 50)}, f"x:{i}") for i in range(100)]
    left, held = split_records(rows, 0.2)
    assert len(left) + len(held) == 100
    assert not {row["text"] for row in left} & {row["text"] for row in held}
    assert 14 <= len(held) <= 26
    with pytest.raises(InputError, match="fewer than two"):
        split_records(rows[:1], 0.5)
