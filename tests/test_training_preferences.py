"""Preferences: the losses are those of the papers, the better answers gain on held-out pairs, and the divergence from
the start is read exactly."""

import math
import random
from dataclasses import replace

import pytest
import torch

import qualm
from qualm.corpus.records import Record
from qualm.errors import InputError, Stopped, UsageError
from qualm.teaching import Tuning, tune
from qualm.training.data import IGNORE, ExampleRows, collate
from qualm.training.loop import Hooks
from qualm.training.preferences import HELD, Prefer, Preferred, log_likelihoods, preference_loss
from qualm.training.settings import TuneSettings
from test_training_adapters import apart, logits, made
from test_tuning import BAD, GOOD, THINGS, written
from tiny import templated, tiny_local, tiny_tokens

FAST = TuneSettings(steps=30, batch=8, lr=3e-3, threads=1, eval_every=10, save_every=5)


def pairs(count: int = 80) -> list[dict]:
    """The better answer names the mood of the prompt."""
    rng, rows = random.Random(0), []
    for _ in range(count):
        good = rng.random() < 0.5
        said = (" light", " dark") if good else (" dark", " light")
        prompt = f"a {rng.choice(GOOD if good else BAD)} {rng.choice(THINGS)} {rng.randrange(100)} is"
        rows.append({"prompt": prompt, "chosen": said[0], "rejected": said[1]})
    return rows


def batch_of(lm, rows, tmp_path, wanted=Tuning("prefer")):
    lesson = Prefer(lm.tokens, 48, [], wanted)
    return lesson, lesson.examples([Record(row, f"here:{i}") for i, row in enumerate(rows)], lm.model, tmp_path)


@torch.no_grad()
def by_hand(model, tokens, prompt, answer) -> float:
    """log p(answer and end | prompt), token by token from the whole logits."""
    first = len([*tokens.start, *tokens.encode(prompt)])
    ids = [*tokens.start, *tokens.encode(prompt + answer), tokens.eos_id]
    logprobs = model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    return sum(float(logprobs[i - 1, ids[i]]) for i in range(first, len(ids)))


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_the_loss_is_the_papers(kind, tmp_path):
    before, now, tokens = tiny_local(0), tiny_local(1), tiny_tokens()
    rows, beta = pairs(6), 0.3
    _, examples = batch_of(before, rows, tmp_path)
    found, count = Preferred(kind, beta)(now.model, collate(examples))
    wanted = 0.0
    for row in rows:
        said = {
            (name, answer): by_hand(lm.model, tokens, row["prompt"], row[answer])
            for name, lm in (("before", before), ("now", now))
            for answer in ("chosen", "rejected")
        }
        margin = (said["now", "chosen"] - said["before", "chosen"]) - (
            said["now", "rejected"] - said["before", "rejected"]
        )
        wanted += math.log1p(math.exp(-beta * margin)) if kind == "dpo" else (margin - 1 / (2 * beta)) ** 2
    assert count == 6
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-6)


def test_the_loss_of_single_answers_is_the_papers(tmp_path):
    """KTO, section 4.1: 1 - value, felt from how far answers to other prompts gained; and no gradient through that."""
    before, now, tokens = tiny_local(0), tiny_local(1), tiny_tokens()
    rows, beta = pairs(6), 0.3
    _, examples = batch_of(before, rows, tmp_path, Tuning("prefer", preference="kto"))

    def gained(prompt, answer):
        return by_hand(now.model, tokens, prompt, answer) - by_hand(before.model, tokens, prompt, answer)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    others = [gained(row["prompt"], rows[(i + 1) % 6]["chosen"]) for i, row in enumerate(rows)]
    for sign in (1, -1):  # a point above 0, and one that is cut there
        batch = collate(examples)
        batch["other_before"] = batch["other_before"] - sign * 10
        z = max(0.0, sum(others) / 6 + sign * 10)
        good = [1 - sigmoid(beta * (gained(row["prompt"], row["chosen"]) - z)) for row in rows]
        bad = [1 - sigmoid(beta * (z - gained(row["prompt"], row["rejected"]))) for row in rows]
        found, count = Preferred("kto", beta)(now.model, batch)
        assert count == 6
        assert float(found.detach()) == pytest.approx((sum(good) + sum(bad)) / 2, rel=1e-5)
    gains = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    preference_loss(gains, "kto", beta).sum().backward()
    assert gains.grad is not None
    assert not gains.grad[:, 2].any()
    assert gains.grad[:, :2].all()


def test_the_gradient_is_that_of_the_whole_logits(tmp_path):
    lm = tiny_local(0)
    _, examples = batch_of(lm, pairs(4), tmp_path)
    batch = collate(examples)
    log_likelihoods(lm.model, batch["ids"], batch["labels"]).sum().backward()
    ours = {name: weight.grad.clone() for name, weight in lm.model.named_parameters()}
    lm.model.zero_grad()
    whole = lm.model(batch["ids"]).float().log_softmax(-1)
    wanted = batch["labels"] != IGNORE
    whole[wanted].gather(1, batch["labels"][wanted][:, None]).sum().backward()
    for name, weight in lm.model.named_parameters():
        assert torch.allclose(ours[name], weight.grad, atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize(("kind", "lora"), [("dpo", 0), ("dpo", 4), ("ipo", 4), ("kto", 4)])
def test_better_answers_gain_on_held_out_pairs(kind, lora, tmp_path):
    lm, told = made("gpt", tmp_path / "base"), []
    fast = replace(FAST, steps=60, eval_every=20) if kind == "kto" else FAST  # its gradients are smaller
    tuning = Tuning("prefer", preference=kind, lora=lora, beta=0.2, train=fast)
    tuned = tune(lm, written(tmp_path, pairs()), tmp_path / "out", tuning, Hooks(on_event=told.append))
    assert tuned.figures["margin"] > 1
    assert tuned.figures["accuracy"] > 0.9
    assert tuned.figures["kl"] > 1e-3
    assert sum("margin" in line and "kl" in line for line in told) == 3  # at each validation
    after = qualm.load(tmp_path / "out")
    held = pairs(300)[80:]
    gained = [
        sum(
            sign
            * (after.score([(row["prompt"], row[name])])[0].total - lm.score([(row["prompt"], row[name])])[0].total)
            for name, sign in (("chosen", 1), ("rejected", -1))
        )
        for row in held[:20]
    ]
    assert sum(gained) / len(gained) > 1


def test_the_divergence_is_nought_at_the_start_and_exact_after(tmp_path, monkeypatch):
    before, now = tiny_local(0), tiny_local(1)
    lesson, examples = batch_of(before, pairs(40), tmp_path)
    rows = ExampleRows(examples, {})
    lesson.begin(before.model, rows)
    assert lesson.divergence(before.model, rows) == pytest.approx(0, abs=1e-7)
    total, places = 0.0, 0
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example["ids"]])
            p, q = (lm.model(ids)[0].double().log_softmax(-1) for lm in (now, before))
            at = [i for i, label in enumerate(example["labels"]) if label != IGNORE]
            total += float((p[at].exp() * (p[at] - q[at])).sum())
            places += len(at)
    assert lesson.divergence(now.model, rows) == pytest.approx(total / places, rel=1e-5)
    monkeypatch.setattr("qualm.training.preferences.HELD", 5 * before.model.config.vocab_size)
    lesson.begin(before.model, rows)
    assert sum(len(part) for part in lesson.before) == 5
    assert HELD == 2**24


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    lm, rows = made("gpt", tmp_path / "base"), written(tmp_path, pairs(40))
    tuning = Tuning("prefer", lora=2, merge=True, train=FAST)
    tune(lm, rows, tmp_path / "whole", tuning)
    stops = iter([False] * 11 + [True])
    with pytest.raises(Stopped):
        tune(lm, rows, tmp_path / "cut", tuning, Hooks(should_stop=lambda: next(stops)))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "run").glob("before-*")}
    assert len(kept) == 2  # of the rows, and of the held-out ones
    tune(lm, rows, tmp_path / "cut", tuning)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "run").glob("before-*")}
    whole, cut = (qualm.load(tmp_path / name) for name in ("whole", "cut"))
    assert whole.card.weights == cut.card.weights
    assert apart(logits(whole.model), logits(lm.model)) > 1e-3
    with pytest.raises(InputError, match=r"data.beta was '0.1' and is now '0.5'"):
        tune(lm, rows, tmp_path / "cut", Tuning("prefer", lora=2, beta=0.5, train=FAST))


def test_messages_are_put_in_the_template_and_only_the_last_answer_counts():
    tokens = templated("turns")
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    row = Record({"prompt": messages, "chosen": "four five", "rejected": "six"}, "here:1")
    example = Prefer(tokens, 64, []).example(row)
    for labels, said in (("labels", "four five"), ("rejected_labels", "six")):
        learnt = [i for i in example[labels] if i != IGNORE]
        assert tokens.decode(learnt, skip_special=False) == f"{said}{tokens.eos}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen": " light", "rejected": " light"}, "chosen and rejected are the same; drop the row"),
        ({"rejected": None}, "field 'rejected' is None, not a text"),
        ({"prompt": [{"role": "user"}]}, "field 'prompt' is .*, not a text or a list of messages"),
        ({"prompt": 3}, "field 'prompt' is 3, not a text"),
        ({"prompt": "a b c " * 60}, "the prompt leaves no room in 48 tokens"),
    ],
)
def test_pairs_that_cannot_be_used_are_named(change, said):
    lesson = Prefer(tiny_tokens(), 48, [])
    with pytest.raises(InputError, match=f"here:7: {said}"):
        lesson.example(Record({**pairs(1)[0], **change}, "here:7"))


def test_a_model_that_cannot_prefer(tmp_path):
    with pytest.raises(UsageError, match=r"a t5 model does not learn 'prefer'; say --task seq2seq"):
        tune(made("t5", tmp_path / "base"), written(tmp_path, pairs(9)), tmp_path / "out", Tuning("prefer"))
    with pytest.raises(UsageError, match="beta: must be above 0, not 0"):
        Tuning("prefer", beta=0.0)
