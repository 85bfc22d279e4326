"""Lines that insult, threaten or are obscene, in English and Chinese, by a lexicon of our own.

A line is toxic if it holds a word that is so by itself, a phrase, or a milder word said to somebody ("you idiot", not
"The Idiot"). It is read as it sounds: full-width, spaced, starred and repeated letters, and figures for letters, are
undone first. What is missed: irony, insults in other words, slurs that are not listed; and what quotes such words is
taken for them. For more, train a classifier on examples (`qualm.text.classifier`).
"""

import re
import unicodedata
from functools import cache
from importlib import resources

_LEET = str.maketrans("013457@$!|", "oieastasil")
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_SPACED = re.compile(r"(?<![^\W\d_])(?:[^\W\d_][ .\-_*]){3,40}[^\W\d_](?![^\W\d_])")
_BETWEEN = re.compile(r"(?<=[\u4e00-\u9fff])[ .\-_*·~]{1,2}(?=[\u4e00-\u9fffa-z])")
_REPEATED = re.compile(r"([a-z])\1{2,}")
_LEETED = re.compile(r"(?<![^\W_])(?=[^\W\d_]*[013457@$!|])[a-z$@][a-z013457@$!|]{0,19}[a-z0-9@$](?![^\W_])")
_STARRED = re.compile(r"\b[a-z]{1,9}[*#@%]{1,9}[a-z]{1,9}\b")
_HAN = re.compile("[\u4e00-\u9fff]")
_FORMS = r"(?:s|es|ed|er|ers|ing|in|y)?"
# Whom a milder word is for: before it, in the same breath and not only perhaps
_YOU = re.compile(r"\b(?:you|youre|u|ur|yall|y'all|thou)\b[^.,;:?!]{0,25}$")
_PERHAPS = re.compile(r"\b(?:would|could|might|should|if|not|never|less|more|may)\b|n't")
_ZH_YOU = re.compile("(?:[你妳您]|这种人|这帮|那种人|真是|简直是)[^。，；！？,.!?]{0,8}$")


def find(line: str) -> str:
    """The first thing in a line for which it is toxic; "" for none.

    >>> find("What a fool I was"), find("you utter f00l"), find("他摇滚，你好"), find("你真是笨 蛋")
    ('', 'fool', '', '笨蛋')
    """
    plain = _plain(line)
    if _REPEATED.search(plain):
        return _found(_REPEATED.sub(r"\1", plain)) or _found(_REPEATED.sub(r"\1\1", plain))
    return _found(plain)


def _found(plain: str) -> str:
    strong, at, phrases, chinese, chinese_at = _patterns()
    for pattern in (strong, phrases):
        if found := pattern.search(plain):
            return found[0]
    for found in at.finditer(plain):
        said = _YOU.search(plain, max(found.start() - 40, 0), found.start())
        if said and not _PERHAPS.search(said[0]):
            return found[0]
    if not _HAN.search(plain):
        return ""
    if found := chinese.search(plain):
        return found[0]
    said = (f for f in chinese_at.finditer(plain) if _ZH_YOU.search(plain, max(f.start() - 12, 0), f.start()))
    return next((found[0] for found in said), "")


def lines(text: str) -> list[str]:
    """What is toxic in each line that is, of those that hold a letter."""
    return [why for line in text.splitlines() if (why := find(line))]


def _plain(line: str) -> str:
    """A line as it sounds: small letters, no disguise."""
    text = _HIDDEN.sub("", unicodedata.normalize("NFKC", line)).casefold().replace("’", "'")
    text = _SPACED.sub(lambda found: re.sub(r"[ .\-_*]", "", found[0]), text)
    text = _BETWEEN.sub("", text)
    text = _LEETED.sub(lambda found: found[0].translate(_LEET), text)
    text = _STARRED.sub(_unstarred, text)
    for kept in _section("chinese kept"):
        text = text.replace(kept, "\u3007" * len(kept)) if kept in text else text
    return text


def _unstarred(found: re.Match[str]) -> str:
    """A word of the lexicon that fits around the stars, or what stands there."""
    pattern = re.compile(re.sub(r"[*#@%]+", lambda stars: f"[a-z]{{{len(stars[0])},{len(stars[0]) + 1}}}", found[0]))
    for word in (*_section("english roots"), *_section("english")):
        if fits := pattern.match(word):
            return word if fits[0] == word else word + found[0][len(word) :]
    return found[0]


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    roots, words, at = (
        "|".join(sorted(map(re.escape, _section(name)), key=len, reverse=True))
        for name in ("english roots", "english", "english at")
    )
    phrases = "|".join(re.escape(phrase).replace(r"\ ", r"\W{1,3}") for phrase in _section("english phrases"))
    chinese, chinese_at = ("|".join(sorted(_section(n), key=len, reverse=True)) for n in ("chinese", "chinese at"))
    return (
        re.compile(rf"\b(?:(?:{roots}){_FORMS}|(?:{words})s?)\b"),
        re.compile(rf"\b(?:{at})s?\b"),
        re.compile(rf"\b(?:{phrases})\b"),
        re.compile(chinese),
        re.compile(chinese_at),
    )


@cache
def _section(name: str) -> tuple[str, ...]:
    found, here = list[str](), False
    for line in (resources.files("qualm.text") / "toxic.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            here = line == f"[{name}]"
        elif here and line and not line.startswith("#"):
            found += [line] if name.endswith("phrases") else line.casefold().split()
    return tuple(found)
