"""An explanation by leaving words out finds the word that the answer rests on, and says when it cannot be believed."""

import math
import random

import pytest

from qualm.errors import Unsupported, UsageError
from qualm.inside.occlusion import DRAWS, explain
from qualm.lm.base import LM, Card, Completion, Scored


class Keyed(LM):
    """Scores an answer higher by `worth` nats for each key word that its question holds; `noise` blurs that."""

    name, can = "keyed", frozenset({"generate", "score"})
    card = Card("keyed", weights="keyed")

    def __init__(self, keys, noise=0.0):
        self.keys, self.noise = keys, noise
        self.asked: list[str] = []

    def generate(self, prompts, sampling=None):
        return [Completion("Vanu") for _ in prompts]

    def score(self, pairs):
        return [
            Scored((self.of(context if isinstance(context, str) else context[-1]["content"]),)) for context, _ in pairs
        ]

    def of(self, text):
        self.asked.append(text)
        return (
            -10
            + sum(worth for key, worth in self.keys.items() if key in text)
            + self.noise * random.Random(text).gauss(0, 1)
        )


QUESTION = "Tell me please in which old town by the sea was Omra Telis born?"
CHINESE = "请告诉我奥姆拉出生在哪个城市？"


@pytest.mark.parametrize(
    ("text", "keys", "hot"),
    [
        (QUESTION, {"Omra": 3.0, "Telis": 2.0, "born": 1.0}, ["Omra", "Telis", "born"]),
        (CHINESE, {"奥": 3.0, "生": 2.0}, ["奥", "生"]),
    ],
)
def test_the_hottest_words_are_those_that_the_answer_rests_on(text, keys, hot):
    found = explain(Keyed(keys), [{"role": "user", "content": text}], "Vanu")
    ranked = sorted(found.words, key=lambda word: -word.heat)
    assert [text[word.start : word.end] for word in ranked[: len(hot)]] == hot
    assert [round(word.heat, 6) for word in ranked[: len(hot)]] == sorted(keys.values(), reverse=True)
    assert all(word.heat == pytest.approx(0) for word in ranked[len(hot) :])
    assert found.faithfulness.shown
    assert found.faithfulness.hottest == pytest.approx(sum(sorted(keys.values())[-found.faithfulness.count :]))


def test_an_explanation_of_noise_is_not_shown_to_be_faithful():
    shown = [explain(Keyed({}, noise=1.0), f"{QUESTION} {i} a b c d e f", "Vanu").faithfulness.shown for i in range(40)]
    assert sum(shown) <= 10  # without anything to explain, the hottest words are as good as any


def test_a_text_and_a_conversation_read_alike_and_only_the_last_question_is_explained():
    model = Keyed({"Omra": 3.0})
    talk = [
        {"role": "user", "content": "Omra is here."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": QUESTION},
    ]
    assert explain(model, talk, "Vanu").words == explain(model, QUESTION, "Vanu").words


def test_what_is_left_out_leaves_no_double_space():
    model = Keyed({})
    explain(model, QUESTION, "Vanu")
    assert not [text for text in model.asked if "  " in text or text.startswith(" ")]
    assert len(model.asked) == 1 + 14 + 1 + 1 + DRAWS  # the whole twice: once a round


def test_the_same_seed_gives_the_same_explanation():
    assert explain(Keyed({}, 1.0), QUESTION, "Vanu", seed=3) == explain(Keyed({}, 1.0), QUESTION, "Vanu", seed=3)


def test_without_an_answer_the_models_own_is_explained():
    assert explain(Keyed({}), QUESTION).answer == "Vanu"


def test_what_cannot_be_explained_is_refused_with_a_reason():
    with pytest.raises(UsageError, match="has 2 words"):
        explain(Keyed({}), "Two words", "Vanu")
    with pytest.raises(UsageError, match="has 401 words"):
        explain(Keyed({}), "word " * 401, "Vanu")
    with pytest.raises(UsageError, match="no message of a user"):
        explain(Keyed({}), [{"role": "system", "content": QUESTION}], "Vanu")
    lost = Keyed({})
    lost.score = lambda pairs: [Scored.lost("too long") for _ in pairs]
    with pytest.raises(Unsupported, match="too long"):
        explain(lost, QUESTION, "Vanu")


def test_a_word_whose_absence_cannot_be_scored_has_no_heat():
    model = Keyed({"Omra": 3.0})
    model.of = lambda text, of=model.of: math.nan if "please" not in text else of(text)
    found = explain(model, QUESTION, "Vanu")
    blank = [word for word in found.words if math.isnan(word.heat)]
    assert [QUESTION[word.start : word.end] for word in blank] == ["please"]
