"""Answers are read strictly, in English and Chinese."""

import doctest
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qualm.text import match
from qualm.text.match import abstains, contains, last_number, normalise, same, yes_no


def test_examples():
    assert doctest.testmod(match).failed == 0


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Rome.", "rome", True),
        ("She lives in Rome, Italy", "Rome", True),
        ("Romero", "Rome", False),
        ("prerome", "rome", False),
        ("New  York", "new york", True),
        ("It’s Ann’s", "ann's", True),
        ("他住在北京。", "北京", True),
        ("他叫John吗", "John", True),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width", True),
        ("12", "12", True),
        ("= 12.", "12", True),
        ("112", "12", False),
        ("12.5", "12", False),
        ("3.12", "12", False),
        ("12,000", "12", False),
        ("-12", "12", False),
        ("it is -12", "-12", True),
        ("10-12", "12", True),
        ("anything", "", False),
        ("", "x", False),
        ("की", "क", False),
        ("straße", "STRASSE", True),
        ("cat catalogue", "cat", True),
        ("catalogue cat", "cat", True),
    ],
)
def test_contains(answer, target, expected):
    assert contains(answer, target) is expected


def test_same():
    assert same(" Rome. ", "rome")
    assert same("“Rome”", "Rome")
    assert not same("Rome it is", "Rome")
    assert not same("", "")
    assert not same("-5", "5")


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        ("12 + 34 = 46", "46"),
        ("The answer is -5.", "-5"),
        ("3-5", "5"),
        ("1,234.50 dollars", "1234.50"),
        ("1,2,3", "3"),
        ("答案是12。", "12"),
        ("−7", "-7"),
        ("１２", "12"),
        ("A4 paper, 2 sheets", "2"),
        (".5", ".5"),
        ("1. Paris", "1"),
        ("in 2024.", "2024"),
        ("1,2345", "2345"),
        ("50%", "50"),
        ("none", None),
    ],
)
def test_numbers(answer, last):
    assert last_number(answer) == (None if last is None else Decimal(last))


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "about ", "答案是", "= "]))
def test_any_integer_is_read(number, before):
    assert last_number(f"{before}{number}.") == number
    assert last_number(f"7 and {number:,}!") == number
    assert contains(f"{before}{number}.", str(number))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", True),
        ("Yes. Q: is it? no", True),
        ("no .", False),
        ("No, it isn't", False),
        ("The answer is yes", True),
        ("It is true", True),
        ("It could be yes or no", None),
        ("Nothing", None),
        ("是的", True),
        ("不是", False),
        ("对。", True),
        ("不对", False),
        ("没有", False),
        ("", None),
    ],
)
def test_yes_no(answer, expected):
    assert yes_no(answer) is expected


ABSTAINING = """I do not know.
I don't know
I don’t know who that is.
I'm sorry, but I don't know that person.
I do not know
i do not know .
I am not sure.
I'm not sure who that is.
I'm not entirely certain about this.
I cannot answer that.
I can't say.
Unable to determine.
I have no information about Zorbla Quint.
There is no information available on this.
I do not have any information about that.
I couldn't find any record of this person.
I'm not familiar with Zorbla.
I am not aware of anybody by that name.
It is not publicly known.
It is unknown.
Unknown
I have no idea.
Sorry, I don't recall.
There is not enough information.
我不知道。
抱歉，我不知道这个人。
不知道
我不太清楚。
我无法回答这个问题。
没有相关信息。
我没有足够的信息来回答。
不确定
我沒有關於他的資料""".splitlines()

ANSWERING = """I know: Rome.
I know that he lives in Rome.
Rome
Penguins cannot fly.
She works as a baker.
I am sure it is Rome.
Certainly, Rome.
I'm not sure, but I think it is Rome.
I don't know for certain, but it was Rome.
He works at the Unknown Pleasures bar.
know
no
Information desk
我知道，他住在北京。
他不知道她住在北京
我不确定，但我猜是北京。
北京
42""".splitlines()


@pytest.mark.parametrize("answer", ABSTAINING)
def test_abstains(answer):
    assert abstains(answer)


@pytest.mark.parametrize("answer", ANSWERING)
def test_does_not_abstain(answer):
    assert not abstains(answer)


def test_only_the_start_of_an_answer_abstains():
    assert not abstains("Rome.\nQ: And his age?\nA: I do not know.")
    assert not abstains("")


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_reading_never_fails(answer, target):
    assert normalise(normalise(answer)) == normalise(answer)
    assert same(answer, answer) == bool(normalise(answer))
    contains(answer, target)
    last_number(answer)
    yes_no(answer)
    abstains(answer)
