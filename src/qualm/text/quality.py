"""Signs of text that nobody would want to learn from: the rules of Gopher (Rae et al. 2021, arXiv 2112.11446, A.1.1).

Their words are words of spaced scripts. Where most words are single characters (Chinese, Japanese, Thai), lengths are
counted in characters, n-grams are twice as long, and mean word length says nothing. The stop words of Chinese, the
bounds on digits, symbols and vowels, and the share of rare Chinese characters are ours.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from qualm.text.grams import Words, grams, words
from qualm.text.hanzi import is_common

TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # n: characters in the most frequent n-gram
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # n: characters in n-grams that stand twice
MOST_DIGITS, MOST_SYMBOLS = 0.25, 0.35  # of the characters that are not space
LEAST_VOWELS, MOST_RARE = 0.27, 0.25  # of Latin letters; of Chinese characters
ENGLISH = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
CHINESE = "的是了在和有不这這一我他为為"
_BULLET = re.compile(r"[ \t]*[-*•‣▪◦●·–]")
_ELLIPSIS = ("...", "…")
_LATIN = re.compile(r"[a-z]")
_VOWELS = re.compile(r"[aeiouy]")
_HAN = re.compile("[\u4e00-\u9fff]")


def faults(text: str, language: str = "") -> list[str]:
    """What is wrong with a text: nothing, or names with figures such as "repeated 5-grams 0.31".

    `language` is that of the text: words that every English or Chinese text holds are asked of no other.
    """
    found = words(text)
    if not len(found):
        return ["no words"]
    rules = (_of_symbols(text, found), _of_language(text, language), _of_lines(text), _of_repetition(text, found))
    return [fault for rule in rules for fault in rule]


def _of_symbols(text: str, found: Words) -> Iterator[str]:
    shown = "".join(text.split())
    digits = sum(map(str.isdigit, shown)) / len(shown)
    symbols = sum(not char.isalnum() for char in shown if char < "\u0300" or char > "\u1fff") / len(shown)
    if digits > MOST_DIGITS:
        yield f"digits {digits:.2f}"
    if symbols > MOST_SYMBOLS:
        yield f"symbols {symbols:.2f}"
    marks = (text.count("#") + text.count("…") + text.count("...")) / len(found)
    if marks > 0.1:
        yield f"hashes and ellipses {marks:.2f}"
    if found.alone.mean() < 0.5:
        spaced = text.split()
        length = sum(map(len, spaced)) / len(spaced)
        if not 3 <= length <= 10:
            yield f"mean word length {length:.1f}"
        lettered = sum(any(map(str.isalpha, word)) for word in spaced) / len(spaced)
        if lettered < 0.8:
            yield f"words with a letter {lettered:.2f}"


def _of_language(text: str, language: str) -> Iterator[str]:
    low = text.lower()
    if language == "en" and len(ENGLISH.intersection(re.findall("[a-z]+", low))) < 2:
        yield "stop words"
    if language == "zh" and sum(char in text for char in CHINESE) < 2:
        yield "stop words"
    latin = _LATIN.findall(low)
    if len(latin) >= 100:
        vowels = len(_VOWELS.findall(low)) / len(latin)
        if vowels < LEAST_VOWELS:
            yield f"vowels {vowels:.2f}"
    if han := _HAN.findall(text):
        rare = sum(not is_common(char) for char in han) / len(han)
        if rare > MOST_RARE:
            yield f"rare characters {rare:.2f}"


def _of_lines(text: str) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    bullets = sum(bool(_BULLET.match(line)) for line in lines) / len(lines)
    if bullets > 0.9:
        yield f"bulleted lines {bullets:.2f}"
    cut = sum(line.rstrip().endswith(_ELLIPSIS) for line in lines) / len(lines)
    if cut > 0.3:
        yield f"lines that end in an ellipsis {cut:.2f}"
    for name, parts in (("lines", lines), ("paragraphs", [p for p in re.split(r"\n\s*\n", text) if p.strip()])):
        again, share = _repeated(parts)
        if again > 0.30:
            yield f"repeated {name} {again:.2f}"
        elif share > 0.20:
            yield f"characters of repeated {name} {share:.2f}"


def _repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The shares of parts, and of their characters, that stood before."""
    seen, count, size = set[str](), 0, 0
    for part in parts:
        if part in seen:
            count, size = count + 1, size + len(part)
        seen.add(part)
    return count / len(parts), size / max(sum(map(len, parts)), 1)


def _of_repetition(text: str, found: Words) -> Iterator[str]:
    """Shares of the characters of words; each character counts once, however many n-grams cover it."""
    lengths = found.ends - found.starts
    total = int(lengths.sum())
    factor = 2 if found.alone.mean() >= 0.5 else 1
    for n, most in TOP.items():
        hashes = grams(found.hashes, n * factor)
        if len(found) > n * factor:
            _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
            best = int(counts.argmax())
            size = int(lengths[first[best] : first[best] + n * factor].sum())
            share = int(counts[best]) * size / total
            if counts[best] > 2 and share > most:
                yield f"most frequent {n * factor}-gram {share:.2f}"
                return
    for n, most in REPEATED.items():
        if len(found) <= n * factor:
            return
        hashes = grams(found.hashes, n * factor)
        first = np.zeros(len(hashes), bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        cover = np.zeros(len(found) + 1, np.int64)
        again = np.flatnonzero(~first)
        np.add.at(cover, again, 1)
        np.add.at(cover, again + n * factor, -1)
        share = int(lengths[np.cumsum(cover[:-1]) > 0].sum()) / total
        if share > most:
            yield f"repeated {n * factor}-grams {share:.2f}"
            return
