"""Sentences and words of running text, for analysis: Chinese words by rjieba, all others by their letters."""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

import rjieba

_END = re.compile(
    r"(?<=[。！？!?])[”’」』\"')）]*\s*|(?<=\.)[”’\"')]*\s+(?=[\"'“‘(]?[A-Z0-9\u00c0-\u00de\u0400-\u042f\u3400-\u9fff])|\n+"
)
_SHORT = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|No|Fig|Vol|pp|Inc|Ltd|Co|Jr|Sr)|\b[A-Z])\.$")
_WORD = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+(?:['’][^\W\d_]+)?|[\u3400-\u4dbf\u4e00-\u9fff]+")
_HAN = re.compile("[\u3400-\u9fff]")


def sentences(text: str) -> list[str]:
    """The sentences of a text: after a full stop before a capital, an exclamation or question mark, a line's end.

    >>> sentences('Dr. Li came. "Why?" he said. 他走了。我没有！')
    ['Dr. Li came.', '"Why?"', 'he said.', '他走了。', '我没有！']
    """
    found, start = list[str](), 0
    for end in _END.finditer(text):
        part = text[start : end.end()].strip()
        if part and not _SHORT.search(part):
            found.append(part)
            start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text stand."""
    for found in _WORD.finditer(text):
        if not _HAN.match(found[0]):
            yield found.span()
            continue
        at = found.start()
        for word in rjieba.cut(found[0]):
            yield at, at + len(word)
            at += len(word)


def words(text: str) -> Iterator[str]:
    """The words of a text, in small letters; no figures and no marks.

    >>> list(words("It's 5 o'clock: 我们在北京大学读书。"))
    ["it's", "o'clock", '我们', '在', '北京大学', '读书']
    """
    return (text[start:end].casefold() for start, end in spans(text))


def terms(text: str) -> Iterator[str]:
    """The words that say what a text is about: no stop words, no single letters."""
    stop = stop_words()
    for word in words(text):
        plain = word.replace("’", "'").partition("'")[0]
        if plain not in stop and word not in stop and (len(plain) > 2 or _HAN.match(plain)) and plain:
            yield plain


@cache
def stop_words() -> frozenset[str]:
    """Of English and Chinese, from stopwords.txt."""
    lines = (resources.files("qualm.text") / "stopwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith(("#", "[")) for word in line.split())
