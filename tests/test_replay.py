"""Replay: nothing finished is asked twice, nothing of another model is ever given, no kill can spoil the folder."""

import json
import multiprocessing
import os

import pytest

from qualm.cases import ask
from qualm.errors import InputError, QualmError
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.lm.replay import Replay
from server import Toy

SHORT = Sampling(4)
PROMPTS = [*[f"cat {i}" for i in range(8)], ask("Where?"), "cat 3", "", "中文 é"]
PAIRS = [("the", " cat"), ("", "a house 中"), (ask("Where?"), "in the house"), ("the", " cat")]


class Counted(Toy):
    """Counts the batches it is given; dies at the one named."""

    def __init__(self, seed=0, dies_at=None):
        super().__init__(seed)
        self.batches, self.dies_at = [], dies_at

    def generate(self, prompts, sampling=Sampling()):
        if len(self.batches) == self.dies_at:
            raise KeyboardInterrupt
        self.batches.append(list(prompts))
        return super().generate(prompts, sampling)

    def score(self, pairs):
        self.batches.append(list(pairs))
        return super().score(pairs)


def lines(folder):
    return [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def test_answers_are_the_models_own_and_asked_once(tmp_path):
    toy = Counted()
    replay = Replay(toy, tmp_path, chunk=5)
    fresh = replay.generate(PROMPTS, SHORT), replay.score(PAIRS)
    assert fresh == (Toy().generate(PROMPTS, SHORT), Toy().score(PAIRS))
    assert [len(batch) for batch in toy.batches] == [5, 4, 2, 3]  # "cat 3" was known, ("the", " cat") stood twice
    again = Counted()
    replayed = Replay(again, tmp_path, chunk=5)
    assert (replayed.generate(PROMPTS, SHORT), replayed.score(PAIRS)) == fresh
    assert again.batches == []


def test_another_sampling_is_another_question(tmp_path):
    toy = Counted()
    replay = Replay(toy, tmp_path)
    for sampling in (SHORT, Sampling(5), Sampling(4, temperature=1.0), Sampling(4, temperature=1.0, seed=1)):
        assert replay.generate(["cat"], sampling) == Toy().generate(["cat"], sampling)
    assert len(toy.batches) == 4


def test_a_killed_run_is_resumed_with_the_same_batches(tmp_path):
    whole = Counted()
    answers = Replay(whole, tmp_path / "whole", chunk=3).generate(PROMPTS, SHORT)
    killed = Counted(dies_at=2)
    with pytest.raises(KeyboardInterrupt):
        Replay(killed, tmp_path / "killed", chunk=3).generate(PROMPTS, SHORT)
    resumed = Counted()
    assert Replay(resumed, tmp_path / "killed", chunk=3).generate(PROMPTS, SHORT) == answers
    assert killed.batches + resumed.batches == whole.batches
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_line_cut_off_by_a_kill_is_asked_again(tmp_path, cut):
    answers = Replay(Toy(), tmp_path, chunk=3).generate(PROMPTS, SHORT)
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    resumed = Counted()
    assert Replay(resumed, tmp_path, chunk=3).generate(PROMPTS, SHORT) == answers
    assert resumed.batches == [PROMPTS[10:]]  # of the last chunk, "cat 3" was known
    third = Counted()
    assert Replay(third, tmp_path, chunk=3).generate(PROMPTS, SHORT) == answers
    assert third.batches == []


def test_a_damaged_line_is_named(tmp_path):
    Replay(Toy(), tmp_path, chunk=3).generate(PROMPTS, SHORT)
    (path,) = tmp_path.rglob("*.jsonl")
    good = path.read_text().splitlines()
    for bad in ("{]", "[1]"):
        path.write_text("\n".join([good[0], bad, *good[1:]]) + "\n")
        with pytest.raises(InputError, match="a damaged line") as caught:
            Replay(Toy(), tmp_path).generate(PROMPTS, SHORT)
        assert caught.value.where == f"{path}:2"


def test_changed_weights_are_never_given_the_old_answers(tmp_path):
    Replay(Toy(), tmp_path).generate(PROMPTS, SHORT)
    other = Counted(seed=1)
    other.name = Toy().name
    replay = Replay(other, tmp_path)
    assert replay.generate(PROMPTS, SHORT) == Toy(seed=1).generate(PROMPTS, SHORT)
    assert len(other.batches) == 1
    other.seed, other.card = 2, Card("toy", weights="toy 2")  # changed in place, and says so
    assert replay.generate(PROMPTS, SHORT) == Toy(seed=2).generate(PROMPTS, SHORT)
    other.card = Card("toy", weights="toy 2", mends=("Temper()",))
    assert replay.generate(PROMPTS, SHORT) == Toy(seed=2).generate(PROMPTS, SHORT)
    assert len(other.batches) == 3


def test_a_model_that_does_not_say_what_it_is_is_refused(tmp_path):
    toy = Toy()
    toy.card = Card("toy")
    with pytest.raises(QualmError, match="does not say which weights"):
        Replay(toy, tmp_path).generate(["a"])


def test_the_unread_is_asked_again(tmp_path):
    class Flaky(Counted):
        def generate(self, prompts, sampling=Sampling()):
            answers = super().generate(prompts, sampling)
            return [
                Completion("", finish="unread") if p == "cat 1" else a for p, a in zip(prompts, answers, strict=True)
            ]

        def score(self, pairs):
            return [Scored((float("nan"),)) for _ in super().score(pairs)]

    replay = Replay(Flaky(), tmp_path)
    assert replay.generate(PROMPTS[:3], SHORT)[1].finish == "unread"
    assert replay.score(PAIRS)[0].total != 0
    healed = Counted()
    replay = Replay(healed, tmp_path)
    assert replay.generate(PROMPTS[:3], SHORT) == Toy().generate(PROMPTS[:3], SHORT)
    assert replay.score(PAIRS[:1]) == Toy().score(PAIRS[:1])
    assert healed.batches == [["cat 1"], [("the", " cat")]]


def test_numbers_and_notes_come_back_as_they_were(tmp_path):
    class Odd(LM):
        name, can, card = "odd", frozenset({"generate", "score"}), Card("odd", weights="odd")

        def generate(self, prompts, sampling=Sampling()):
            return [Completion(p, 3, 2, "length", (-0.1, -1e-300), {"passages": ["a", 1.5, None]}) for p in prompts]

        def score(self, pairs):
            return [Scored((0.1 + 0.2 - 1, -float("inf"), -0.0)) for _ in pairs]

    fresh, replayed = Replay(Odd(), tmp_path), Replay(Odd(), tmp_path)
    assert fresh.generate(["\ud83d\n\u2028"[1:]]) == replayed.generate(["\n\u2028"]) == Odd().generate(["\n\u2028"])
    assert (
        str(fresh.score([("", "a")]))
        == str(Replay(Odd(), tmp_path).score([("", "a")]))
        == str(Odd().score([("", "a")]))
    )


def test_a_full_disk_is_said_to_be_full_and_spoils_nothing(tmp_path, monkeypatch):
    replay = Replay(Toy(), tmp_path, chunk=4)
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QualmError, match="cannot write: No space left on device"):
        replay.generate(PROMPTS, SHORT)
    assert replay.generate(PROMPTS, SHORT) == Toy().generate(PROMPTS, SHORT)
    assert Replay(Counted(dies_at=0), tmp_path, chunk=4).generate(PROMPTS, SHORT) == Toy().generate(PROMPTS, SHORT)


def use(folder, number):
    Replay(Toy(), folder, chunk=2).generate([f"cat {i}" for i in range(number, number + 12)], SHORT)


def test_processes_may_share_a_folder(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=use, args=(tmp_path, number)) for number in (0, 4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2
    assert all(json.loads(line) for line in lines(tmp_path))
    silent = Counted(dies_at=0)
    prompts = [f"cat {i}" for i in range(16)]
    assert Replay(silent, tmp_path).generate(prompts, SHORT) == Toy().generate(prompts, SHORT)


def test_a_stream_is_passed_on(tmp_path):
    assert "".join(Replay(Toy(), tmp_path).stream("cat", SHORT)) == Toy().generate(["cat"], SHORT)[0].text
