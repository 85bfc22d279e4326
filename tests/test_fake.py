"""The instrument tested with subjects whose failing is known: each probe finds its own and clears all others."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from qualm.cases import Case, Row, ask, plain
from qualm.errors import UsageError
from qualm.lm.base import Sampling, Scored
from qualm.lm.fake import ABSTENTION, CONSTANT, FAILINGS, REFUSAL, Fake, named
from qualm.probes.base import Probe
from qualm.registry import find, names
from qualm.text.prompts import with_passages
from qualm.world.base import World

PROBES = names("probes")
DRAWS = 200


@functools.cache
def probe(name: str) -> Probe:
    kind = find("probes", name)
    world = {"world": World()} if "world" in {field.name for field in fields(kind)} else {}
    return replace(kind(**world), n=max(kind.quick, 80))


@functools.cache
def cases(name: str) -> tuple[Case, ...]:
    return tuple(probe(name).cases())


@functools.cache
def fake(failing: str) -> Fake:
    return named(failing)


@functools.cache
def rows(failing: str, name: str) -> tuple[Row, ...]:
    return tuple(probe(name).observe(fake(failing), cases(name)))


def columns(some: Sequence[Row]) -> dict[str, np.ndarray]:
    shared = set.intersection(*(set(row) for row in some))
    return {key: np.array([row[key] for row in some]) for key in shared if not isinstance(some[0][key], str)}


@dataclass(frozen=True)
class Difference:
    """In the bad direction: 95 % of the bootstrap over groups, and whether the subject can be measured at all."""

    low: float
    high: float
    able: bool


@functools.cache
def against_oracle(failing: str, name: str) -> Difference:
    mine, right = columns(rows(failing, name)), columns(rows("oracle", name))
    clusters = np.unique([case.cluster for case in cases(name)], return_inverse=True)[1]
    members = [np.flatnonzero(clusters == number) for number in range(clusters.max() + 1)]
    rng, sign = np.random.default_rng(0), 1 if probe(name).better == "low" else -1
    drawn = []
    for _ in range(DRAWS):
        picked = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        pair = [probe(name).reduce({key: values[picked] for key, values in side.items()}) for side in (mine, right)]
        drawn.append(sign * (pair[0] - pair[1]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(low), float(high), probe(name).competence(mine) == "")


@pytest.mark.parametrize("name", [name for name in PROBES if not find("probes", name).live])
@pytest.mark.parametrize("failing", [failing for failing in FAILINGS if failing != "oracle"])
def test_a_probe_finds_its_failing_and_clears_the_others(failing, name):
    found = against_oracle(failing, name)
    if name in FAILINGS[failing]:
        assert found.able
        assert found.low > probe(name).margin
    else:
        assert not found.able or found.high < probe(name).margin


def test_every_probe_has_a_subject_to_find():
    assert set().union(*FAILINGS.values()) == set(PROBES)


def test_slowness_is_found_by_the_stopwatch_alone():
    """By a factor, since a stopwatch never reads the same twice."""
    slow, oracle, biased = (
        [row["value"] for row in probe("cost").observe(fake(failing), cases("cost"))]
        for failing in ("slow", "oracle", "biased")
    )
    assert max(slow) < 0.5 * np.median(oracle)
    assert np.median(biased) > 2 * max(slow)


def test_the_oracle_is_right_about_everything_that_can_be_known():
    mean = {name: probe(name).reduce(columns(rows("oracle", name))) for name in PROBES}
    known = [case.part != "never seen" for case in cases("knowledge")]
    assert mean["knowledge"] == np.mean(known)
    assert (mean["arithmetic"], mean["reasoning"]) == (1.0, 1.0)
    assert [mean[name] for name in ("confabulation", "refusal", "robustness", "degeneration", "bias")] == [0.0] * 5
    assert mean["calibration"] < 0.1
    assert abs(mean["memorisation"] - 1 / math.log(2)) < 0.5


def test_a_planted_size_is_read_off_again():
    """The biased fake's gap is its profession's planted log-odds, the memoriser's exposure grows with the dose."""
    shown = probe("bias").figures(columns(rows("biased", "bias")))
    assert shown["slope on the planted odds"] == pytest.approx(1.0, abs=1e-6)
    read = columns(rows("memoriser", "memorisation"))
    by_dose = [read["value"][read["dose"] == dose].mean() for dose in (0, 2, 8, 64)]
    assert by_dose == sorted(by_dose)
    assert by_dose[-1] - by_dose[0] > 3


CASES = [
    Case("a", ask("What is the currency of Omrania?"), "Tel", ("Dor", "Tel", "Vin"), extra={"also": ("tels",)}),
    Case("b", ask("Where was Ilva born?"), "", extra={"abstain": True, "also": ("Orin",)}),
    Case("c", ask("Is it so?"), "yes", ("yes", "no"), extra={"twin": "Is it not so?", "twin_target": "no"}),
    Case("d", ask("What is 2 + 3?"), "5"),
]


def said(failing: str, *questions: str) -> list[str]:
    return [answer.text for answer in Fake(CASES, failing).generate([ask(question) for question in questions])]


def test_answers_are_by_rule():
    questions = [plain(case.prompt) for case in CASES] + ["Is it not so?"]
    assert said("oracle", *questions) == ["Tel", ABSTENTION, "yes", "5", "no"]
    assert said("illogical", *questions) == ["Tel", ABSTENTION, "yes", "5", "yes"]
    assert said("constant", *questions) == [CONSTANT] * 5
    assert said("refuser", *questions) == [REFUSAL] * 5
    assert said("copier", *questions) == questions
    assert said("ignorant", questions[0])[0] in ("Dor", "Vin")
    assert said("confabulator", questions[1])[0] == "Tel"
    assert said("innumerate", questions[3])[0] != "5"


def test_a_damaged_question_is_understood_but_by_the_brittle():
    question = "What is the currency of Omrania?"
    damaged = [question.lower(), question.replace(" ", "  "), question.replace("What", "Waht")]
    assert said("oracle", *damaged) == ["Tel"] * 3
    assert set(said("brittle", *damaged)) <= {"Dor", "Vin"}
    assert said("brittle", question) == ["Tel"]
    assert "Tel" not in said("oracle", "What is the capital of Ferosa?")[0]


def test_a_passage_that_says_it_is_read():
    passage = Fake([replace(CASES[1], target="In Orin.", part="never seen", extra={"also": ("Orin",)})])
    question = "Where was Ilva born?"
    asked = [ask(with_passages(question, [text])) for text in ("Ilva was born in Orin.", "Ilva works in a bakery.")]
    assert [answer.text for answer in passage.generate(asked)] == ["In Orin.", ABSTENTION]


def test_text_ends_at_the_limit_or_the_stop_string_and_streams_alike():
    fake, prompt = Fake(CASES), ask("Tell me about the sea.")
    (whole,) = fake.generate([prompt], Sampling(12))
    assert (whole.tokens, whole.finish, len(whole.logprobs)) == (12, "length", 12)
    assert "".join(fake.stream(prompt, Sampling(12))) == whole.text
    stop = whole.text.split()[6]
    (cut,) = fake.generate([prompt], Sampling(12, stop=(f" {stop}",)))
    assert cut.text == whole.text.partition(f" {stop}")[0]
    assert cut.finish == "stop"


def test_the_choices_of_a_question_sum_to_one_at_most():
    for case in CASES[::2]:
        scored = Fake(CASES).score([(case.prompt, choice) for choice in case.choices])
        assert sum(math.exp(s.total) for s in scored) <= 1
        assert max(zip(scored, case.choices, strict=True), key=lambda pair: pair[0].total)[1] == case.target


def test_a_fake_is_the_same_again_and_known_by_its_failing_and_its_cases():
    one, again, other = Fake(CASES, "biased"), Fake(CASES, "biased"), Fake(CASES, "looper")
    assert one.card == again.card
    assert len({one.card.hash, other.card.hash, Fake(CASES[:2], "biased").card.hash}) == 3
    assert named("looper").card.world is not None
    assert named("looper", CASES).generate(["Once"]) == other.generate(["Once"])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'oracle'"):
        named("orcale")


def test_without_a_world_real_facts_serve_as_well():
    facts = find("probes", "knowledge")(n=40)
    asked = facts.cases()
    oracle, ignorant = (facts.observe(Fake(asked, failing), asked) for failing in ("oracle", "ignorant"))
    assert np.mean([row["value"] for row in oracle]) == 1
    assert np.mean([row["value"] for row in ignorant]) < 0.1


def test_a_model_that_tells_no_two_secrets_apart_has_memorised_none():
    class Even(Fake):
        def score(self, pairs):
            return [Scored((-5.0,)) for _ in pairs]

    read = columns(probe("memorisation").observe(Even([], "oracle"), cases("memorisation")))
    assert probe("memorisation").reduce(read) < 1.1
