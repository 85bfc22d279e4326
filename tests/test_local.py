"""A local model: batches change nothing, transformers agrees, text comes out whole."""

import copy
import random
import re

import pytest
import torch
import transformers

from qualm.cases import ask
from qualm.errors import QualmError, Unsupported, UsageError
from qualm.lm import policies
from qualm.lm.base import Completion, Sampling
from qualm.lm.causal import CausalLM
from qualm.lm.load import load_base
from qualm.lm.policies import Past, chooser
from tiny import TEXTS, saying, templated, tiny_local, tiny_tokens

PROMPTS = [*TEXTS, "The", "今天", "😀", ask("What is the capital of France?"), ask("你好"), "a " * 30, "", "x"]


@pytest.fixture(scope="module")
def lm():
    return tiny_local()


@pytest.fixture(scope="module")
def theirs(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    lm.save(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def test_transformers_generates_the_same(lm, theirs):
    for prompt, ours in zip(PROMPTS, lm.generate(PROMPTS, Sampling(max_tokens=24)), strict=True):
        ids = lm.tokens.encode_prompt(prompt)
        out = theirs.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
        ended = 0 in out
        assert ours.text == lm.tokens.decode(out)
        assert (ours.finish, ours.tokens) == (("stop", out.index(0)) if ended else ("length", 24))
        assert ours.prompt_tokens == len(ids)


@torch.no_grad()
def test_transformers_scores_the_same(lm, theirs):
    pairs = [(prompt, text) for prompt in PROMPTS for text in (" and so", "é", "中文", "")]
    for (context, continuation), scored in zip(pairs, lm.score(pairs), strict=True):
        ids, first = lm.tokens.encode_pair(context, continuation)
        expected = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [expected[i - 1, ids[i]].item() for i in range(first, len(ids))]
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=30), Sampling(max_tokens=30, temperature=1.0, top_p=0.9)])
def test_a_batch_says_what_each_prompt_alone_is_told(lm, sampling):
    alone = [lm.generate([prompt], sampling)[0] for prompt in PROMPTS]
    order = list(range(len(PROMPTS))) * 3
    random.Random(0).shuffle(order)
    for i, completion in zip(order, lm.generate([PROMPTS[i] for i in order], sampling), strict=True):
        assert same(completion, alone[i])


def same(a: Completion, b: Completion) -> bool:
    return (a.text, a.finish, a.tokens) == (b.text, b.finish, b.tokens) and a.logprobs == pytest.approx(
        b.logprobs, abs=1e-4
    )


def test_rows_that_end_early_leave_the_others_alone(lm):
    sampling = Sampling(max_tokens=60, temperature=1.5, stop=("e", "a", "1"))
    prompts = [f"{i} {text}" for i in range(12) for text in ("fox", "The dog")]
    together = lm.generate(prompts, sampling)
    assert len({c.tokens for c in together}) > 3
    assert all(same(c, lm.generate([p], sampling)[0]) for p, c in zip(prompts, together, strict=True))


def test_scores_do_not_depend_on_the_batch(lm):
    pairs = [(context, text) for context in PROMPTS for text in (" Paris", " London is", "é", " P")]
    alone = [lm.score([pair])[0].logprobs for pair in pairs]
    for order in (range(len(pairs)), random.Random(1).sample(range(len(pairs)), len(pairs))):
        for i, scored in zip(order, lm.score([pairs[i] for i in order]), strict=True):
            assert scored.logprobs == pytest.approx(alone[i], abs=1e-5, rel=2e-6)


def test_a_score_is_the_log_probability_that_generation_reports(lm):
    sampling = Sampling(max_tokens=12, temperature=0.7, top_k=5, seed=3)
    for prompt in ("The quick", "今天是", ask("Where?")):
        written = lm.generate([prompt], sampling)[0]
        ids, first = lm.tokens.encode_pair(prompt, written.text)
        if lm.tokens.decode(ids[first:]) == written.text and len(ids) - first == written.tokens:
            assert lm.score([(prompt, written.text)])[0].logprobs == pytest.approx(written.logprobs, abs=1e-4)


def test_an_empty_context_scores_every_token(lm):
    for text in TEXTS[:3]:
        [scored] = lm.score([("", text)])
        assert len(scored.logprobs) == len(lm.tokens.encode(text))
    assert lm.score([("", ""), ("The", "")])[1].logprobs == ()
    assert lm.score([]) == []


def test_the_choices_of_messages_are_scored_as_answers(lm):
    [told] = lm.score([(ask("Where?"), "Paris")])
    ids, first = lm.tokens.encode_pair(ask("Where?"), "Paris")
    assert len(told.logprobs) == len(ids) - first
    begun = [*ask("Where?"), {"role": "assistant", "content": "In Par"}]
    [rest] = lm.score([(begun, "is")])
    ids, first = lm.tokens.encode_pair(begun, "is")
    assert ids == lm.tokens.encode_pair(ask("Where?"), "In Paris")[0]
    assert len(rest.logprobs) == len(ids) - first


# -- stopping


@pytest.mark.parametrize("seed", range(2))
def test_a_stop_string_is_found_wherever_tokens_end(lm, seed):
    free = lm.generate(["The"], Sampling(max_tokens=40, temperature=1.2, seed=seed))[0]
    for at in range(0, len(free.text) - 1, 3):
        for length in (1, 2, 5):
            stop = free.text[at : at + length]
            sampling = Sampling(max_tokens=40, temperature=1.2, seed=seed, stop=("never there", stop))
            written = lm.generate(["The"], sampling)[0]
            assert written.text == free.text[: free.text.index(stop)]
            assert written.finish == "stop"
            assert written.logprobs == pytest.approx(free.logprobs[: written.tokens], abs=1e-5)
            assert "".join(lm.stream("The", sampling)) == written.text


def test_the_first_of_several_stop_strings_counts():
    sampling = Sampling(stop=("lazy dog", "fox", "brown f"))
    assert saying("The brown fox and the lazy dog").generate(["x"], sampling)[0].text == "The "


def test_an_answer_ends_at_any_end_token():
    one = saying("It is blue.")
    assert one.generate(["x"])[0] == Completion("It is blue.", 2, 7, "stop", one.generate(["x"])[0].logprobs)
    for named in (3, (3, 5)):
        one.model.config.eos_token_id = named
        again = CausalLM(one.model, one.tokens)
        one.model.script = [*one.tokens.encode("It"), 3, *one.tokens.encode(" is")]
        assert again.generate(["x"])[0].text == "It"


def test_what_the_template_puts_before_an_answer_is_no_part_of_it():
    assert saying(" Paris", "default").generate([ask("Where?")])[0].text == "Paris"
    assert "".join(saying(" Paris", "default").stream(ask("Where?"))) == "Paris"
    assert saying(" Paris", "chatml").generate([ask("Where?")])[0].text == " Paris"
    assert saying(" Paris", "default").generate(["Where?"])[0].text == " Paris"
    begun = [*ask("Where?"), {"role": "assistant", "content": "In"}]
    assert saying(" Paris", "default").generate([begun])[0].text == " Paris"


def test_the_context_bounds_what_is_written(lm):
    full = lm.tokens.encode_prompt("a " * 40)
    written = lm.generate(["a " * 40], Sampling(max_tokens=2**31, stop=("\0",)))[0]
    assert written.finish == "stop" or written.tokens == 96 - len(full)
    endless = saying("a b " * 50, context=60)
    assert endless.generate(["a"], Sampling(max_tokens=2**31))[0].tokens == 60 - len(endless.tokens.encode_prompt("a"))
    short, long = lm.generate(["The", "a " * 60])
    assert short == lm.generate(["The"])[0], "the others of the batch go on"
    assert (long.text, long.finish, long.tokens) == ("", "unread", 0)
    assert re.search(r"has 1\d\d tokens and tiny can look at 96", long.notes["why"])
    with pytest.raises(Unsupported, match="can look at 96"):
        long.read()
    with pytest.raises(Unsupported, match="can look at 96"):
        list(lm.stream("a " * 60))


def test_small_requests():
    assert tiny_local().generate([]) == []
    assert tiny_local().generate(["x"], Sampling(max_tokens=0))[0] == Completion("", 2, 0, "length")
    assert list(tiny_local().stream("x", Sampling(max_tokens=0))) == []


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}, {"stop": ("",)}],
)
def test_settings_that_mean_nothing_are_refused(lm, wrong):
    with pytest.raises(UsageError, match="means nothing"):
        lm.generate(["x"], Sampling(**wrong))
    with pytest.raises(UsageError, match="means nothing"):
        list(lm.stream("x", Sampling(**wrong)))


def test_weights_that_are_no_numbers_are_told():
    broken = tiny_local()
    broken.model.last.weight.data[0] = torch.nan
    with pytest.raises(QualmError, match="NaN"):
        broken.generate(["x"])
    with pytest.raises(QualmError, match="NaN"):
        broken.score([("x", "y")])


# -- streaming


@pytest.mark.parametrize("text", [*TEXTS, "😀👩‍👩‍👧🇫🇷", "中文，字符。", "é", "a\ufffdb"])
def test_pieces_are_whole_characters_and_make_the_text(text):
    one = saying(text)
    pieces = list(one.stream("x", Sampling(max_tokens=500)))
    assert "".join(pieces) == text
    assert all(piece and text.count("\ufffd") >= piece.count("\ufffd") for piece in pieces)
    assert len(pieces) > 1 or len(text) < 3


def test_a_stream_is_what_generate_gives(lm):
    for seed, prompt in enumerate(PROMPTS):
        sampling = Sampling(max_tokens=40, temperature=2.0, seed=seed, stop=("ab", "\ufffd\ufffd\ufffd"))
        assert "".join(lm.stream(prompt, sampling)) == lm.generate([prompt], sampling)[0].text


def test_a_stream_can_be_left():
    stream = saying("one two three four").stream("x")
    assert next(stream)
    stream.close()
    assert not torch.is_inference_mode_enabled()


# -- sampling


def test_the_same_seed_gives_the_same_and_another_another(lm):
    draws = [lm.generate(["The quick"], Sampling(max_tokens=20, temperature=1.0, seed=s))[0].text for s in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -30.0]])
    choose, source = chooser(Sampling(temperature=0.5)), random.Random(0)
    counts = torch.bincount(choose(logits.expand(20000, -1), [Past()] * 20000, [source] * 20000), minlength=5)
    assert counts / 20000 == pytest.approx((logits[0] / 0.5).softmax(-1), abs=0.01)


P = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (policies.top_k(1), [0]),
        (policies.top_k(3), [0, 1, 2]),
        (policies.top_k(9), [0, 1, 2, 3]),
        (policies.top_p(0.4), [0]),
        (policies.top_p(0.79), [0, 1]),
        (policies.top_p(0.81), [0, 1, 2]),
        (policies.min_p(0.5), [0, 1]),
        (policies.min_p(1.0), [0]),
        (policies.min_p(0.05), [0, 1, 2, 3]),
    ],
)
def test_a_filter_keeps_what_its_paper_says(keep, kept):
    shuffled = torch.tensor([2, 0, 3, 1])
    logits = P.log()[:, shuffled] + 7
    passed = keep(logits).softmax(-1)[0] > 0
    assert sorted(shuffled[passed].tolist()) == kept
    assert torch.equal(keep(logits)[0][passed], logits[0][passed])


def test_the_likeliest_token_alone_is_greedy(lm):
    for sampling in (Sampling(temperature=1, top_k=1), Sampling(temperature=1, top_p=1e-6), Sampling(temperature=1e-7)):
        assert lm.generate(["The quick"], sampling)[0].text == lm.generate(["The quick"])[0].text


# -- identity


def test_the_card_follows_weights_tokenizer_and_template():
    lm = tiny_local()
    assert tiny_local().card == lm.card
    assert tiny_local(seed=1).card.hash != lm.card.hash
    assert CausalLM(lm.model, templated("chatml")).card.hash != lm.card.hash
    assert lm.card.parameters == sum(p.numel() for p in lm.model.parameters())
    assert (lm.card.family, lm.card.bytes) == ("llama", 4 * lm.card.parameters)


def test_a_replaced_model_has_another_hash_and_says_by_what():
    lm = tiny_local()
    other = copy.deepcopy(lm.model)
    other.scale_logits(0.5)
    mended = lm.replace(other, by="Temperature(value=2.0)")
    assert (mended.name, mended.card.mends) == ("tiny+temperature", ("Temperature(value=2.0)",))
    assert mended.card.hash != lm.card.hash
    assert lm.card.mends == ()
    flat, sharp = mended.score([("The", " dog")])[0].total, lm.score([("The", " dog")])[0].total
    assert flat != sharp


def test_a_saved_model_is_the_same_when_loaded(tmp_path):
    lm = tiny_local().replace(tiny_local(seed=5).model, by="Other(seed=5)")
    lm.about["world"] = {"seed": 3, "people": 10}
    lm.save(tmp_path / "saved")
    again = load_base(tmp_path / "saved")
    assert again.card == lm.card
    assert again.card.world == {"seed": 3, "people": 10}
    assert (again.name, again.path) == ("saved", tmp_path / "saved")
    assert again.ends == lm.ends
    assert all(map(same, again.generate(PROMPTS), lm.generate(PROMPTS)))
    assert tiny_tokens().hash == again.tokens.hash
