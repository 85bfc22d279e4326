"""Swapping exchanges both sides of gendered pairs and nothing else."""

import doctest

import pytest

from qualm.text import swap as module
from qualm.text.swap import swap


def test_examples():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("He was late.", "She was late."),
        ("The king said that he was tired.", "The queen said that she was tired."),
        ("Her coat is hers.", "His coat is his."),
        ("His coat is his.", "Her coat is hers."),
        ("We saw her yesterday.", "We saw him yesterday."),
        ("We saw her.", "We saw him."),
        ("I told her that her dog bit him and his cat.", "I told him that his dog bit her and her cat."),
        ("HER OLD CAR", "HIS OLD CAR"),
        ("HE won", "SHE won"),
        ("The MAN", "The WOMAN"),
        ("Mrs Hill and Mr Brown", "Mr Hill and Ms Brown"),
        ("Ladies and gentlemen", "Gentlemen and ladies"),
        ("Her mother's sisters", "His father's brothers"),
        ("She's herself", "He's himself"),
        ("mother-in-law", "father-in-law"),
        ("wives and husbands", "husbands and wives"),
        ("他是国王。", "她是女王。"),
        ("她的妈妈和爷爷", "他的爸爸和奶奶"),
        ("这个男人", "这个女人"),
        ("他们和她们", "她们和他们"),
        ("the brothsmith said that she was late", "the brothsmith said that he was late"),
    ],
)
def test_swaps(text, swapped):
    assert swap(text) == swapped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The theatre is human.",
        "Stephen King wrote it.",
        "其他人在弹吉他，男女老少都来了。",
        "子女和妇女",
        "Sheila, Manfred and Sonny",
        "12 + 34 = 46",
    ],
)
def test_nothing_to_swap(text):
    assert swap(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "The actress met her brother, and his wife saw him there.",
        "Kings, queens, sons, daughters, nephews: he knew them all himself.",
        "The heroine gave the prince her horse. Was it hers?",
        "他的女儿和她的丈夫",
    ],
)
def test_swapping_twice_gives_the_text_back(text):
    once = swap(text)
    assert once is not None
    assert once != text
    assert swap(once) == text
