"""What each probe reads off an answer, where the right reading is known."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from qualm.cases import Case, ask
from qualm.errors import Unsupported
from qualm.lm.base import LM, Completion, Scored
from qualm.probes._facts import is_right
from qualm.probes._numbers import auroc
from qualm.probes.arithmetic import Arithmetic
from qualm.probes.bias import Bias
from qualm.probes.calibration import Calibration
from qualm.probes.confabulation import CONTROL, NOBODY, Confabulation
from qualm.probes.cost import Cost
from qualm.probes.degeneration import loops, repeated
from qualm.probes.memorisation import Memorisation
from qualm.probes.perplexity import Perplexity
from qualm.probes.reasoning import Reasoning
from qualm.probes.refusal import Refusal
from qualm.probes.robustness import DAMAGES, Robustness, damage
from qualm.text import cldr
from qualm.world.base import World

WORLD = World(documents=200)


class Scripted(LM):
    """Answers and log-probabilities by functions of the prompt."""

    name, can = "scripted", frozenset({"generate", "score"})
    card = SimpleNamespace(bytes=0)

    def __init__(self, answer=lambda prompt: "", score=lambda context, text: -1.0):
        self.answer, self.logp = answer, score

    def generate(self, prompts, sampling=None):
        return [Completion(self.answer(prompt)) for prompt in prompts]

    def score(self, pairs):
        return [Scored((self.logp(*pair),)) for pair in pairs]


def columns(rows):
    return {k: np.array([row[k] for row in rows]) for k, v in rows[0].items() if not isinstance(v, str)}


def test_a_rival_is_not_the_right_currency():
    fact = next(f for f in cldr.currencies() if f.name == "Japan")
    case = Case("yen", "", fact.value, extra={"also": fact.also, "rivals": fact.rivals})
    assert is_right(case, "It is the Japanese yen.")
    assert is_right(case, "The yen.")
    dollar = next(f for f in cldr.currencies() if f.name == "Australia")
    case = Case("dollar", "", dollar.value, extra={"also": dollar.also, "rivals": dollar.rivals})
    assert is_right(case, "the dollar")
    assert is_right(case, "the Australian Dollar")
    assert not is_right(case, "The Canadian dollar.")
    assert not is_right(case, "I do not know.")


def test_the_last_number_counts():
    case = Case("", "", "68")
    grade = Arithmetic().grade
    assert grade(case, "23 + 45 = 68")["value"] == 1
    assert grade(case, "68.0")["value"] == 1
    assert grade(case, "168")["value"] == grade(case, "68 or 69")["value"] == grade(case, "sixty-eight")["value"] == 0


@pytest.mark.parametrize(("answer", "value"), [("yes", 0.0), ("no", 0.0), ("", 0.0)])
def test_saying_the_same_to_both_twins_reads_nothing(answer, value):
    rows = Reasoning(n=8).observe(Scripted(lambda prompt: answer), Reasoning(n=8).cases())
    assert [row["value"] for row in rows] == [value] * 8


def test_guessing_twins_reads_a_quarter():
    probe, rng = Reasoning(n=240), random.Random(0)
    rows = probe.observe(Scripted(lambda prompt: rng.choice(["yes", "no"])), probe.cases())
    assert abs(probe.reduce(columns(rows)) - probe.chance()) < 0.08


def test_inventing_and_withholding_are_both_bad_and_told_apart():
    probe = Confabulation(n=20, world=WORLD)
    cases = probe.cases()
    inventor = probe.observe(Scripted(lambda prompt: "In Velwick."), cases)
    silent = probe.observe(Scripted(lambda prompt: "I do not know."), cases)
    assert probe.reduce(columns(inventor)) == 1
    assert probe.reduce(columns(silent)) == 0
    withheld = [row for row, case in zip(silent, cases, strict=True) if case.part == CONTROL]
    assert probe.reduce(columns(withheld)) == 1
    assert {case.part for case in cases} == {NOBODY, CONTROL}


def test_planted_odds_are_read_back_with_slope_one():
    probe = Bias(world=WORLD)
    odds = {case.prompt: case.extra["she"] for case in probe.cases()}

    def score(context, text):
        return math.log(max(odds[context] if text == " she" else 1 - odds[context], 1e-9))

    read = columns(probe.observe(Scripted(score=score), probe.cases()))
    figures = probe.figures(read)
    assert figures["slope on the planted odds"] == pytest.approx(1)
    assert figures["correlation with the planted odds"] == pytest.approx(1)
    assert figures["p(she) + p(he)"] == pytest.approx(1)
    fair = columns(probe.observe(Scripted(score=lambda c, t: math.log(0.5)), probe.cases()))
    assert probe.reduce(fair) == 0
    assert probe.competence(columns(probe.observe(Scripted(score=lambda c, t: -9.0), probe.cases())))


def test_exposure_of_secrets_never_told_is_the_null_expectation():
    probe, rng = Memorisation(n=63, world=World()), random.Random(0)
    rows = columns(probe.observe(Scripted(score=lambda c, t: rng.random()), probe.cases()))
    assert rows["value"].mean() == pytest.approx(probe.chance(), abs=0.35)
    told = {case.target for case in probe.cases() if case.extra["dose"]}
    leak = columns(probe.observe(Scripted(score=lambda c, t: float(t in told) - 2), probe.cases()))
    assert probe.reduce(leak) == pytest.approx(6, abs=0.02)  # a rival may be another's secret by chance
    assert probe.figures(leak)["membership AUROC"] == 1


@pytest.mark.parametrize("probe", [Memorisation(), Refusal()])
def test_what_only_a_planted_world_can_tell_is_not_measured_elsewhere(probe):
    with pytest.raises(Unsupported):
        probe.cases()


def test_calibration_error_of_known_confidences():
    probe = Calibration()
    honest = {
        "confidence": np.full(100, 0.8),
        "right": np.array([1.0] * 80 + [0.0] * 20)[np.random.default_rng(0).permutation(100)],
    }
    assert probe.reduce({"confidence": np.full(100, 0.9), "right": np.zeros(100)}) == pytest.approx(0.9)
    assert probe.reduce(honest) < 0.2
    assert probe.figures(honest)["Brier score"] == pytest.approx(0.16)


def test_auroc_against_counting_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert auroc(a, b) == pytest.approx(np.mean(pairs))


def test_loops_and_repetition():
    assert loops(["so", "it", "goes", "so", "it", "goes", "so", "it", "goes"])
    assert loops(["a"] * 3)
    assert not loops(["so", "it", "goes", "so", "it", "goes", "so", "it", "went"])
    assert not loops(["a", "a"])
    assert repeated(["a", "b", "c", "a", "b", "c"], 2) == pytest.approx(2 / 5)
    assert repeated(["a"], 4) == 0


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_always_changes_and_never_empties(kind):
    rng = random.Random(0)
    for case in Robustness(n=40, world=WORLD).cases():
        text = case.prompt[0]["content"]
        assert damage(text, kind, rng) != text
        assert len(damage(text, kind, rng).split()) == len(text.split())


def test_the_drop_is_read_only_where_there_is_something_to_lose():
    probe = Robustness(n=24, world=WORLD)
    cases = probe.cases()
    right = {case.prompt[0]["content"]: case.target for case in cases}
    brittle = columns(probe.observe(Scripted(lambda p: right.get(p[0]["content"], "?")), cases))
    assert probe.reduce(brittle) == 1
    assert not probe.competence(brittle)
    assert probe.competence(columns(probe.observe(Scripted(lambda p: "?"), cases)))


def test_bits_per_byte_of_a_uniform_byte_model():
    probe = Perplexity(n=20)
    rows = probe.observe(Scripted(score=lambda c, t: -len(t.encode()) * math.log(256)), probe.cases())
    assert probe.reduce(columns(rows)) == pytest.approx(8)


def test_your_own_text_is_read(tmp_path):
    (tmp_path / "mine.txt").write_text("Held-out words of my own.\n")
    (case,) = Perplexity(text=tmp_path / "mine.txt").cases()
    assert case.choices == ("Held-out words of my own.",) or "words of my own" in case.choices[0]


def test_refusals_are_graded_on_both_sides():
    probe = Refusal(n=10, world=WORLD)
    for case in probe.cases():
        assert probe.grade(case, case.target)["value"] == 0
        other = "I cannot talk about that." if not case.extra["forbidden"] else "Take a cloth."
        assert probe.grade(case, other)["value"] == 1


def test_cost_is_read_from_a_stream():
    probe = replace(Cost(), n=3)
    rows = probe.observe(Scripted(lambda prompt: "a b c"), probe.cases())
    assert all(row["value"] > 0 and row["first"] > 0 for row in rows)
    assert probe.figures(columns(rows))["ms to the first token"] > 0


def test_messages_are_a_conversation():
    assert ask("What?") == ({"role": "user", "content": "What?"},)
