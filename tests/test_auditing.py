"""The audit puts every probe, keeps what it can read, and says why where it cannot."""

import json
import math
import re
from dataclasses import replace

import pytest

from auditing_models import Broken, Echo, Guesser, Hopeless, Length, Nowhere
from qualm import registry
from qualm.auditing.readings import measurement, name_of, table
from qualm.auditing.run import audit, choose, machine, measure, suit
from qualm.auditing.stats import wilson
from qualm.cases import Case
from qualm.errors import QualmError, Stopped, UsageError
from qualm.lm.base import Card
from qualm.lm.replay import Replay
from qualm.probes.arithmetic import Arithmetic
from qualm.world.base import World
from tiny import tiny_local

BOTH = frozenset({"generate", "score"})


def test_a_reading_is_the_share_of_test_cases_that_were_right():
    made = measure(Guesser(0.6), Echo(200))
    assert {case.split for case in made.cases} == {"test"}
    assert 120 < len(made.cases) < 180
    right = sum(row["value"] for row in made.rows)
    assert made.reading.value == right / len(made.cases)
    assert (made.reading.low, made.reading.high) == pytest.approx(wilson(right, len(made.cases)))
    assert made.chance == 0.01
    assert made.seconds > 0


def test_parts_are_read_on_their_own_and_add_up():
    made = measure(Guesser(0.6), Echo(200))
    assert set(made.parts) == {"short", "long"}
    assert sum(part.n for part in made.parts.values()) == made.reading.n
    assert sum(part.value * part.n for part in made.parts.values()) == pytest.approx(
        made.reading.value * made.reading.n
    )


def test_cases_of_one_group_are_not_independent():
    alone, grouped = (measure(Guesser(0.6), Echo(400, clusters=k)).reading for k in (0, 12))
    assert grouped.groups < 12 < alone.groups == alone.n
    assert grouped.high - grouped.low > alone.high - alone.low


def test_other_numbers_than_means_are_read_by_their_own_reduce():
    made = measure(Guesser(can=BOTH), Length(80))
    read = table(made.cases, made.rows)
    assert made.reading.value == pytest.approx(read.columns["nats"].sum() / read.columns["bytes"].sum())
    assert made.reading.method == "bootstrap"
    assert made.figures == {"longest": 14.0}, "figures that are not defined are left out"
    assert all(type(row["bytes"]) is int for row in made.rows), "rows are plain numbers"


def test_a_model_that_cannot_do_what_a_probe_needs_is_not_measured():
    made = measure(Guesser(), Length())
    assert made.reading is None
    assert made.why == "needs score, which guesser-0.6 does not give"


def test_a_subject_that_cannot_do_the_task_is_told_so_and_keeps_its_rows():
    made = measure(Guesser(0.5), Hopeless(100))
    assert made.reading is None
    assert made.why == "the subject cannot do this task: it echoes too little"
    assert made.rows
    assert measure(Guesser(0.99), Hopeless(100)).reading is not None


def test_a_probe_with_nothing_to_put_is_not_measured():
    assert measure(Guesser(), Nowhere()).why == "there is nothing to put"


def test_cases_that_could_not_be_read_are_counted_and_left_out():
    cases = [Case(f"{i}", f"say {'silence' if i % 4 == 0 else 'word'} {i}", str(i)) for i in range(80)]
    made = measure(Guesser(1.0), Echo(), cases)
    assert (made.unread, made.reading.n, made.reading.value) == (20, 60, 1.0)
    mute = measure(Guesser(1.0), Echo(), cases[::4])
    assert mute.reading is None
    assert mute.why == "none of 20 cases could be read: the model gave no answer"
    assert mute.unread == 20
    nearly = measure(Guesser(1.0), Echo(), cases[-4:-2])
    assert nearly.why.endswith("too few (the others: the model gave no answer)")


def test_a_prompt_too_long_is_one_unread_case_with_its_reason(tmp_path):
    lm, fits = tiny_local(), Case("short", "the cat", "x")
    cases = [fits, Case("long", "a " * 100, "x"), Case("other", "a dog", "x")]
    for asked in (lm, Replay(lm, tmp_path), Replay(lm, tmp_path)):
        made = measure(asked, Echo(), cases)
        assert (made.unread, made.reading.n) == (1, 2)
        assert re.fullmatch(
            r"the prompt has 2\d\d tokens and tiny can look at 96, .*; shorten the prompt, or say what may be cut",
            made.unread_why,
        )
        assert made.rows[1] == {"why": made.unread_why}
    assert "can look at 96" in measure(lm, Echo(), [cases[1]] * 2).why


def test_one_case_is_too_few():
    assert "too few" in measure(Guesser(), Echo(), [Case("1", "say 1", "1")]).why
    assert "too few" in measure(Guesser(), Echo(), []).why


def test_a_number_that_is_none_is_our_error_and_raised():
    with pytest.raises(ValueError, match=r"broken, case echo/\d+: value is inf"):
        audit(Guesser(), [Broken(40)])


def test_an_error_of_ours_is_not_swallowed():
    class Wrong(Guesser):
        def generate(self, prompts, sampling=None):
            raise KeyError("ours")

    with pytest.raises(KeyError):
        audit(Wrong(), [Echo(40)])


def test_a_model_that_fails_in_one_probe_keeps_its_other_readings():
    class Moody(Guesser):
        def score(self, pairs):
            raise QualmError("the endpoint hung up", then="try again")

    made = audit(Moody(can=BOTH), [Length(40), Echo(40)])
    assert made["length"].reading is None
    assert made["length"].why == "the endpoint hung up; try again"
    assert made["echo"].reading is not None


def test_being_told_to_stop_stops_the_audit():
    class Stopping(Guesser):
        def generate(self, prompts, sampling=None):
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        audit(Stopping(), [Echo(40)])


def test_progress_is_told_for_every_probe():
    told = []
    audit(Guesser(), [Echo(40), Nowhere()], on_progress=lambda *what: told.append(what))
    assert told == [("audit guesser-0.6", 0, 2), ("audit guesser-0.6", 1, 2), ("audit guesser-0.6", 2, 2)]


def test_answers_are_kept_and_not_asked_again(tmp_path):
    first, second = Guesser(), Guesser()
    once = audit(first, [Echo(60)], cache=tmp_path)
    again = audit(second, [Echo(60)], cache=tmp_path)
    assert first.asked
    assert not second.asked
    assert once["echo"].rows == again["echo"].rows
    assert audit(Guesser(0.1), [Echo(60)], cache=tmp_path)["echo"].rows != once["echo"].rows


def test_a_probe_that_reads_the_machine_is_never_answered_from_the_cache(tmp_path):
    class Live(Echo):
        live = True

    first, second = Guesser(), Guesser()
    for lm in (first, second):
        audit(lm, [Live(40)], cache=tmp_path)
    assert first.asked == second.asked != []
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_hash_is_audited_without_a_cache(tmp_path):
    nameless = Guesser()
    nameless.card = Card("endpoint")
    assert audit(nameless, [Echo(40)], cache=tmp_path)["echo"].reading is not None


def test_by_default_all_probes_are_put_and_quickly_if_asked():
    names = registry.names("probes")
    assert [name_of(probe) for probe in choose(None, Card("fake"))] == names
    assert all(probe.n <= probe.quick for probe in choose(None, Card("fake"), quick=True))
    mine = Arithmetic(n=77)
    assert choose([mine, "knowledge"], Card("fake"), quick=True)[0].n == 77, "a finished probe stays as it is"


def test_an_unknown_probe_and_one_given_twice_are_usage_errors():
    with pytest.raises(UsageError, match="did you mean 'arithmetic'"):
        choose(["arithmetik"], Card("fake"))
    with pytest.raises(UsageError, match="arithmetic is asked for twice"):
        choose(["arithmetic", Arithmetic(n=5)], Card("fake"))


def test_a_probe_is_put_in_the_world_the_model_was_trained_on():
    planted = Card("llama", world={"seed": 3, "taught": 5})
    assert suit(Arithmetic(), planted).world == World(seed=3, taught=5)
    assert suit(Arithmetic(), Card("llama")).world is None
    assert suit(Arithmetic(world=World(seed=9)), planted).world == World(seed=9)
    assert suit(Length(), planted) == Length()


def test_the_machine_is_described_without_saying_whose_it_is():
    import platform

    told = machine()
    assert {"qualm", "python", "torch", "tokenizers", "platform", "processor", "cores"} <= set(told)
    assert platform.node() not in json.dumps(told)


def test_a_column_is_a_number_that_all_rows_have():
    cases = [Case(f"{i}", "") for i in range(3)]
    rows = [{"value": 1, "extra": 2.0, "answer": "a"}, {}, {"value": True, "answer": "b"}]
    read = table(cases, rows)
    assert {name: column.tolist() for name, column in read.columns.items()} == {"value": [1.0, 1.0]}


def test_what_was_read_can_be_computed_again_from_rows_alone():
    made = measure(Guesser(0.6), Echo(200, clusters=20))
    again = measurement(made.probe, made.cases, made.rows)
    assert replace(again, seconds=made.seconds) == made


def test_text_that_no_file_can_hold_is_mended():
    rows = [{"value": 1.0, "answer": "\ud800 and on"}] * 2
    made = measurement(Echo(), [Case("1", ""), Case("2", "")], rows)
    assert made.rows[0]["answer"] == "? and on"
    assert math.isclose(made.reading.value, 1.0)
