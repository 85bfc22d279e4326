"""A proof says better or worse where there is a change, and only there."""

import io
import re
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import simulated
from auditing_models import Clock, Echo, Guesser, Hopeless, Length, Nowhere, Tutor
from qualm.auditing import prove as room
from qualm.auditing.intervals import compare as compare_columns
from qualm.auditing.prove import compare, prove, prove_and_keep
from qualm.auditing.report.build import build
from qualm.auditing.report.content import report_of
from qualm.auditing.report.markdown import markdown
from qualm.auditing.run import audit
from qualm.auditing.stats import mcnemar_exact
from qualm.cases import Case
from qualm.cli.tables import proof_table
from qualm.errors import InputError, Unsupported
from qualm.lm.base import LIKELIHOOD, PSEUDO, UNDER
from qualm.mends.identity import Identity

BOTH = frozenset({"generate", "score"})
nulls = simulated.load("nulls")


def test_a_mend_that_works_is_better_and_costs_nothing_elsewhere():
    proof = prove(Guesser(0.5, BOTH), Tutor(0.9), [Echo(200), Length(60)])
    echo, length = proof["echo"], proof["length"]
    assert echo.verdict == "better"
    assert 0 < echo.low < echo.difference < echo.high
    assert echo.difference == pytest.approx(echo.after.value - echo.before.value)
    assert (echo.fixed - echo.broken) / echo.n == pytest.approx(echo.difference)
    assert (echo.test, echo.p) == ("mcnemar", mcnemar_exact(echo.fixed, echo.broken))
    assert echo.harmless
    assert length.verdict == "cannot tell"
    assert length.harmless
    assert proof.summary == {
        "better": ["echo"],
        "worse": [],
        "cannot tell": ["length"],
        "not measured": [],
        "harmless": ["echo", "length"],
    }


def test_a_limit_of_which_no_row_changed_is_unchanged():
    proof = prove(Guesser(0.5, BOTH), Tutor(0.9), [Echo(200), Length(60)])
    assert (proof["echo"].unchanged, proof["length"].unchanged) == (False, True)
    assert proof["length"].difference == 0
    page = build(report_of(proof))
    text = markdown(page)
    assert f"| unchanged ({proof['length'].n} cases) |" in text
    assert f"未变（{proof['length'].n} 例）" in markdown(build(report_of(proof), language="zh")).replace(
        " (", "（"
    ).replace(")", "）")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(proof_table(proof))
    shown = console.export_text()
    assert "unchanged (" in shown
    assert not re.search(r"Length .*would have shown", shown)
    echo = next(line for line in shown.splitlines() if line.startswith("Echo"))
    assert "unchanged" not in echo


def test_a_mend_that_harms_is_worse():
    change = prove(Guesser(0.9), Tutor(0.0), [Echo(200)])["echo"]
    assert change.verdict == "cannot tell", "Tutor(0) passes everything on"
    harmed = compare(audit(Guesser(0.9), [Echo(200)]), audit(Guesser(0.5), [Echo(200)]))["echo"]
    assert harmed.verdict == "worse"
    assert harmed.high < 0
    assert not harmed.harmless


def test_where_lower_is_better_a_fall_is_better():
    class Terse(Guesser):
        def score(self, pairs):
            return [replace(s, logprobs=(0.5 * s.total,)) for s in super().score(pairs)]

    change = compare(audit(Guesser(can=BOTH), [Length(80)]), audit(Terse(can=BOTH), [Length(80)]))["length"]
    assert change.verdict == "better"
    assert change.high < 0
    assert (change.fixed, change.broken) == (0, 0), "its rows have no value of their own"


def test_nothing_changed_cannot_be_told_from_a_small_change():
    proof = prove(Guesser(0.5, BOTH), Identity(), [Echo(200), Hopeless(200, clusters=20, least=0), Length(60)])
    for change in proof.changes:
        assert change.verdict == "cannot tell"
        assert change.difference == 0
        assert change.low < 0 < change.high
        assert change.p == change.p_holm == 1
        assert change.detectable > 0
        assert (change.fixed, change.broken) == (0, 0)


class Echo5(Echo):
    """Of few templates."""

    def cases(self):
        return replace(Echo(self.n), clusters=6).cases()


def test_too_few_groups_to_show_anything_are_said_to_be():
    change = compare(audit(Guesser(0.1), [Echo5(200)]), audit(Guesser(0.95), [Echo5(200)]))["echo5"]
    assert change.groups < 6
    assert change.detectable is None
    assert change.verdict == "cannot tell"


def test_a_mend_learns_from_tune_cases_of_its_limit_alone():
    proof = prove(Guesser(0.5, BOTH), Tutor(0.9), [Echo(200), Length(60), Nowhere()])
    tune = [case for case in Echo(200).cases() if case.split == "tune"]
    assert proof.mend == {
        "name": "tutor",
        "settings": {"skill": 0.9, "shown": len(tune)},
        "mends": ["echoing"],
        "tuned_on": len(tune),
    }
    put = {case.id for case in proof.after["echo"].cases}
    assert put.isdisjoint(case.id for case in tune)


def test_a_mend_is_refused_where_the_model_cannot_bear_it():
    class Needy(Tutor):
        needs = frozenset({"weights"})

    with pytest.raises(Unsupported, match="the mend needy needs weights, which guesser"):
        prove(Guesser(), Needy(), [Echo(40)])


def test_the_mended_model_is_kept_and_the_first_stays_as_it_was():
    lm = Guesser(0.5)
    proof, mended = prove_and_keep(lm, Tutor(0.9), [Echo(100)])
    assert mended.card.hash == proof.after.card.hash != proof.before.card.hash == lm.card.hash
    assert audit(lm, [Echo(100)])["echo"].rows == proof.before["echo"].rows


def test_an_audit_at_hand_is_not_made_again():
    known = audit(Guesser(0.5, BOTH), [Echo(100), Length(40)])
    lm = Guesser(0.5, BOTH)
    proof = prove(lm, Identity(), before=known)
    assert [change.name for change in proof.changes] == ["echo", "length"]
    assert proof.before["echo"].rows is known["echo"].rows
    assert len(lm.asked) == len(known["echo"].cases), "only the mended model was asked"
    other = prove(lm, Identity(), [Echo(60), Length(40)], before=known)
    assert len(other.before["echo"].cases) < 60, "another probe than the one at hand"
    with pytest.raises(InputError, match="another model"):
        prove(Guesser(0.7), Identity(), before=known)


def test_a_killed_proof_goes_on_from_its_cache(tmp_path):
    first, second = Guesser(0.5), Guesser(0.5)
    made = [prove(lm, Tutor(0.9), [Echo(100)], cache=tmp_path) for lm in (first, second)]
    assert first.asked
    assert not second.asked
    assert made[0].changes == made[1].changes


def test_the_clock_is_read_by_turns():
    probe = Clock(60)
    proof = prove(Guesser(), Identity(), [probe, Echo(40)])
    first, second = probe.ticks[::2], probe.ticks[1::2]
    assert all({a, b} == {"guesser-0.6", "guesser-0.6+identity"} for a, b in zip(first, second, strict=True))
    assert 0.4 < first.count("guesser-0.6") / len(first) < 0.6, "neither always goes first"
    assert proof["clock"].verdict == "cannot tell", "though the clock ran on all the while"
    assert [m.name for m in proof.before.measurements] == ["clock", "echo"]
    again = prove(Guesser(), Identity(), before=proof.before)
    assert again.before["clock"].rows != proof.before["clock"].rows


def test_times_of_two_audits_tell_nothing_of_the_models():
    class Live(Echo):
        live = True

    change = compare(audit(Guesser(0.2), [Live(100)]), audit(Guesser(0.9), [Live(100)]))["live"]
    assert (change.verdict, change.difference) == ("cannot tell", None)
    assert "not timed by turns" in change.why
    assert change.before.value < change.after.value


def test_what_one_side_could_not_read_has_no_verdict_but_a_reason():
    made = compare(audit(Guesser(0.95), [Hopeless(80)]), audit(Guesser(0.5), [Hopeless(80)]))["hopeless"]
    assert made.verdict == "cannot tell"
    assert made.difference is None
    assert made.why == "after: the subject cannot do this task: it echoes too little"
    proof = compare(audit(Guesser(), [Echo(60), Nowhere()]), audit(Guesser(), [Echo(60), Nowhere()]))
    assert proof["nowhere"].why == "there is nothing to put"
    assert proof.summary["not measured"] == ["nowhere"]


def test_a_probe_that_only_one_audit_has_is_named():
    proof = compare(audit(Guesser(0.5), [Echo(60)]), audit(Guesser(0.6, BOTH), [Echo(60), Length(40)]))
    assert [change.name for change in proof.changes] == ["echo", "length"]
    assert proof["length"].why == "before: not among the probes of guesser-0.5"
    assert proof["length"].after is not None
    assert proof.before["length"].reading is None


def test_only_cases_read_on_both_sides_count():
    class Shy(Guesser):
        def _answer(self, prompt):
            return super()._answer("silence" if prompt.endswith("7") else prompt)

    before, after = audit(Guesser(0.6), [Echo(200)]), audit(Shy(0.6), [Echo(200)])
    change = compare(before, after)["echo"]
    unread = after["echo"].unread
    assert change.n == len(before["echo"].cases) - unread
    assert unread > 0
    assert change.before.n == change.n
    assert change.difference == 0 == change.after.value - change.before.value


def test_one_name_for_two_questions_is_refused():
    before = audit(Guesser(), [Echo(60)])
    asked = before["echo"].cases
    for other in ({"prompt": "another"}, {"target": "another"}, {"choices": ("a", "b")}):
        twisted = replace(before["echo"], cases=(replace(asked[0], **other), *asked[1:]))
        with pytest.raises(InputError, match=r"case 'echo/\d+' of echo asks different things"):
            compare(before, replace(before, measurements=(twisted,)))


def test_audits_without_a_case_in_common_are_not_compared():
    before = audit(Guesser(), [Echo(60)])
    moved = replace(before["echo"], cases=tuple(replace(c, id=f"x{c.id}") for c in before["echo"].cases))
    change = compare(before, replace(before, measurements=(moved,)))["echo"]
    assert "no case in common" in change.why


def test_a_conversation_is_the_same_as_list_or_tuple():
    turns = [{"role": "user", "content": "say 1"}]
    before = audit(Guesser(), [Echo(60)])
    sides = []
    for kind in (list, tuple):
        cases = tuple(Case(c.id, kind(turns), c.target) for c in before["echo"].cases)
        sides.append(replace(before, measurements=(replace(before["echo"], cases=cases),)))
    assert compare(*sides)["echo"].difference == 0


def test_many_probes_need_stronger_evidence():
    """The same change is better alone and cannot be told among many."""
    before, after = audit(Guesser(0.55), [Echo(100)])["echo"], audit(Guesser(0.72), [Echo(100)])["echo"]
    change = room._change(pair := room.paired(before, after), room._compared(pair), 0.04)
    assert change.verdict == "better"
    assert room._change(pair, room._compared(pair), 0.06).verdict == "cannot tell"
    names = [f"echo {i}" for i in range(40)]
    sides = [[replace(side, name=name) for name in names] for side in (before, after)]
    base = audit(Guesser(), [])
    proof = compare(*(replace(base, measurements=tuple(side)) for side in sides))
    assert proof["echo 0"].p_holm == min(1, 40 * proof["echo 0"].p)


@pytest.mark.timeout(900)
def test_at_most_one_proof_of_nothing_in_twenty_finds_something(monkeypatch):
    """Two hundred proofs of thirteen probes of mixed kinds; see benchmarks/nulls.py."""
    monkeypatch.setattr(room, "compare_columns", partial(compare_columns, draws=400))
    assert nulls.false_finds(200) <= 10


@pytest.mark.timeout(900)
def test_real_effects_are_found(monkeypatch):
    monkeypatch.setattr(room, "compare_columns", partial(compare_columns, draws=400))
    found = nulls.power({2: 1.0, 3: 2.5, 6: 2.0, 8: 0.5, 11: 1.0, 12: 1.0}, 12)
    assert min(found.values()) >= 0.75, found


def test_a_pseudo_likelihood_is_never_set_against_a_likelihood():
    def scored(kind, tokenizer="one", skill=0.6):
        lm = Guesser(skill, BOTH)
        lm.card = replace(lm.card, scoring=kind, tokenizer=tokenizer)
        return audit(lm, [Echo(200), Length(60)])

    exact, pseudo = scored(LIKELIHOOD), scored(PSEUDO, skill=0.9)
    proof = compare(exact, pseudo)
    assert (proof["length"].verdict, proof["length"].difference) == ("cannot tell", None)
    assert proof["length"].why == "the scores are of two kinds that do not compare: likelihood and pseudo-likelihood"
    assert proof["echo"].verdict == "better", "what was generated compares"
    assert "two" in compare(pseudo, scored(PSEUDO, "other"))["length"].why
    assert compare(pseudo, scored(PSEUDO))["length"].difference == 0
    assert compare(exact, scored(UNDER, "other"))["length"].difference == 0
