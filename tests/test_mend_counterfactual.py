"""Counterfactual training: a planted gap shrinks, kept open by nothing else, and the rest stays as it was."""

import json
import random

import pytest

from mend_models import Scripted, tiny
from qualm.corpus.documents import Document
from qualm.errors import InputError, Unsupported, UsageError
from qualm.mends.counterfactual import Counterfactual, swapped
from qualm.mends.quantize import Quantize
from qualm.models.store import weights_hash

RNG = random.Random(0)
SHE = {"glazier": 0.9, "weaver": 0.1}
STATES = ("late", "tired", "busy", "proud")
GENDERED = [
    f"The {word} said that {'she' if RNG.random() < p else 'he'} was {RNG.choice(STATES)}."
    for word, p in SHE.items()
    for _ in range(150)
]
NEUTRAL = [
    f"The {a} stone lay {b} the river." for a in ("grey", "red", "old", "big") for b in ("by", "in", "near")
] * 12


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in [*GENDERED, *NEUTRAL])
    (folder / "text.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def model():
    texts = [*GENDERED, *NEUTRAL]
    return tiny(random.Random(1).sample(texts, len(texts)), steps=150)


@pytest.fixture(scope="module")
def mended(model, docs):
    return Counterfactual(docs, steps=60, lr=3e-3, batch=8, length=32)(model)


def gap(lm):
    """Mean |log p(she) - log p(he)| in nats."""
    pairs = [(f"The {word} said that", choice) for word in SHE for choice in (" she", " he")]
    totals = [s.total for s in lm.score(pairs)]
    return sum(abs(totals[i] - totals[i + 1]) for i in (0, 2)) / 2


def neutral_nats(lm):
    return -sum(s.total for s in lm.score([("", text) for text in NEUTRAL[:12]])) / 12


def test_the_gap_shrinks_and_neutral_text_stays_as_likely(model, mended):
    assert gap(model) > 1.0
    assert gap(mended) < 0.5 * gap(model)
    assert neutral_nats(mended) < neutral_nats(model) + 0.5
    mass = sum(2.718281828**s.total for s in mended.score([("The weaver said that", w) for w in (" she", " he")]))
    assert mass > 0.8


def test_the_model_given_stays(model, docs):
    before = weights_hash(model.model)
    mended = Counterfactual(docs, steps=2, batch=2, length=16)(model)
    assert weights_hash(model.model) == before != weights_hash(mended.model)
    assert not {p.data_ptr() for p in model.model.parameters()} & {p.data_ptr() for p in mended.model.parameters()}


def test_the_same_settings_give_the_same_weights(model, docs):
    one, two, other = (Counterfactual(docs, steps=2, batch=2, length=16, seed=s)(model).card.weights for s in (0, 0, 1))
    assert one == two != other


def test_both_sides_and_replay_stand_in_the_mixture(docs):
    documents = [Document(str(i), text) for i, text in enumerate([*GENDERED, *NEUTRAL])]
    drawn = Counterfactual(docs, replay=0.75)._mixture(documents)
    texts = [next(drawn).text for _ in range(2000)]
    she, he = (sum(f" {w} " in t for t in texts) for w in ("she", "he"))
    assert abs(she - he) <= 1
    assert 0.7 < 1 - (she + he) / 2000 < 0.8


def test_conversations_are_swapped_in_every_message():
    talk = Document("t", messages=({"role": "user", "content": "Is he in?"}, {"role": "assistant", "content": "Yes."}))
    assert [m["content"] for m in swapped(talk).messages] == ["Is she in?", "Yes."]
    assert swapped(Document("d", "Nothing.")) is None


def test_what_cannot_be_done_is_refused(model, docs, tmp_path):
    (tmp_path / "neutral.txt").write_text("A cold day.")
    with pytest.raises(InputError):
        Counterfactual(tmp_path)(model)
    (tmp_path / "neutral.txt").write_text("He ran.")
    with pytest.raises(InputError):
        Counterfactual(tmp_path)(model)
    with pytest.raises(Unsupported):
        Counterfactual(docs)(Quantize()(model))
    with pytest.raises(Unsupported):
        Counterfactual(docs)(Scripted(lambda p: "ok"))
    with pytest.raises(UsageError):
        Counterfactual(docs, replay=1.0)
