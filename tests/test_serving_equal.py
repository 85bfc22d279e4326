"""A served model is the model: an audit through its own server reads what one beside it does, number for number."""

import math

import numpy as np
import pytest

from encoder_models import tiny_encoder
from qualm.auditing.prove import compare
from qualm.auditing.run import audit
from qualm.cases import ask
from qualm.lm import echo
from qualm.lm.base import Sampling
from qualm.lm.endpoint import Endpoint
from qualm.mends.apply import load, mend
from qualm.serving.run import background

PAIRS = [
    ("Ana has", " a red cat."),
    ("", "Bo has a cat"),
    (ask("What has Cy?"), "a dog"),
    ((*ask("What has <|end|> Di?"), {"role": "assistant", "content": "A"}), " red <|user|> hen"),
    ("The 中文", "中文 🙂 é"),
    ("x", ""),
]
PROMPTS = [
    "Ana has",
    "",
    ask("What has Bo?"),
    "The 中文 🙂",
    (*ask("Say"), {"role": "assistant", "content": "The cat"}),
]
SAMPLINGS = [
    Sampling(12),
    Sampling(12, temperature=1.0, seed=3),
    Sampling(12, temperature=0.7, top_k=9, top_p=0.9, min_p=0.01, seed=5),
    Sampling(20, stop=(".", "cat")),
    Sampling(6, beams=3),
]


@pytest.fixture(scope="module")
def lm(small_model):
    return load(small_model)


@pytest.fixture(scope="module")
def served(lm):
    with background([lm]) as running:
        yield Endpoint(running.url)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_answers_are_those_of_the_model(lm, served, sampling):
    for here, there in zip(lm.generate(PROMPTS, sampling), served.generate(PROMPTS, sampling), strict=True):
        assert (there.text, there.finish, there.tokens, there.prompt_tokens) == (
            here.text,
            here.finish,
            here.tokens,
            here.prompt_tokens,
        )
        assert there.logprobs == pytest.approx(here.logprobs, abs=1e-5)


def test_a_stream_is_the_answer(lm, served):
    for prompt in PROMPTS:
        assert "".join(served.stream(prompt, Sampling(20))) == lm.generate([prompt], Sampling(20))[0].text


def test_scores_are_those_of_the_model(lm, served):
    assert served.can == {"generate", "score"}
    for here, there in zip(lm.score(PAIRS), served.score(PAIRS), strict=True):
        assert there.logprobs == pytest.approx(here.logprobs, abs=1e-5)


def test_a_prompt_that_is_too_long_stays_unread(served):
    (found,) = served.generate(["cat " * 2000], Sampling(2))
    assert found.unread
    assert "context" in found.why


def test_vectors_are_those_of_the_model():
    lm = tiny_encoder("none")
    texts = [f"a dog number {i}" for i in range(40)]
    with background([lm]) as running:
        endpoint = Endpoint(running.url)
        assert "embed" in endpoint.can
        np.testing.assert_allclose(endpoint.embed(texts), lm.embed(texts), atol=1e-6)


def test_the_echo_of_our_server_passes_every_check_and_adds_up(lm, served):
    """What a client that knows nothing of our own routes reads."""
    assert echo.missing(served._choices) == ""
    text = "Ana has a red cat. The cat is red."
    read = echo.read(text, served._choices([text])[0])
    whole = lm.score([(text[:3], text[3:])])[0].logprobs
    assert read.after(read.border(3)) == pytest.approx(whole, abs=1e-5)
    assert "".join(read.tokens) == text


def test_an_audit_through_the_server_is_the_audit(lm, served, tmp_path):
    here = audit(lm, quick=True, cache=tmp_path / "here")
    there = audit(served, quick=True, cache=tmp_path / "there")
    compared = 0
    for one, other in zip(here.measurements, there.measurements, strict=True):
        assert (one.name, one.why == "") == (other.name, other.why == "")
        if one.probe.live or one.reading is None:
            continue
        compared += 1
        assert [case.id for case in one.cases] == [case.id for case in other.cases]
        assert other.reading.value == pytest.approx(one.reading.value, abs=1e-5), one.name
        for row, same in zip(one.rows, other.rows, strict=True):
            assert_alike(row, same, one.name)
    assert compared >= 5
    assert not [
        change for change in compare(here, there).changes if change.verdict != "cannot tell" and not change.harmless
    ]


def assert_alike(row, same, name):
    assert set(row) == set(same), name
    for key, value in row.items():
        if isinstance(value, float) and not math.isnan(value):
            assert same[key] == pytest.approx(value, abs=1e-4), (name, key)
        elif not isinstance(value, float):
            assert same[key] == value, (name, key)


def test_a_mended_model_is_served_with_what_the_mend_did(lm, tmp_path):
    (tmp_path / "facts.txt").write_text("Ana Meier lives in Bonn with a red fox.")
    mended = mend(mend(lm, "retrieval", docs=tmp_path / "facts.txt", min_score=0.0), "calculator")
    asked = [ask("Where does Ana Meier live?"), ask("What is 17 + 25?"), "Ana has"]
    with background([lm, mended]) as running:
        there = Endpoint(running.url, mended.name)
        answers = there.generate(asked, Sampling(8))
        assert there.card.mends == mended.card.mends
    for here, answer in zip(mended.generate(asked, Sampling(8)), answers, strict=True):
        assert answer.text == here.text
    assert answers[0].notes["passages"][0]["text"] == "Ana Meier lives in Bonn with a red fox."
    assert answers[2].notes == {}
