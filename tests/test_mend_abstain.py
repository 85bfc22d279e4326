"""Abstaining: the unsure answers are withheld, the sure ones stand, and the threshold is the best there is."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mend_models import Scripted, user
from qualm.cases import Case, ask
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import Completion, Sampling
from qualm.mends.abstain import CHINESE_WORDS, Abstain, best_threshold
from qualm.text.match import abstains


def sure_of_what_it_knows(prompt):
    """Right and sure (about 0.9) of k-questions; inventing and unsure (about 0.4) of others."""
    if isinstance(prompt, str):
        return Completion("text", 3, 1, "stop", (math.log(0.1),))
    question = prompt[-1]["content"]
    noise = zlib.crc32(question.encode()) % 100 / 1000
    known = question.startswith("k")
    return Completion("Rome" if known else "Paris", 3, 2, "stop", (math.log((0.85 if known else 0.35) + noise),) * 2)


CASES = [Case(f"k{i}", ask(f"k{i}?"), "Rome") for i in range(40)] + [Case(f"n{i}", ask(f"n{i}?")) for i in range(40)]


def test_inventions_are_withheld_and_knowledge_stands():
    model = Scripted(sure_of_what_it_knows)
    mend = Abstain().fit(model, CASES)
    assert 0.45 < mend.threshold < 0.85
    for case, answer in zip(CASES, mend(model).generate([c.prompt for c in CASES]), strict=True):
        assert abstains(answer.text) is (case.target == "")
        assert ("withheld" in answer.notes) is (case.target == "")


def test_what_was_withheld_is_noted():
    [answer] = Abstain(0.8)(Scripted(sure_of_what_it_knows)).generate([user("n?")])
    assert answer.text == "I do not know."
    assert answer.notes["withheld"] == "Paris"
    assert 0.3 < answer.notes["confidence"] < 0.5
    assert answer.logprobs == ()


def test_a_chinese_question_is_answered_in_chinese():
    model = Scripted(sure_of_what_it_knows)
    assert Abstain(0.99)(model).generate([user("他在哪里？")])[0].text == CHINESE_WORDS
    assert Abstain(0.99, words="No idea.")(model).generate([user("他在哪里？")])[0].text == "No idea."


def test_what_was_not_read_teaches_no_threshold():
    case = Case("1", ask("Who is it?"), "Ana")
    long = Case("2", ask("long"), "Ana")
    sure = Completion("Ana", 3, 1, "stop", (-0.1,))
    model = Scripted(lambda p: Completion.lost("too long") if p[-1]["content"] == "long" else sure)
    assert Abstain().fit(model, [case, long]) == Abstain().fit(model, [case])
    with pytest.raises(Unsupported, match="too long"):
        Abstain().fit(model, [long])


def test_texts_to_continue_and_unread_answers_are_left_alone():
    model = Scripted(sure_of_what_it_knows)
    assert Abstain(0.99)(model).generate(["n"])[0] == model.generate(["n"])[0]
    gone = Completion("", 0, 0, "unread")
    assert Abstain(0.99)(Scripted(lambda p: gone)).generate([user("n?")]) == [gone]
    assert Abstain(0.99)(model).score([(user("n?"), "x")]) == model.score([(user("n?"), "x")])


def test_a_model_that_abstains_itself_keeps_its_words():
    said = Completion("I'm not sure who that is.", 3, 6, "stop", (-3.0,) * 6)
    assert Abstain(0.99)(Scripted(lambda p: said)).generate([user("n?")])[0].text == said.text


def test_a_higher_target_withholds_more():
    """Half of the answers at 0.6 are right: worth giving at a target of 0.3, not at 0.7."""
    rows = [Completion("Rome", logprobs=(math.log(0.6),)), Completion("Rome", logprobs=(math.log(0.9),))]
    cases = [Case(str(i), ask(f"{i}"), "Rome" if i % 4 else "Oslo") for i in range(40)]
    model = Scripted(lambda p: rows[int(p[0]["content"]) % 2])
    low, high = (Abstain(target=t).fit(model, cases).threshold for t in (0.3, 0.7))
    assert low < 0.6 < high < 0.9


def test_without_log_probabilities_samples_must_agree():
    class Wavering(Scripted):
        """Greedy it says Rome; sampled it says Rome to k-questions and something else each time to others."""

        def generate(self, prompts, sampling=Sampling()):
            drawn = [
                f"Town{sampling.seed}" if sampling.temperature and p[0]["content"][0] == "n" else "Rome"
                for p in prompts
            ]
            return [Completion(text) for text in drawn]

    known, unknown = Abstain(0.5)(Wavering(str)).generate([user("k?"), user("n?")])
    assert known.text == "Rome"
    assert known.notes["confidence"] == 1
    assert unknown.notes == {"confidence": 0, "withheld": "Rome"}


def test_without_a_threshold_there_is_no_mend():
    with pytest.raises(UsageError):
        Abstain()(Scripted(sure_of_what_it_knows))
    with pytest.raises(UsageError):
        Abstain(target=1.0)
    with pytest.raises(Unsupported):
        Abstain().fit(Scripted(sure_of_what_it_knows), [Case("a", "text")])
    assert Abstain(0.7).fit(Scripted(sure_of_what_it_knows), CASES) == Abstain(0.7)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1))
def test_no_threshold_gains_more(pairs):
    sure, gains = (np.array(column) for column in zip(*pairs, strict=True))
    best = best_threshold(sure, gains)
    at_best = gains[sure >= best].sum()
    for other in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        assert gains[sure >= other].sum() <= at_best
        if gains[sure >= other].sum() == at_best:
            assert (sure >= best).sum() >= (sure >= other).sum()
