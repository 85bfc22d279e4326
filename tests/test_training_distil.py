"""Distillation: the loss is Hinton's, and a student with a teacher comes closer to it than one with the text alone."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from conftest import ANIMALS, COLOURS, NAMES
from qualm.errors import InputError, UsageError
from qualm.models.store import load_model
from qualm.tokens.tokenizer import Tokens
from qualm.training.data import IGNORE, Batch
from qualm.training.distil import Distilled
from qualm.training.head import CHUNK
from qualm.training.recipe import Recipe
from qualm.training.run import train
from qualm.training.settings import TrainSettings
from qualm.training.size import build
from tiny import tiny_tokens

TEACHING = TrainSettings(steps=120, batch=8, threads=1, eval_every=120)
LEARNING = TrainSettings(steps=80, batch=8, threads=1, eval_every=80)


@pytest.fixture(scope="module")
def teacher(notes, tmp_path_factory):
    """A model that knows the notes well."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    train(notes, folder, Recipe(size=80_000, length=64, vocab=400, train=TEACHING))
    return folder


def batch(width: int = 12) -> Batch:
    ids = torch.randint(0, 300, (3, width), generator=torch.Generator().manual_seed(0))
    labels = ids.roll(-1, 1)
    labels[0, 4:] = IGNORE
    return Batch(ids=ids, labels=labels)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_paper(mix):
    one, other, rows = build("gpt", 1, 300, 400, seed=0), build("llama", 2, 320, 400, seed=1), batch(CHUNK // 2)
    nats, count = Distilled(other, 3.0, mix)(one, rows)
    nats.backward()
    got = {name: weight.grad.clone() for name, weight in one.named_parameters() if weight.grad is not None}
    one.zero_grad()
    wanted = rows["labels"] != IGNORE
    logits, known = one(rows["ids"])[wanted].double(), other(rows["ids"])[wanted].double()[:, :300]
    p = (known / 3).softmax(-1)
    soft = (p * (p.log() - (logits / 3).log_softmax(-1))).sum() * 9
    expected = mix * soft + (1 - mix) * F.cross_entropy(logits, rows["labels"][wanted], reduction="sum")
    expected.backward()
    assert count == int(wanted.sum())
    assert float(nats.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for name, weight in one.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(got[name], weight.grad, atol=1e-4, rtol=1e-3), name
    assert all(weight.grad is None for weight in other.parameters())


def divergence(teacher, folder, texts) -> float:
    """KL(teacher || student), nats a token."""
    tokens, models, parts = Tokens.load(teacher), (load_model(teacher), load_model(folder)), []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([tokens.encode(text)[:64]])
            p, q = (model(ids)[0].double().log_softmax(-1) for model in models)
            parts.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(parts).mean())


def said(rng: random.Random) -> str:
    name, colour, animal = rng.choice(NAMES), rng.choice(COLOURS), rng.choice(ANIMALS)
    return f"{name} has a {colour} {animal}. The {animal} is {colour}.\n"


def test_a_student_with_a_teacher_comes_closer_to_it(teacher, tmp_path):
    few, rng = tmp_path / "few", random.Random(1)
    few.mkdir()
    for number in range(2):  # too little to learn the language from, so that the text alone misleads
        (few / f"{number}.txt").write_text("".join(said(rng) for _ in range(20)))
    student = Recipe(size=40_000, length=64, held_out=few / "1.txt", train=LEARNING)
    train(few, tmp_path / "hard", replace(student, tokenizer=teacher))
    train(few, tmp_path / "soft", replace(student, teacher=teacher, mix=0.9))
    texts = [said(rng) + said(rng) for _ in range(30)]
    hard, soft = (divergence(teacher, tmp_path / name, texts) for name in ("hard", "soft"))
    assert soft < 0.6 * hard
    assert Tokens.load(tmp_path / "soft").hash == Tokens.load(teacher).hash
    train(few, tmp_path / "soft", replace(student, teacher=teacher, mix=0.9))  # it is done, and goes on from there
    with pytest.raises(InputError, match=r"data.mix was '0.9' and is now '0.5'"):
        train(few, tmp_path / "soft", replace(student, teacher=teacher))


def test_teachers_that_cannot_teach(notes, teacher, tmp_path):
    student = Recipe(size=40_000, length=64, train=LEARNING)
    tiny_tokens().save(tmp_path / "other")
    with pytest.raises(InputError, match=r"the teacher's tokenizer \(\d+ tokens, \w{12}\) is not .*other"):
        train(notes, tmp_path / "a", replace(student, teacher=teacher, tokenizer=tmp_path / "other"))
    longest = load_model(teacher).config.context
    with pytest.raises(UsageError, match=f"the teacher can look at {longest} tokens; say --length {longest}"):
        train(notes, tmp_path / "b", replace(student, teacher=teacher, length=longest + 1))
    with pytest.raises(UsageError, match=r"bert does not learn by 'distil'; say masked"):
        train(notes, tmp_path / "c", replace(student, teacher=teacher, family="bert"))
    with pytest.raises(UsageError, match="a teacher teaches nothing by 'next'"):
        train(notes, tmp_path / "d", replace(student, teacher=teacher, objective="next"))
    with pytest.raises(UsageError, match="no teacher is named; say --teacher FOLDER"):
        train(notes, tmp_path / "e", replace(student, objective="distil"))
    for wrong, said in (({"temperature": 0.0}, "temperature: must be above 0"), ({"mix": 1.5}, "mix: must be between")):
        with pytest.raises(UsageError, match=said):
            Recipe(**wrong)


def test_from_the_command_line(qualm, notes, teacher):
    words = ["--size", "30k", "--length", "64", "--steps", "3", "--batch", "4"]
    done = qualm("train", notes, "-o", "out", "--teacher", teacher, "--temperature", 1, *words)
    assert done.code == 0, done.err
    assert qualm("train", notes, "-o", "other", "--teacher", "nothing", *words).code == 4
