"""Misspelt words are mended and all others are left as they are."""

import random

import pytest

from qualm.errors import MissingExtra
from qualm.text import spell
from qualm.text.spell import Change, Dictionary, Spelling, apply, correct, suspects
from simulated import load as simulation

spelling = simulation("spelling")

COUNTS = {
    "the": 1000, "of": 900, "and": 800, "receive": 50, "received": 60, "relieve": 5, "book": 90, "books": 80,
    "took": 70, "they": 300, "then": 200, "form": 50, "from": 400, "letter": 60, "letters": 50, "better": 80,
    "we": 300, "will": 200, "language": 40, "models": 50, "modern": 30, "write": 60, "white": 50, "every": 70,
    "day": 90, "i": 900, "to": 999,
}  # fmt: skip


@pytest.fixture(scope="module")
def words():
    return Dictionary.of(COUNTS)


def mended(text, words, score=None, **settings):
    [changes] = correct([text], score, Spelling(**settings), words)
    return apply(text, changes)


def frequent(pairs):
    """A scorer that holds a text for as likely as its known words."""
    return [sum(0.0 if word.strip(".,").lower() in COUNTS else -10.0 for word in after.split()) for _, after in pairs]


@pytest.mark.parametrize("score", [None, frequent])
def test_misspelt_words_are_mended_and_their_capitals_kept(words, score):
    given = "Recieve the lettres. We wil wriite evry day, and langauge modls."
    assert mended(given, words, score) == "Receive the letters. We will write every day, and language models."


@pytest.mark.parametrize(
    "text",
    [
        "`recieve` and ```\nteh bok\n``` and ``evry``",
        "    evry line of code",
        "see https://exmaple.org/teh/bok and www.bok.org or ann.bok@exmaple.org or ~/teh/bok.txt",
        "the recieve() of bok.wriite and bok[evry] and --wriite and $evry and #bok and @evry",
        "Teh_bok bok2 v2bok evry-2 and 3,450.50 of 2024-03-01",
        "we receive Bok and Wriite from Dr. Evry and J. Bok",
        "NASA BOK, camlCase WriteEvry",
        "我们用 wriite 学习 evry，bok（bok）",
        "Zürich naïve Reykjavík příliš",
        "the tokn and the tokn",
        "spoken of: “evry”, *wriite*, 'bok'",
        "天今很好，我门去学校。",
    ],
)
@pytest.mark.parametrize("score", [None, lambda pairs: [float(i) for i in range(len(pairs))]])
def test_what_is_no_plain_english_word_is_left_alone(words, text, score):
    assert mended(text, words, score, real_words=False) == text


def test_the_scorer_decides_between_candidates_by_what_stands_around(words):
    def likes(word):
        return lambda pairs: [0.0 if word in after else -20.0 for _, after in pairs]

    assert mended("we bool the day", words, likes("book"), margin=0.0) == "we book the day"
    assert mended("we bool the day", words, likes("bool")) == "we bool the day"


def test_a_change_must_gain_its_margin(words):
    def a_little(pairs):
        return [1.0 if "book" in after else 0.0 for _, after in pairs]

    assert mended("we bok the day", words, a_little, edit=0.5, margin=0.0) == "we book the day"
    assert mended("we bok the day", words, a_little, edit=0.5, margin=0.6) == "we bok the day"
    assert mended("we bok the day", words, a_little, edit=1.5, margin=0.0) == "we bok the day"


def test_real_words_are_looked_at_only_when_asked(words):
    def knows(pairs):
        return [0.0 if "from" in after else -9.0 for _, after in pairs]

    given = "letters form the day"
    assert mended(given, words, knows) == given
    assert mended(given, words, knows, real_words=True, real_margin=5.0) == "letters from the day"
    assert mended(given, words, knows, real_words=True, real_margin=9.0) == given
    assert mended(given, words, None, real_words=True) == given


def test_pairs_put_together_are_the_text_around_the_word(words):
    seen = []

    def keep(pairs):
        seen.extend(pairs)
        return [0.0] * len(pairs)

    text = f"{'white ' * 80}we recieve the {'book ' * 40}."
    correct([text], keep, Spelling(), words)
    before, after = seen[0]
    assert before + after in text
    assert after.startswith(" recieve the")
    assert spell.LEFT - 8 < len(before) <= spell.LEFT
    assert all(pair[0] == before for pair in seen), "so that what they share is read once"


def test_all_words_of_all_texts_are_scored_at_once(words):
    calls = []
    correct(["we bok", "evry day", "we"], lambda pairs: calls.append(len(pairs)) or [0.0] * len(pairs), words=words)
    assert len(calls) == 1


def test_changes_are_told_with_their_places(words):
    [[change]] = correct(["we recieve it"], None, Spelling(), words)
    assert change == Change(3, 10, "recieve", "receive")


def test_possessives_and_contractions_are_words_with_endings(words):
    assert mended("the boook's letters", words) == "the book's letters"
    assert [*suspects("the book's letters", words, Spelling())] == []


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "symspellpy", None)
    with pytest.raises(MissingExtra, match="spell"):
        Dictionary.of({"a": 1})


def test_the_benchmark_counts_what_it_planted(words):
    draw = random.Random(3)
    text = "the letter of every day and the book we receive from the modern language " * 12
    given = spelling.planted(text.strip(), words, draw)
    assert len(given.errors) > 5
    tally = spelling.Tally()
    tally.add(text.strip(), given, given.text)
    assert tally.nonwords_wrong == tally.nonwords
    assert tally.real_wrong == tally.real
    assert tally.nonwords + tally.real == len(given.errors)
    assert tally.harmed == 0
    tally.add(text.strip(), given, text.strip())
    assert tally.nonwords_wrong * 2 == tally.nonwords


def test_neighbours_on_the_keyboard_are_mutual():
    assert all(key in spelling.NEIGHBOURS[other] for key, others in spelling.NEIGHBOURS.items() for other in others)
    assert spelling.NEIGHBOURS["s"] == set("adwezx")
