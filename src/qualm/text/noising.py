"""Text with small faults, on purpose: typing errors, words left out, words for which there are others.

Each function takes its random generator, so that the same seed gives the same text. Words are runs of letters, and
single characters of scripts without spaces; figures, marks and spaces are never touched.
"""

import random
import re
from collections.abc import Mapping, Sequence

from qualm.text import segment

_WORD = re.compile(r"[^\W\d_\u3400-\u9fff]+|[\u3400-\u9fff]")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def with_typos(text: str, rate: float, rng: random.Random) -> str:
    """About this share of the words with one letter dropped, doubled, exchanged with the next, or missed by a key.

    >>> with_typos("The weather was fine.", 0.0, random.Random(1))
    'The weather was fine.'
    """
    return _WORD.sub(lambda word: _mistyped(word[0], rng) if rng.random() < rate else word[0], text)


def without_words(text: str, rate: float, rng: random.Random) -> str:
    """Without about this share of the words, and the space before each; at least one stays."""
    found = list(_WORD.finditer(text))
    gone = [word for word in found if rng.random() < rate]
    if not gone or len(gone) == len(found):
        return text
    parts, at = list[str](), 0
    for word in gone:
        kept = text[at : word.start()]
        parts.append(kept[:-1] if kept.endswith(" ") else kept)
        at = word.end()
    return "".join([*parts, text[at:]]).lstrip(" ")


def with_synonyms(text: str, rate: float, others: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """About this share of the words that have `others` exchanged for one of them; a capital stays one.

    >>> with_synonyms("Big cars", 1.0, {"big": ["large"]}, random.Random(1))
    'Large cars'
    """
    parts, at = list[str](), 0
    for start, end in segment.spans(text):
        shown = text[start:end]
        if shown.casefold() in others and rng.random() < rate:
            other = rng.choice(list(others[shown.casefold()]))
            parts += [text[at:start], other[:1].upper() + other[1:] if shown[:1].isupper() else other]
            at = end
    return "".join([*parts, text[at:]])


def _mistyped(word: str, rng: random.Random) -> str:
    if len(word) < 2:
        return word * rng.choice((1, 2)) if word > "\u2e7f" else word
    at, way = rng.randrange(len(word) - 1), rng.randrange(4)
    if way == 0:
        return word[:at] + word[at + 1 :]
    if way == 1:
        return word[: at + 1] + word[at:]
    if way == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    row = next((row for row in _KEYS if word[at].lower() in row), "")
    near = row[max(row.find(word[at].lower()) + rng.choice((-1, 1)), 0) % max(len(row), 1)] if row else word[at]
    return word[:at] + (near.upper() if word[at].isupper() else near) + word[at + 1 :]
