"""Eight bits: a quarter of the bytes, nearly the same numbers, and the model given as it was."""

import pytest

from mend_models import Scripted, tiny
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import Sampling
from qualm.mends.quantize import Quantize
from qualm.models.store import weights_hash

TEXTS = ["the cat sat on the mat", "the dog ran over the hill", "a bird flew past the green house"] * 8


@pytest.fixture(scope="module")
def model():
    return tiny(TEXTS, steps=15, width=64)


def test_a_quarter_of_the_bytes(model):
    mended = Quantize()(model)
    assert mended.card.bytes < 0.3 * model.card.bytes
    assert mended.card.parameters == model.card.parameters


def test_nearly_the_same_numbers(model):
    pairs = [("the cat", " sat on the mat"), ("a bird", " flew past the green house")]
    for exact, rounded in zip(model.score(pairs), Quantize()(model).score(pairs), strict=True):
        assert rounded.logprobs != exact.logprobs
        assert rounded.logprobs == pytest.approx(exact.logprobs, abs=0.05)
    prompts = ["the cat", "the dog", "a bird"]
    texts = [[c.text for c in lm.generate(prompts, Sampling(max_tokens=8))] for lm in (model, Quantize()(model))]
    assert texts[0] == texts[1]


def test_the_model_given_stays(model):
    before = weights_hash(model.model)
    mended = Quantize()(model)
    assert weights_hash(model.model) == before != weights_hash(mended.model)


def test_what_cannot_be_rounded_is_refused(model):
    with pytest.raises(UsageError):
        Quantize()(Quantize()(model))
    with pytest.raises(Unsupported):
        Quantize()(Scripted(lambda p: "ok"))
