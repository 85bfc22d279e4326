"""What each probe reads off an answer, where the right reading is known."""

import math
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from encoder_models import tiny_encoder
from qualm.auditing.prove import prove
from qualm.auditing.record import document
from qualm.auditing.run import measure
from qualm.cases import Case, ask
from qualm.errors import Unsupported
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.lm.load import load_base
from qualm.lm.wrapped import Wrapped
from qualm.mends.quantize import Quantize
from qualm.probes._facts import is_right
from qualm.probes._numbers import auroc
from qualm.probes.arithmetic import Arithmetic
from qualm.probes.bias import Bias
from qualm.probes.calibration import Calibration, calibrated_error, calibration_error
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
    assert probe.reduce(honest) == pytest.approx(0, abs=1e-9), "one confidence, right as often as it says"
    assert probe.figures(honest)["Brier score"] == pytest.approx(0.16)


def simulated(rng, n, truth):
    confidence = 1 / 8 + 7 / 8 * rng.beta(4, 3, n)
    return confidence, (rng.random(n) < truth(confidence)).astype(float)


@pytest.mark.parametrize(("n", "noise"), [(100, 0.07), (270, 0.05), (1000, 0.03)])
def test_calibration_error_of_a_calibrated_subject_is_small(n, noise):
    """15 fixed bins read 0.14, 0.09 and 0.045 here."""
    rng = np.random.default_rng(0)
    samples = [simulated(rng, n, lambda p: p) for _ in range(200)]
    read = np.mean([calibration_error(*sample) for sample in samples])
    assert read < noise
    assert np.mean([calibrated_error(p) for p, _ in samples[:20]]) == pytest.approx(read, rel=0.2), "and is said to be"


@pytest.mark.parametrize("n", [270, 1000])
def test_calibration_error_of_a_subject_too_sure_is_what_it_is(n):
    rng = np.random.default_rng(0)
    read = [calibration_error(*simulated(rng, n, lambda p: p - 0.1)) for _ in range(200)]
    assert np.mean(read) == pytest.approx(0.1, abs=0.007)


def test_calibration_error_hangs_on_no_order():
    rng = np.random.default_rng(0)
    confidence, right = simulated(rng, 90, lambda p: p)
    confidence = confidence.round(1)
    read = {round(calibration_error(confidence[o], right[o]), 12) for o in (rng.permutation(90) for _ in range(20))}
    assert len(read) == 1


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


class Sleeper(Scripted):
    """Takes a time for each of its tokens."""

    def __init__(self, tokens=10, text="a b c", pause=0.001):
        self.tokens, self.text, self.pause = tokens, text, pause

    def generate(self, prompts, sampling=None):
        time.sleep(self.tokens * self.pause * len(prompts))
        return [Completion(self.text, tokens=self.tokens) for _ in prompts]


class Rewritten(Wrapped):
    """Lets out one short sentence, whatever was written."""

    def generate(self, prompts, sampling=Sampling()):
        return [replace(answer, text="No.") for answer in self.inner.generate(prompts, sampling)]


def test_cost_counts_what_the_model_wrote_whatever_is_let_out():
    bare = Sleeper()
    bare.card = Card("fake")
    probe, around = Cost(n=6), Rewritten(bare, "Rewritten()")
    probe = probe.fitted(bare, around)
    assert probe.unit == "tokens/s"
    plain, wrapped = (columns(probe.observe(lm, probe.cases())) for lm in (bare, around))
    assert 0.7 < np.median(wrapped["value"]) / np.median(plain["value"]) < 1.4
    assert 300 < np.median(plain["value"]) < 1000
    figures = probe.figures(plain)
    assert 1 <= figures["ms a token"] <= figures["ms a token, slowest round"]
    assert figures["ms to the first piece of text"] >= 10


def test_cost_counts_characters_where_tokens_are_not_told():
    lm = Scripted(lambda prompt: "a b c")
    probe = Cost(n=3).fitted(lm)
    assert probe.unit == "characters/s"
    (row,) = probe.observe(lm, probe.cases()[:1])
    assert row["value"] * row["seconds"] == pytest.approx(1)
    assert Cost(n=3).fitted(Sleeper()).fitted(lm, Sleeper()).unit == "characters/s"


def test_cost_says_why_nothing_was_timed():
    mute = Sleeper(tokens=0, text="", pause=0)
    made = measure(mute, Cost(n=4))
    assert made.why == "none of 3 cases could be read: it wrote nothing: the first token of its answer is its end token"
    deaf = Scripted()
    deaf.can = frozenset({"tag"})
    assert measure(deaf, Cost(n=4)).why == "needs generate, embed or classify, none of which scripted gives"


def test_the_margin_of_a_speed_is_a_share_of_it():
    assert Cost().margin_at(200.0) == pytest.approx(20.0)
    assert Arithmetic().margin_at(200.0) == Arithmetic.margin


def test_cost_of_a_model_that_only_reads_and_what_lies_on_disk(tmp_path):
    tiny_encoder("sequence", "good bad").save(tmp_path / "model")
    lm = load_base(tmp_path / "model")
    made = measure(lm, Cost(n=6))
    assert made.probe.unit == "texts/s"
    assert made.reading.value > 0
    files = sum(file.stat().st_size for file in (tmp_path / "model").iterdir())
    assert made.figures["MiB on disk"] == pytest.approx(files / 2**20)
    assert made.figures["s to load"] > 0
    proof = prove(lm, Quantize(), [Cost(n=6)])
    assert proof["cost"].difference is not None
    assert proof["cost"].harmless is not None
    assert "MiB on disk" not in proof.after["cost"].figures, "what was made in memory lies on no disk"
    assert document(proof)["changes"][0]["margin"] == pytest.approx(0.1 * proof.before["cost"].value)


def test_messages_are_a_conversation():
    assert ask("What?") == ({"role": "user", "content": "What?"},)
