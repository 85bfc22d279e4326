"""The calculator: its result, and not the model's own, decides the answer; and nothing else is touched."""

import re

import pytest

from mend_models import Scripted, tiny, user
from qualm.errors import UsageError
from qualm.lm.base import Completion, Sampling
from qualm.mends.calculator import NOT_COMPUTED, SHOTS, Calculator, needs_calculator
from qualm.text.arithmetic import evaluate
from qualm.text.match import last_number
from qualm.text.prompts import CALCULATOR_HINT, with_calculator

SUMS = [(a, b) for a in range(11, 99, 8) for b in range(12, 99, 9)]
QUESTIONS = [user(f"What is {a} + {b}?") for a, b in SUMS]


def writes_calls(prompt):
    """Trained on the protocol, bad at sums: it writes the call with a result of its own, then repeats what stands."""
    last = prompt[-1]
    if last["role"] == "assistant":
        return last["content"].removesuffix(">>").rpartition("=")[2]
    numbers = re.findall(r"\d+", last["content"])
    if CALCULATOR_HINT not in last["content"]:
        return "99999"
    return f"<<{numbers[-2]} + {numbers[-1]}=7>>7" if len(numbers) > 1 else "none"


def right(answers):
    return sum(last_number(answer.text) == a + b for answer, (a, b) in zip(answers, SUMS, strict=True)) / len(SUMS)


def test_nothing_to_everything():
    model = Scripted(writes_calls)
    assert right(model.generate(QUESTIONS)) == 0
    answers = Calculator(shots=0)(model).generate(QUESTIONS)
    assert right(answers) == 1
    assert all(answer.text == str(a + b) for answer, (a, b) in zip(answers, SUMS, strict=True))
    assert answers[0].notes["calls"] == (("11 + 12", "23"),)


def test_a_wrong_calculator_changes_the_answers():
    honest = Calculator(shots=0)(Scripted(writes_calls)).generate(QUESTIONS)
    wrong = Calculator(shots=0, offset=13)(Scripted(writes_calls)).generate(QUESTIONS)
    changed = sum(a.text != b.text for a, b in zip(honest, wrong, strict=True))
    assert changed >= 0.95 * len(QUESTIONS)
    assert [int(b.text) - int(a.text) for a, b in zip(honest, wrong, strict=True)] == [13] * len(QUESTIONS)


def test_the_model_goes_on_behind_the_result():
    model = Scripted(writes_calls)
    Calculator(shots=0)(model).generate([QUESTIONS[0]])
    asked, gone_on = model.seen
    assert asked == [{"role": "user", "content": with_calculator("What is 11 + 12?")}]
    assert gone_on == [*asked, {"role": "assistant", "content": "<<11 + 12=23>>"}]


@pytest.mark.parametrize(
    "prompt",
    [
        "11 + 12 =",
        (),
        user("Who are you?"),
        user("What happened in 1984?"),
        ({"role": "user", "content": "11 + 12?"}, {"role": "assistant", "content": "It is"}),
    ],
)
def test_what_holds_no_two_numbers_or_asks_nothing_is_left_alone(prompt):
    model = Scripted(lambda p: "ok")
    mended = Calculator()(model)
    assert not needs_calculator(prompt)
    assert mended.generate([prompt])[0] == Completion("ok", 5, 1, "stop")
    assert "".join(mended.stream(prompt)) == "ok"
    assert model.seen == [prompt, prompt]


def test_order_is_kept_among_prompts_of_both_kinds():
    mixed = [user("Hello?"), QUESTIONS[0], "a text", QUESTIONS[1]]
    model = Scripted(lambda p: writes_calls(p) if not isinstance(p, str) else "b text")
    texts = [a.text for a in Calculator(shots=0)(model).generate(mixed)]
    assert texts == ["99999", "23", "b text", "32"]
    assert "".join(Calculator(shots=0)(model).stream(QUESTIONS[0])) == "23"


def test_several_calls_one_behind_the_other():
    script = iter(["First <<2 * 3=", " so <<6 + 1=9>>9", " it is 7."])
    [answer] = Calculator(shots=0)(Scripted(lambda p: next(script))).generate([user("2 and 3")])
    assert answer.text == "it is 7."
    assert answer.notes["calls"] == (("2 * 3", "6"), ("6 + 1", "7"))
    assert answer.notes["written"] == "First <<2 * 3=6>> so <<6 + 1=7>> it is 7."
    assert answer.tokens == 4 + 4 + 3


def test_calls_are_bounded():
    model = Scripted(lambda p: "<<1 + 1=")
    [answer] = Calculator(rounds=3, shots=0)(model).generate([user("1 and 1")])
    assert len(answer.notes["calls"]) == 3
    assert len(model.seen) == 4


def test_an_answer_without_a_call_stays():
    [answer] = Calculator(shots=0)(Scripted(lambda p: "x = 5 >> 3")).generate([user("1 and 1")])
    assert answer.text == "x = 5 >> 3"
    assert "calls" not in answer.notes


def test_a_result_is_the_answer_if_the_model_adds_nothing():
    script = iter(["<<4 * 5", ""])
    [answer] = Calculator(shots=0)(Scripted(lambda p: next(script))).generate([user("4 and 5")])
    assert answer.text == "20"


def test_a_call_cut_off_by_length_is_no_call():
    script = iter([Completion("<<4 * 5", 3, 4, "length")])
    [answer] = Calculator(shots=0)(Scripted(lambda p: next(script))).generate([user("4 and 5")])
    assert answer.text == "<<4 * 5"


def test_an_unread_answer_stays_unread():
    gone = Completion("", 0, 0, "unread")
    [answer] = Calculator(shots=0)(Scripted(lambda p: gone)).generate([user("4 and 5")])
    assert answer.finish == "unread"
    script = iter(["<<4 * 5", Completion.lost("too long")])
    [later] = Calculator(shots=0)(Scripted(lambda p: next(script))).generate([user("4 and 5")])
    assert (later.finish, later.text, later.why) == ("unread", "", "too long")


@pytest.mark.parametrize("call", ["__import__('os').system('true')", "9**9**9", "1/0", "4 apples"])
def test_a_refused_expression_is_said_to_be_refused(call):
    script = iter([f"<<{call}=3>>3", "I cannot."])
    [answer] = Calculator(shots=0)(Scripted(lambda p: next(script))).generate([user("4 and 5")])
    assert answer.notes["calls"] == ((call, NOT_COMPUTED),)
    assert answer.text == "I cannot."


def test_examples_stand_behind_the_system_message_and_are_right():
    model = Scripted(lambda p: "ok")
    system = {"role": "system", "content": "Be brief."}
    Calculator()(model).generate([user("4 and 5", system)])
    assert model.seen[0][0] == system
    assert len(model.seen[0]) == 1 + 2 * 2 + 1
    assert model.seen[0][-1]["content"] == with_calculator("4 and 5")
    for _, answer in SHOTS:
        expression, result, repeated = re.fullmatch(r"<<(.+)=(\d+)>>(\d+)", answer).groups()
        assert evaluate(expression) == result == repeated


def test_a_planted_model_needs_no_examples():
    model = Scripted(lambda p: "ok", world={"seed": 0})
    Calculator()(model).generate([user("4 and 5")])
    assert len(model.seen[0]) == 1


def test_settings_that_mean_nothing_are_refused():
    for settings in ({"rounds": 0}, {"shots": -1}, {"shots": 9}):
        with pytest.raises(UsageError):
            Calculator(**settings)


def test_a_real_model_goes_on_inside_its_answer():
    model = tiny(["What is 12 + 34? <<12 + 34=46>>46"])
    asked = Calculator(shots=0)(model)._ask(user("What is 12 + 34?"))
    begun = model.tokens.encode_prompt(asked)
    going_on = model.tokens.encode_prompt([*asked, {"role": "assistant", "content": "<<12 + 34=46>>"}])
    assert going_on[: len(begun)] == begun
    assert model.tokens.decode(going_on[len(begun) :], skip_special=False) == "<<12 + 34=46>>"
    [answer] = Calculator(shots=0)(model).generate([user("What is 12 + 34?")], Sampling(max_tokens=8))
    assert answer.prompt_tokens == len(begun)


def test_sampling_is_passed_on():
    given = []

    class Listening(Scripted):
        def generate(self, prompts, sampling=Sampling()):
            given.append(sampling)
            return super().generate(prompts, sampling)

    sampling = Sampling(max_tokens=7, stop=("\n",), seed=3)
    Calculator(shots=0)(Listening(writes_calls)).generate(QUESTIONS[:2], sampling)
    assert set(given) == {sampling}
