"""A batch that requests join and leave: nobody's answer hangs on the company, on the pieces, or on what was kept."""

import random
from dataclasses import replace

import pytest
import torch

from qualm.cases import ask
from qualm.errors import TooLong, Unsupported, UsageError
from qualm.lm import engine, prefixes
from qualm.lm.base import LM, Completion, Sampling
from qualm.lm.batch import Delta
from qualm.lm.fake import named
from qualm.lm.prefixes import Prefixes
from qualm.models._caches import Cache
from test_families import subject
from tiny import PASSAGE, TEXTS, exact_local, saying, tiny_local

FAMILIES = ("llama", "gpt", "rnn", "textgenrnn", "t5", "marian", "ssru", "rnn_attention")
MIXED = [
    Sampling(max_tokens=12),
    Sampling(max_tokens=9, temperature=1.0, top_p=0.9, seed=3),
    Sampling(max_tokens=7, beams=3),
    Sampling(max_tokens=10, repetition_penalty=1.3, alternatives=3),
    Sampling(max_tokens=8, contrast=0.5, top_k=3),
    Sampling(max_tokens=14, lookup=4),
    Sampling(max_tokens=11, temperature=0.8, lookup=3, seed=1),
]


def prompts(count: int, seed: int = 0) -> list[str]:
    """Pieces of text of many lengths."""
    draw = random.Random(seed)
    starts = [draw.randrange(len(PASSAGE) - 60) for _ in range(count)]
    return [PASSAGE[start : start + draw.randrange(1, 50)] for start in starts]


def finished(batch, asked) -> dict[int, Completion]:
    """Join everything at once, and step until all is done."""
    tickets = [batch.join(prompt, sampling) for prompt, sampling in asked]
    told = gathered(batch)
    return {i: told[ticket].completion for i, ticket in enumerate(tickets)}


def gathered(batch) -> dict[int, Delta]:
    """All deltas of each request as one; they add up to its completion."""
    whole: dict[int, Delta] = {}
    while batch:
        for ticket, new in batch.step().items():
            old = whole.get(ticket, Delta())
            assert old.completion is None, "nothing comes after the completion"
            whole[ticket] = Delta(old.text + new.text, (*old.tokens, *new.tokens), new.completion)
    for delta in whole.values():
        assert delta.completion is not None
        assert delta.text == delta.completion.text
        assert not delta.tokens or tuple(token.logprob for token in delta.tokens) == delta.completion.logprobs
    return whole


def same(a: Completion, b: Completion) -> bool:
    return (a.text, a.finish, a.tokens) == (b.text, b.finish, b.tokens) and a.logprobs == pytest.approx(
        b.logprobs, abs=1e-3
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_company_changes_nobodys_answer(family):
    lm = subject(family)
    draw = random.Random(1)
    asked = [(prompt, draw.choice(MIXED)) for prompt in prompts(24)]
    alone = [lm.generate([prompt], sampling)[0] for prompt, sampling in asked]
    batch, waiting, told, tickets = lm.batch(rows=12), list(enumerate(asked)), {}, {}
    while batch or waiting:
        for _ in range(min(len(waiting), draw.randrange(4))):
            i, (prompt, sampling) = waiting.pop(0)
            tickets[batch.join(prompt, sampling)] = i
        told |= {tickets[t]: d.completion for t, d in batch.step().items() if d.completion}
    assert all(same(told[i], alone[i]) for i in range(len(asked)))
    assert (batch.running, batch.waiting, batch.held) == (0, 0, 0)


# float32 rounds by how many rows a product has, so that a near tie may fall otherwise; float64 as good as never
MADE = pytest.mark.parametrize(("made", "apart"), [(exact_local, 0), (tiny_local, 2)])


@MADE
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_200_prompts_alone_and_by_sixteen_are_answered_alike(temperature, made, apart):
    lm, some = made(), prompts(200)
    sampling = Sampling(max_tokens=16, temperature=temperature, top_p=0.95, seed=5)
    alone = [lm.generate([prompt], sampling)[0].text for prompt in some]
    together = finished(lm.batch(rows=16), [(prompt, sampling) for prompt in some])
    assert sum(together[i].text != alone[i] for i in range(200)) <= apart


@MADE
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_guessing_ahead_changes_no_token_of_200_answers(temperature, made, apart):
    lm, some = made(context=128), [prompt * 2 for prompt in prompts(200, seed=2)]
    plain = Sampling(max_tokens=40, temperature=temperature, seed=2)
    with_it = Sampling(max_tokens=40, temperature=temperature, seed=2, lookup=5)
    guessed, written = (lm.generate(some, sampling) for sampling in (with_it, plain))
    assert sum(a.text != b.text for a, b in zip(guessed, written, strict=True)) <= apart


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_another_model_s_guesses_change_no_token(temperature):
    lm, some = exact_local(context=128), prompts(40, seed=3)
    sampling = Sampling(max_tokens=24, temperature=temperature, seed=1)
    plain = [a.text for a in lm.generate(some, sampling)]
    for draft in (exact_local(seed=4), lm):
        guessed = lm.drafted_by(draft)
        assert [a.text for a in guessed.generate(some, replace(sampling, lookup=4))] == plain


def test_a_drafter_that_is_always_right_saves_most_steps_and_must_fit():
    lm = tiny_local(context=128)
    batch, steps = lm.drafted_by(lm).batch(), 0
    batch.join("The quick", Sampling(max_tokens=100, lookup=4, logit_bias=((0, -100.0),)))
    while batch:
        batch.step()
        steps += 1
    assert steps < 40
    with pytest.raises(UsageError, match="cannot guess for"):
        lm.drafted_by(subject("rnn"))


def test_guesses_that_come_true_save_steps():
    lm = tiny_local(context=128)
    counts = []
    for lookup in (0, 5):
        batch, steps = lm.batch(), 0
        batch.join("The quick", Sampling(max_tokens=100, logit_bias=((50, 20.0),), lookup=lookup))
        while batch:
            batch.step()
            steps += 1
        counts.append(steps)
    assert counts[1] < counts[0] / 3


def test_prompts_in_pieces_are_read_as_whole_ones(monkeypatch):
    lm, some = tiny_local(), [TEXTS[0], TEXTS[2], "a b c", "x"]
    whole = lm.generate(some, Sampling(max_tokens=10))
    monkeypatch.setattr(engine, "CHUNK", 7)
    pieces = finished(lm.batch(), [(prompt, Sampling(max_tokens=10)) for prompt in some])
    assert all(same(pieces[i], whole[i]) for i in range(len(some)))


def test_a_long_prompt_does_not_stop_those_that_run(monkeypatch):
    lm = tiny_local()
    batch = lm.batch()
    first = batch.join("The", Sampling(max_tokens=50, logit_bias=((0, -100.0),)))
    batch.step()
    monkeypatch.setattr(engine, "CHUNK", 5)
    batch.join(TEXTS[0], Sampling(max_tokens=4))
    written = [len(batch.step().get(first, Delta()).tokens) for _ in range(8)]
    assert sum(written) >= 6, "a token a step, but for those whose character is not whole"


def counted(lm, monkeypatch) -> list[int]:
    """How many ids each call to the model reads."""
    read, hidden = [], lm.model.hidden

    def told(ids, *rest, **more):
        read.append(ids.numel())
        return hidden(ids, *rest, **more)

    monkeypatch.setattr(lm.model, "hidden", told)
    return read


def test_what_prompts_begin_with_alike_is_read_once(monkeypatch):
    monkeypatch.setattr(engine, "SHARED", 8)
    monkeypatch.setattr(prefixes, "SHARED", 8)
    lm, one = tiny_local(), Sampling(max_tokens=1)
    head = TEXTS[0][:60]
    some = [head + end for end in (" and", " or not", " 今天", " x", " x")]
    wanted = [tiny_local().generate([prompt], Sampling(max_tokens=6))[0] for prompt in some]
    plain, read = sum(len(lm.tokens.encode_prompt(prompt)) for prompt in some), counted(lm, monkeypatch)
    batch = lm.batch()
    finished(batch, [(prompt, one) for prompt in some])
    assert sum(read) < plain / 2
    assert batch.prefixes.held > 0
    before = len(read)
    finished(batch, [(some[0], one)])
    assert sum(read[before:]) == 1, "a prompt that was read is not read again"
    again = finished(lm.batch(), [(prompt, Sampling(max_tokens=6)) for prompt in some])
    assert all(same(again[i], wanted[i]) for i in range(len(some)))


class Kept(Cache):
    def __init__(self, length):
        self.lengths = torch.tensor([length])

    def keep(self, rows): ...

    def add(self, other): ...

    def beginning(self, row, length):
        return Kept(length)


def test_what_is_kept_is_bounded_and_the_last_used_stays():
    kept = Prefixes(100)
    texts = [[i] * 40 for i in range(4)]
    for ids in texts[:2]:
        kept.keep(ids, Kept(40), 0)
    assert kept.find([*texts[0], 9])[1] == 40
    kept.keep(texts[2], Kept(40), 0)
    assert kept.held == 80
    assert kept.find([*texts[1], 9]) == (None, 0)
    assert kept.find([*texts[0], 9])[1] == 40
    assert kept.find(texts[0])[1] == 39, "the last id is always read"
    kept.keep([5] * 500, Kept(500), 0)
    assert kept.held == 80


def test_who_leaves_makes_room_at_once():
    lm = tiny_local()
    batch = lm.batch(rows=2)
    forever = Sampling(max_tokens=60, logit_bias=((0, -100.0),))
    tickets = [batch.join(text, forever) for text in ("The", "a dog", "no")]
    alone = lm.generate(["no"], forever)[0]
    batch.step()
    batch.step()
    assert (batch.running, batch.waiting, len(batch)) == (2, 1, 3)
    held = batch.held
    batch.leave(tickets[0])
    assert (batch.running, batch.held) == (1, held // 2)
    batch.leave(tickets[0])
    told = {}
    while batch:
        told |= {ticket: delta.completion for ticket, delta in batch.step().items()}
    assert tickets[0] not in told
    assert same(told[tickets[2]], alone)
    waits = batch.join("x", forever)
    batch.leave(waits)
    assert len(batch) == 0


def test_the_cache_is_never_larger_than_it_may_be():
    lm = tiny_local()
    batch, most = lm.batch(rows=32, slots=200), 0
    for prompt in prompts(30):
        sampling = Sampling(max_tokens=20)
        assert batch.needs(prompt, sampling) <= len(lm.tokens.encode_prompt(prompt)) + 20
        batch.join(prompt, sampling)
    while batch:
        batch.step()
        most = max(most, batch.held)
    assert 0 < most <= 200


def test_alternatives_are_the_likeliest_tokens_of_each_place():
    lm = tiny_local()
    told = lm.batch()
    told.join("The quick", Sampling(max_tokens=8, temperature=1.0, alternatives=4))
    [delta] = gathered(told).values()
    ids = lm.tokens.encode_prompt("The quick")
    for token in delta.tokens:
        with torch.no_grad():
            logprobs = lm.model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert [logprob for _, logprob in token.top] == pytest.approx(logprobs.topk(4).values.tolist(), abs=1e-4)
        assert token.logprob == pytest.approx(logprobs[token.id].item(), abs=1e-4)
        ids.append(token.id)
    assert b"".join(token.bytes for token in delta.tokens).decode(errors="replace") == delta.text


def test_the_others_of_a_search_are_told():
    lm = tiny_local()
    [one] = lm.generate(["The quick"], Sampling(max_tokens=6, beams=5, n_best=3))
    others = one.notes["others"]
    assert len(others) == 2
    assert len({one.text, *(other["text"] for other in others)}) > 1
    assert others[0]["score"] >= others[1]["score"]


def test_groups_of_beams_are_held_off_from_each_other():
    lm = tiny_local()
    wide = Sampling(max_tokens=8, beams=6, n_best=6)
    apart = Sampling(max_tokens=8, beams=6, n_best=6, beam_groups=3, diversity_penalty=5.0)

    def firsts(sampling: Sampling) -> set[str]:
        [one] = lm.generate(["The quick"], sampling)
        return {text[:3] for text in (one.text, *(other["text"] for other in one.notes["others"]))}

    assert len(firsts(apart)) >= 3
    assert len(firsts(apart)) > len(firsts(wide))


# -- what does not fit


def test_bad_requests_are_refused_at_once_and_touch_nobody():
    lm = tiny_local()
    batch = lm.batch()
    good = batch.join("The", Sampling(max_tokens=5))
    with pytest.raises(TooLong, match=r"has 1\d\d tokens and tiny can look at 96"):
        batch.join("a " * 60)
    with pytest.raises(UsageError):
        batch.join("x", Sampling(top_p=7))
    assert gathered(batch)[good].completion.tokens == 5


def test_an_empty_prompt_is_a_document_s_start_or_refused():
    assert tiny_local().generate([""], Sampling(max_tokens=3))[0].prompt_tokens == 1
    lm = tiny_local()
    lm.tokens.__dict__["document_start"] = ()
    with pytest.raises(Unsupported, match="cannot continue nothing"):
        lm.batch().join("")
    del lm.tokens.__dict__["document_start"]


@pytest.mark.parametrize("cut", ["head", "middle"])
def test_a_prompt_is_cut_only_where_it_is_said(cut):
    lm, long = tiny_local(), "first " + "a " * 200 + "last"
    [answer] = lm.generate([long], Sampling(max_tokens=10, cut=cut))
    ids = lm.tokens.encode_prompt(long)
    over = len(ids) - (96 - 10)
    front = 1 if cut == "head" else (96 - 10) // 2  # the token that starts a document stays
    kept = [*ids[:front], *ids[front + over :]]
    assert answer.prompt_tokens == len(kept) == 86
    request = lm.request(0, long, Sampling(max_tokens=10, cut=cut))
    assert list(request.ids) == kept
    assert lm.generate(["short"], Sampling(max_tokens=10, cut=cut)) == lm.generate(["short"], Sampling(max_tokens=10))


def test_two_to_the_31_tokens_take_no_more_room_than_the_context():
    batch = tiny_local().batch()
    assert batch.needs("The", Sampling(max_tokens=2**31)) == 96


# -- models that answer whole


def test_any_model_has_a_batch():
    fake = named("constant", [])
    batch = fake.batch(rows=3)
    first = [batch.join(ask(str(i))) for i in range(5)]
    other = batch.join(ask("x"), Sampling(max_tokens=2))
    batch.leave(first[1])
    told = gathered(batch)
    assert set(told) == {*first, other} - {first[1]}
    assert told[first[0]].completion == fake.generate([ask("0")])[0]
    assert isinstance(fake, LM)


def test_a_scripted_answer_is_streamed():
    batch = saying("It is blue.").batch()
    batch.join("x")
    assert gathered(batch)[0].text == "It is blue."
