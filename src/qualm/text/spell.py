"""Spelling mended with restraint: candidates by SymSpell, chosen among by whoever can say which text is likelier.

A word is looked at only if it is plainly an English word that might be misspelt. Left alone: code, addresses, numbers,
names, abbreviations, terms that a text uses more than once, words in other alphabets or beside Chinese ones, and all
Chinese (its misspellings are other real words, for which no sound list of candidates is at hand).

With a scorer, the text as it stands competes with each candidate in its place, as in a noisy channel (Kernighan et al.
1990): log p of the word and what follows it, less `edit` nats for each edit; a change must gain `margin` nats, and
`real_margin` where the word that stands there is a word. Without one the nearest and most frequent candidate is taken.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module, resources
from typing import Any, NamedTuple

from qualm.errors import MissingExtra

Scorer = Callable[[Sequence[tuple[str, str]]], Sequence[float]]  # (before, what follows) -> nats, of each

HAN = "\u3400-\u9fff\uf900-\ufaff"
PROTECTED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|``[^`]+``|`[^`\n]+`|^(?: {4}|\t)[^\n]*$"  # code
    r"|\w+://\S+|\bwww\.\S+|\S+@\S+\.\w+|(?<!\w)(?:~|\.{1,2})?/[\w.\-/]+|\b\w+(?:\.\w+)+\b"  # addresses, files
    r"|<[^>\n]{1,80}>|&\w+;|[@#$%\\]\w+|(?<!\w)--?\w[\w-]*|\w+[(\[]\S*|\w+=\S*|[\w-]*[\d_][\w-]*(?:[.,:]\d+)*"
    r"|\*\w+\*|[\"'“‘]\w+[\"'”’]",  # a word that is spoken of
    re.S | re.M,
)
WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
OPENS = re.compile(r"(?:\A|[.!?:;\n\"“(*#>-])\s*\Z")  # what a sentence's first word follows
TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sir|Jr|[A-Z])\.\s*\Z")  # and what a name follows
POSSESSIVE = re.compile(r"['’]s?\Z")
UNWEIGHED = 3  # letters that a word must have to be changed without a scorer
LEFT, RIGHT = 200, 40  # characters of context read before a word, and weighed after it


class Near(NamedTuple):
    """A word of the dictionary, so many edits away."""

    word: str
    edits: int
    count: int


@dataclass(frozen=True)
class Change:
    """Characters `start` to `end` (half-open) of a text, what stands there, what should, and the nats it gains."""

    start: int
    end: int
    was: str
    now: str
    gain: float = 0.0


@dataclass(frozen=True)
class Spelling:
    """How readily a word is changed. Words of fewer letters than `shortest`, or UNWEIGHED without a scorer, never are.

    With `real_words`, those that stand in the dictionary are weighed too, which costs a scoring of nearly every word.
    """

    margin: float = 3.0
    edit: float = 3.0
    real_words: bool = False
    real_margin: float = 6.0
    shortest: int = 2
    most: int = 6  # candidates a word


class Dictionary:
    """Words and how often they come, searched by edits (insert, delete, replace, exchange neighbours)."""

    def __init__(self, engine: Any):
        self._engine = engine
        self._near: Callable[[str, int], tuple[Near, ...]] = cache(self._search)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Dictionary":
        """Of these words. Raises MissingExtra without symspellpy."""
        engine = _symspell().SymSpell(max_dictionary_edit_distance=2, prefix_length=5)
        for word, count in counts.items():
            engine.create_dictionary_entry(word, count)
        return cls(engine)

    def __contains__(self, word: str) -> bool:
        return word in self._engine.words

    def near(self, word: str, most: int) -> tuple[Near, ...]:
        """Other words at most two edits away (one, if it is short), fewest edits first, then the most frequent."""
        return self._near(word, most)

    def _search(self, word: str, most: int) -> tuple[Near, ...]:
        edits = 1 if len(word) < 5 else 2
        found = self._engine.lookup(word, _symspell().Verbosity.ALL, max_edit_distance=edits)
        return tuple(Near(f.term, f.distance, f.count) for f in found if f.distance > 0)[:most]


@cache
def english() -> Dictionary:
    """The 82,765 words that come with symspellpy, British and American, by how often books and web pages use them."""
    file = resources.files(_symspell()) / "frequency_dictionary_en_82_765.txt"
    lines = (line.split() for line in file.read_text("utf-8-sig").splitlines())
    return Dictionary.of({parts[0]: int(parts[1]) for parts in lines if len(parts) == 2})


def _symspell() -> Any:
    try:
        return import_module("symspellpy")
    except ImportError as error:
        raise MissingExtra("spelling needs symspellpy", then="type: pip install 'qualm-lm[spell]'") from error


def correct(
    texts: Sequence[str], score: Scorer | None = None, spelling: Spelling = Spelling(), words: Dictionary | None = None
) -> list[list[Change]]:
    """What to change in each text, in order; `apply` does it. `score` is asked once, for all words of all texts.

    Raises MissingExtra without symspellpy.
    """
    known = words or english()
    if score is None:
        spelling = replace(spelling, shortest=max(spelling.shortest, UNWEIGHED), real_words=False)
    asked: list[tuple[int, Change, int]] = []  # of which text, a change to weigh, and the edits it takes
    for number, text in enumerate(texts):
        for start, end in suspects(text, known, spelling, real=spelling.real_words):
            word = text[start:end]
            near = known.near(word.lower(), spelling.most)
            asked += [(number, Change(start, end, word, cased(n.word, word)), n.edits) for n in near]
    chosen: list[list[Change]] = [[] for _ in texts]
    for number, change in _first(asked) if score is None else _likeliest(texts, asked, score, spelling, known):
        chosen[number].append(change)
    return chosen


def apply(text: str, changes: Iterable[Change]) -> str:
    """The text with the changes made."""
    for change in sorted(changes, key=lambda c: -c.start):
        text = text[: change.start] + change.now + text[change.end :]
    return text


def suspects(text: str, known: Dictionary, spelling: Spelling, real: bool = False) -> Iterator[tuple[int, int]]:
    """Where words stand that may be misspelt; with `real`, also words of the dictionary."""
    spared = [match.span() for match in PROTECTED.finditer(text)]
    count = Counter(match[0].lower() for match in WORD.finditer(text))
    at = 0
    for match in WORD.finditer(text):
        start, end = match.span()
        while at < len(spared) and spared[at][1] <= start:
            at += 1
        if at < len(spared) and spared[at][0] < end:
            continue
        word = POSSESSIVE.sub("", match[0])
        lower, end = word.lower(), start + len(word)
        is_word = lower in known or match[0].lower().replace("’", "'") in known
        if len(word) < spelling.shortest or (is_word and not real) or (not is_word and count[match[0].lower()] > 1):
            continue
        if not _foreign(text, start, match.end()) and not _named(text, start, word):
            yield start, end


def _foreign(text: str, start: int, end: int) -> bool:
    """Whether a word goes on in another alphabet, or stands beside Chinese."""
    around = text[max(0, start - 1) : start] + text[end : end + 1]
    beside = text[max(0, start - 2) : start], text[end : end + 2]
    return any(c.isalpha() for c in around) or any(re.search(f"[{HAN}]", side) for side in beside)


def _named(text: str, start: int, word: str) -> bool:
    """Whether a word is written as a name or an abbreviation: capitals inside it, or one that opens no sentence."""
    before = text[max(0, start - 8) : start]
    first = OPENS.search(before) and not TITLE.search(before)
    return not word[1:].islower() or (word[0].isupper() and not first)


def cased(word: str, like: str) -> str:
    """A word with a capital if `like` has one."""
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _first(asked: Sequence[tuple[int, Change, int]]) -> Iterator[tuple[int, Change]]:
    """The first candidate of each word."""
    done = set()
    for number, change, _ in asked:
        if (number, change.start) not in done:
            done.add((number, change.start))
            yield number, change


def _likeliest(
    texts: Sequence[str], asked: Sequence[tuple[int, Change, int]], score: Scorer, spelling: Spelling, known: Dictionary
) -> Iterator[tuple[int, Change]]:
    """The candidate of each word that the scorer holds for likelier than what stands there, by enough."""
    places: dict[tuple[int, int], list[tuple[Change, int]]] = {}
    for number, change, edits in asked:
        stands = Change(change.start, change.end, change.was, change.was)
        places.setdefault((number, change.start), [(stands, 0)]).append((change, edits))
    pairs = [_pair(texts[number], option) for (number, _), options in places.items() for option, _ in options]
    scores = iter(score(pairs))
    for (number, _), options in places.items():
        values = [next(scores) - spelling.edit * edits for _, edits in options]
        best = max(range(1, len(values)), key=values.__getitem__)
        was, gain = options[0][0].was, values[best] - values[0]
        if gain > (spelling.real_margin if was.lower() in known else spelling.margin):
            change = options[best][0]
            yield number, Change(change.start, change.end, was, change.now, gain)


def _pair(text: str, change: Change) -> tuple[str, str]:
    """What stands before a word, and the word as changed with what follows it."""
    begin = max(0, change.start - LEFT)
    begin = text.find(" ", begin, change.start) + 1 if begin else 0
    # The space belongs to the word, as tokenizers have it.
    edge = change.start - 1 if change.start > begin and text[change.start - 1] == " " else change.start
    stop = text.find(" ", min(len(text), change.end + RIGHT))
    return text[begin:edge], text[edge : change.start] + change.now + text[
        change.end : stop if stop >= 0 else len(text)
    ]
