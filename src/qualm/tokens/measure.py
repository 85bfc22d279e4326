"""How well a tokenizer spells: what is unknown or lost, how many tokens a text takes, what other languages pay.

Petrov et al. 2023 (arXiv 2305.15425): the same content takes a multiple of the tokens in other languages. Part of that
is UTF-8, which takes more bytes for them (Arnett et al. 2024, arXiv 2403.00686), so the byte premium is told too, and
divided out. Zouhar et al. 2023 (arXiv 2306.16842): Rényi efficiency, how evenly the vocabulary is used.
"""

import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from qualm.errors import InputError
from qualm.text.parallel import parallel_names
from qualm.tokens.tokenizer import Tokens

HARD: Mapping[str, str] = {
    "emoji": "😀 🏳️ 5️⃣ 🥲",
    "joined emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁷󠁬󠁳󠁿 🇫🇷🇩🇪",
    "composed (NFC)": "née Ångström Việt",
    "decomposed (NFD)": "ne\u0301e A\u030angstro\u0308m Vie\u0302\u0323t",
    "braces": '{"a": [1, {"b": "\\"}"}]}',
    "newlines": "one\ntwo\r\n\r\n\n\tthree\n",
    "spaces": "  two  spaces    four \u00a0hard ",
    "rare Chinese characters": "龘靐齉 𠮷𡃁 㐀",
    "Chinese": "“快速”的棕色狐狸，跳过懒狗。",
    "joined letters": "क्षत्रिय श्री نمی‌دانم ﷺ",
    "capitals": "McDONALD'S iPhone ẞ İ",
    "marks": "control\u0000 zero\u200bwidth \ufeffmark ﬁ ½ ▁ Ġ",
}
SPACELESS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"(?:(?![{SPACELESS}])[^\W\d_])+")
ORDER = 2.5  # of the Rényi entropy: the one that tells best of translation (Zouhar et al. 2023)
MOST_UNKNOWN = 0.01  # the share of a locale's tokens
ROUNDS, AT_LEAST = 5, 200_000  # encodings of the text, of which the median counts; bytes to encode at once


@dataclass(frozen=True)
class Premium:
    """What the names of a locale take against the same names in English: `tokens` and `bytes` of UTF-8, as ratios.

    `unknown` is the share of tokens that are the unknown one: where it is not small, few tokens are no merit.
    """

    locale: str
    names: int
    tokens: float
    bytes: float
    unknown: float = 0.0

    @property
    def per_byte(self) -> float:
        """The premium that the tokenizer adds: above 1, it spends more tokens on a byte than in English."""
        return self.tokens / self.bytes


@dataclass(frozen=True)
class Measures:
    """What was read of a tokenizer on some texts; shares are between 0 and 1.

    `unknown` is the share of characters (white space aside) that no token stands for but the unknown one. `back` says
    of each text of HARD whether it came back as it was, `lost` which share of the given texts did not. A word is a run
    of letters of a script that puts spaces between words; None where there is none. `whole` is the share of words that
    are one token, `used` the share of the vocabulary that occurs, `efficiency` the Rényi entropy of order ORDER of the
    tokens over the logarithm of the vocabulary. `megabytes_a_second` is the median of ROUNDS encodings by all cores.
    """

    vocabulary: int
    texts: int
    bytes: int
    tokens: int
    unknown: float
    lost: float
    back: Mapping[str, bool]
    per_character: float
    per_word: float | None
    per_byte: float
    whole: float | None
    used: float
    efficiency: float
    megabytes_a_second: float
    premiums: Mapping[str, Premium]

    @cached_property
    def read(self) -> list[Premium]:
        """The premiums of locales that the tokenizer can spell (at most MOST_UNKNOWN unknown), dearest first."""
        spelled = (premium for premium in self.premiums.values() if premium.unknown <= MOST_UNKNOWN)
        return sorted(spelled, key=lambda premium: (-premium.tokens, premium.locale))

    @property
    def premium(self) -> float | None:
        """The median over locales of what is spent on the same names; None if it can spell none of them."""
        return statistics.median(premium.tokens for premium in self.read) if self.read else None

    @property
    def premium_per_byte(self) -> float | None:
        """The same with the byte premium divided out."""
        return statistics.median(premium.per_byte for premium in self.read) if self.read else None


def measure(tokens: Tokens, texts: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> Measures:
    """Read everything off one tokenizer. Texts are taken as text: markers spelled in them are no control tokens.

    Raises InputError if the texts hold nothing but white space.
    """
    if not any(text.strip() for text in texts):
        raise InputError("there is no text to measure on", then="name a file with text in it")
    cut = tokens.encode_many(texts)
    count = Counter(i for ids in cut for i in ids)
    size, total = sum(len(text.encode()) for text in texts), count.total()
    per_word, whole = words_of(tokens, Counter(word for text in texts for word in WORD.findall(text)))
    return Measures(
        vocabulary=tokens.vocab_size,
        texts=len(texts),
        bytes=size,
        tokens=total,
        unknown=unknown(tokens, texts),
        lost=sum(tokens.decode(ids, False) != text for ids, text in zip(cut, texts, strict=True)) / len(texts),
        back={name: tokens.decode(tokens.encode(text), False) == text for name, text in HARD.items()},
        per_character=total / sum(map(len, texts)),
        per_word=per_word,
        per_byte=total / size,
        whole=whole,
        used=len(count) / tokens.vocab_size,
        efficiency=efficiency(count, tokens.vocab_size),
        megabytes_a_second=_speed(tokens, texts, size, clock),
        premiums=premiums(tokens),
    )


def unknown(tokens: Tokens, texts: Sequence[str]) -> float:
    """The share of characters (white space aside) that no token stands for but the unknown one."""
    nothing = unknown_id(tokens)
    missed = seen = 0
    for text in texts:
        known = bytearray(len(text))
        encoded = tokens.offsets(text)
        for i, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if i != nothing:
                known[start:end] = b"\x01" * (end - start)
        letters = [k for k, character in enumerate(text) if not character.isspace()]
        seen += len(letters)
        missed += sum(not known[k] for k in letters)
    return missed / seen if seen else 0.0


def efficiency(count: Mapping[int, int], vocabulary: int) -> float:
    """H(p) / log V with H(p) = log(sum of p ** ORDER) / (1 - ORDER): 1 if all tokens are used alike."""
    total = sum(count.values())
    entropy = math.log(sum((n / total) ** ORDER for n in count.values())) / (1 - ORDER)
    return entropy / math.log(vocabulary) if vocabulary > 1 else 0.0


def premiums(tokens: Tokens) -> dict[str, Premium]:
    """By locale: what the names of `parallel_names` take, against the English ones of the same things."""
    of_all = parallel_names()
    english, nothing = of_all["en"], unknown_id(tokens)
    every = sorted({name for names in of_all.values() for name in names.values()})
    cut = zip(every, tokens.encode_many(every), strict=True)
    cost = {name: (len(ids), ids.count(nothing), len(name.encode())) for name, ids in cut}
    found = {}
    for locale, names in of_all.items():
        if locale == "en":
            continue
        taken, missed, size = (sum(column) for column in zip(*(cost[name] for name in names.values()), strict=True))
        in_english, _, bytes_in_english = (sum(c) for c in zip(*(cost[english[what]] for what in names), strict=True))
        ratios = taken / max(1, in_english), size / bytes_in_english
        found[locale] = Premium(locale, len(names), *ratios, unknown=missed / max(1, taken))
    return found


def words_of(tokens: Tokens, words: Mapping[str, int]) -> tuple[float | None, float | None]:
    """Tokens per word, and the share of words that are one token, of words with how often they occur.

    A word is cut with or without the space before it, whichever takes less.
    """
    if not words:
        return None, None
    nothing, names = unknown_id(tokens), list(words)
    bare, spaced = tokens.encode_many(names), tokens.encode_many([f" {word}" for word in names])
    best = {word: min(a, b, key=len) for word, a, b in zip(names, bare, spaced, strict=True)}
    total = sum(words.values())
    taken = sum(often * len(best[word]) for word, often in words.items())
    one = sum(often for word, often in words.items() if len(best[word]) == 1 and best[word][0] != nothing)
    return taken / total, one / total


def unknown_id(tokens: Tokens) -> int:
    """-1 if there is none."""
    found = tokens.tokenizer.token_to_id(tokens.unk) if tokens.unk else None
    return -1 if found is None else found


def _speed(tokens: Tokens, texts: Sequence[str], size: int, clock: Callable[[], float]) -> float:
    """Millions of bytes a second, of texts repeated until they make up AT_LEAST."""
    given = list(texts) * max(1, math.ceil(AT_LEAST / size))
    seconds = []
    for _ in range(ROUNDS):
        start = clock()
        tokens.encode_many(given)
        seconds.append(max(clock() - start, 1e-9))
    return size * (len(given) // len(texts)) / statistics.median(seconds) / 1e6
