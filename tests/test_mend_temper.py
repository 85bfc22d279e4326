"""Temperature: the right one is found, confidence becomes honest, and no greedy answer changes."""

import numpy as np
import pytest
import torch

from mend_models import Scripted, tiny, user
from qualm.cases import Case
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import Sampling
from qualm.mends.temper import Temper, choice_nll, golden_section
from qualm.models.store import weights_hash

TEXTS = [f"word {a} then {b} end" for a in "abcdefgh" for b in "ijklmnop"]
PROMPTS = [f"word {a} then" for a in "abcd"] + [f"{b} end word" for b in "ijkl"]


@pytest.fixture(scope="module")
def model():
    return tiny(TEXTS)


@pytest.fixture(scope="module")
def cases(model):
    """Targets drawn by the model's own odds, each as often as its odds say: at temperature 1 it is honest."""
    choices, made = (" i", " j", " k", " l"), []
    for prompt in PROMPTS:
        totals = np.array([s.total for s in model.score([(prompt, c) for c in choices])])
        counts = np.rint(12 * np.exp(totals) / np.exp(totals).sum()).astype(int)
        targets = [c for c, count in zip(choices, counts, strict=True) for _ in range(count)]
        made += [Case(f"{prompt}/{k}", prompt, target, choices) for k, target in enumerate(targets)]
    return made


@pytest.mark.parametrize("planted", [3.0, 0.5])
def test_a_planted_temperature_is_found(model, cases, planted):
    wrong = Temper(1 / planted)(model)
    fitted = Temper().fit(wrong, cases)
    assert fitted.temperature == pytest.approx(planted, rel=0.2)
    assert choice_nll(fitted(wrong), cases) < choice_nll(wrong, cases)


def test_greedy_answers_and_choices_do_not_change(model):
    mended, greedy = Temper(2.5)(model), Sampling(max_tokens=12)
    assert [c.text for c in mended.generate(PROMPTS, greedy)] == [c.text for c in model.generate(PROMPTS, greedy)]


def test_logits_are_divided(model):
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        assert torch.allclose(Temper(2.5)(model).model(ids) * 2.5, model.model(ids), atol=1e-5)


def test_the_model_given_stays_and_shares_all_but_the_norm(model):
    before = weights_hash(model.model)
    mended = Temper(2.0)(model)
    assert weights_hash(model.model) == before != weights_hash(mended.model)
    shared = {p.data_ptr() for p in model.model.parameters()} & {p.data_ptr() for p in mended.model.parameters()}
    assert len(shared) == len(list(model.model.parameters())) - 1
    assert mended.card.mends == ("Temper(temperature=2.0)",)
    assert mended.card.hash != model.card.hash


def test_a_temperature_that_is_set_stays(model, cases):
    assert Temper(1.5).fit(model, cases) == Temper(1.5)


def test_without_a_temperature_there_is_no_mend(model):
    with pytest.raises(UsageError):
        Temper()(model)
    with pytest.raises(Unsupported):
        Temper().fit(model, [Case("a", "word", "x")])
    with pytest.raises(Unsupported):
        Temper(2.0)(Scripted(lambda p: "ok"))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            Temper(wrong)


def test_choices_of_many_tokens_are_fitted_by_what_the_model_then_says(model):
    choices = (" i", " then j end", " word k then")
    cases = [Case(f"{i}", prompt, choices[i % 3], choices) for i, prompt in enumerate(PROMPTS)]
    fitted = Temper().fit(model, cases)
    losses = {t: choice_nll(Temper(t)(model), cases) for t in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)}
    assert choice_nll(fitted(model), cases) <= min(losses.values()) + 1e-3


def test_golden_section():
    assert golden_section(lambda x: (x - 0.3) ** 2, -2, 2, 1e-3) == pytest.approx(0.3, abs=1e-3)
    assert golden_section(lambda x: x, -2, 2, 1e-3) == pytest.approx(-2, abs=1e-3)


def test_conversations_are_fitted_too(model):
    cases = [Case(str(i), user(f"word {a}"), "i", ("i", "j")) for i, a in enumerate("abcd")]
    assert 0.25 <= Temper().fit(model, cases).temperature <= 8
