"""Log-probabilities of a given text under `echo`: reading them, and finding out whether a server really gives them.

Servers that ignore `echo` answer with log-probabilities of what they generated, or with zeros; a sum over those is
the same for every choice, and accuracy becomes exactly chance without any error (llama.cpp #27174). So nothing is
scored before `missing` has found nothing missing.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qualm.errors import Unsupported
from qualm.lm.wire import Refused

Choice = Mapping[str, Any]
Ask = Callable[[Sequence[str]], Sequence[Choice]]  # one request: texts in, one echoed choice each (max_tokens 1)

NOTHING = "returns no prompt log-probabilities under echo"
TOLERANCE = 1e-2  # nats a token
CONTEXTS = (
    "The capital of France is",
    "She opened the door and",
    "One, two, three, four,",
    "In the morning we went to the",
    "Water boils when it is",
    "He asked her what the name of the",
    "The answer to the question is",
    "They lived in a small house by the",
    "I do not know where",
    "At the end of the day the",
)
FAR_FETCHED = ("^", "~", "|", "\\", "}")
FRAGMENT = re.compile("\ufffd|^bytes:")  # part of a character, as servers write it
WORD = re.compile(r" [^\W\d_]+")


@dataclass(frozen=True)
class Echo:
    """One text as a server scored it, a number a token; what it generated behind the text is kept apart.

    `ends` are where the tokens end, in characters; None if the server's tokens cannot be laid along the text.
    `top` are the likeliest tokens at each place, as far as given; the last one is for the token behind the text.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    ends: tuple[int, ...] | None
    top: tuple[Mapping[str, float], ...] = ()
    written: str = ""

    def after(self, border: int) -> tuple[float, ...]:
        """The log-probabilities from token number `border` on; the first token of a text may have none."""
        return tuple(number for number in self.logprobs[border:] if number is not None)

    def border(self, characters: int) -> int | None:
        """The number of tokens that end within the first `characters`: a straddling token stands behind them."""
        return None if self.ends is None else sum(end <= characters for end in self.ends)

    @property
    def total(self) -> float:
        return sum(self.after(0))


def read(text: str, choice: Choice, generated: int | None = None) -> Echo:
    """What a choice says of `text`. `generated` is how many tokens the server says it added, if it says so.

    Raises Unsupported if this is not the text's log-probabilities.
    """
    given = choice.get("logprobs")
    given = given if isinstance(given, Mapping) else {}
    tokens, numbers = given.get("tokens"), given.get("token_logprobs")
    if not (isinstance(tokens, list) and isinstance(numbers, list) and len(tokens) == len(numbers)):
        raise Unsupported(NOTHING)
    if not str(choice.get("text", "")).startswith(text) and len(tokens) <= 1:
        raise Unsupported(f"{NOTHING}; it gives those of the generated text only")
    offsets, top = given.get("text_offset"), given.get("top_logprobs") or ()
    counts = [len(tokens) - 1, len(tokens)]
    if generated is not None:
        counts.insert(0, len(tokens) - generated)
    count, ends = _along(text, tokens, offsets if isinstance(offsets, list) else None, counts)
    kept = numbers[:count]
    if not kept or any(number is None for number in kept[1:]):
        raise Unsupported(NOTHING)
    if any(number is not None and not number <= TOLERANCE for number in kept):
        raise Unsupported("returns prompt log-probabilities that are none: above 0, or not a number")
    return Echo(
        tuple(map(_plain, tokens[:count])),
        tuple(kept),
        ends,
        tuple({_plain(token): number for token, number in (place or {}).items()} for place in top[: count + 1]),
        str(choice.get("text", ""))[len(text) :],
    )


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens two texts have in common at their start."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same


def _along(
    text: str, tokens: list[str], offsets: list[int] | None, counts: Sequence[int]
) -> tuple[int, tuple[int, ...] | None]:
    """How many of the tokens make up the text (one more may be generated), and where they end; None if unclear."""
    for count in counts:
        for lay in (_joined, _offset):
            ends = lay(text, tokens[:count], offsets[:count] if offsets else None)
            if ends is not None:
                return count, ends
    return counts[0], None


def _joined(text: str, tokens: list[str], offsets: list[int] | None) -> tuple[int, ...] | None:
    """Ends of tokens that, joined, are the text; a start token and raw vocabulary marks for spaces are seen through."""
    for words in (tokens, [_plain(token) for token in tokens]):
        for skipped in (0, 1):
            joined = "".join(words[skipped:])
            lead = 1 if joined == " " + text else 0  # the space SentencePiece puts before a text
            if words[skipped:] and joined[lead:] == text:
                ends, at = [0] * skipped, -lead
                for word in words[skipped:]:
                    at += len(word)
                    ends.append(at)
                return tuple(ends)
    return None


def _plain(token: str) -> str:
    """A token without the marks that raw vocabularies put for spaces and ends of lines."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def _offset(text: str, tokens: list[str], offsets: list[int] | None) -> tuple[int, ...] | None:
    """Ends by the server's own offsets, if whole tokens really stand there; parts of one character end with it."""
    if not offsets or not all(isinstance(offset, int) for offset in offsets):
        return None
    ends, at = [], 0
    for token, offset in zip(tokens, offsets, strict=True):
        part = bool(FRAGMENT.search(token))
        if offset not in ((at, at - 1) if part else (at,)) or not (part or text.startswith(token, offset)):
            return None
        at = offset + (1 if part else len(token))
        ends.append(at)
    return tuple(ends) if at == len(text) else None


def missing(ask: Ask) -> str:
    """What keeps a server from scoring texts, in words; "" if it passes all checks. At most 11 requests.

    1. one number a token, tokens that make up the text, not all of them 0 or null;
    2. what the model itself would go on with is likelier than a far-fetched sign, in 9 of 10 contexts (unlike a
       true and a false word, this is so for a model that knows nothing);
    3. log p(ab) = log p(a) + log p(b | a); 4. the same again when asked again (both within 0.01 nats a token);
    5. the likeliest tokens of a place sum to 1 at most; 6. what it writes is what it says is likeliest.
    """
    try:
        contexts, many = _contexts(ask)
        if not any(any(echo.logprobs) for _, echo in contexts):
            return f"{NOTHING}, only zeros"
        found = [(text, echo, word) for text, echo in contexts if (word := _next_word(echo))]
        texts = [text + word for text, _, word in found]
        others = [text + FAR_FETCHED[number % len(FAR_FETCHED)] for number, (text, _, _) in enumerate(found)]
        echoes = _echoes(ask, texts + others, many)
        likely, unlikely = echoes[: len(texts)], echoes[len(texts) :]
        again = _echoes(ask, texts[: 3 if many else 1], many)
    except Refused as refused:
        return f"refuses echo with logprobs ({refused.message})"
    except Unsupported as lack:
        return lack.what
    kept = [
        (before, whole, other)
        for (_, before, word), whole, other in zip(found, likely, unlikely, strict=True)
        if whole.tokens == (*before.tokens, word) and other.tokens[:-1] == before.tokens
    ]
    if 2 * len(kept) < len(contexts):
        return "returns prompt log-probabilities that cannot be checked: its tokens do not fit its own text"
    return _fault([*(echo for _, echo in contexts), *echoes], kept, list(zip(likely, again, strict=False)))


def _contexts(ask: Ask) -> tuple[list[tuple[str, Echo]], bool]:
    """The contexts as scored, and whether the server takes several texts in one request (else only three)."""
    first = read(CONTEXTS[0], ask(CONTEXTS[:1])[0])
    rest, many = CONTEXTS[1:], True
    try:
        echoes = _echoes(ask, rest, many)
    except (Refused, Unsupported):
        rest, many = CONTEXTS[1:3], False
        echoes = _echoes(ask, rest, many)
    return list(zip(CONTEXTS, [first, *echoes], strict=False)), many


def _echoes(ask: Ask, texts: Sequence[str], many: bool) -> list[Echo]:
    choices = ask(texts) if many and texts else [choice for text in texts for choice in ask([text])]
    if len(choices) != len(texts):
        raise Unsupported(f"answers {len(choices)} of {len(texts)} prompts in one request")
    return [read(text, choice) for text, choice in zip(texts, choices, strict=True)]


def _next_word(echo: Echo) -> str:
    """What the model would go on with: what it wrote, or the likeliest whole word; "" if there is none."""
    ranked = sorted(echo.top[-1].items(), key=lambda item: -item[1]) if len(echo.top) > len(echo.tokens) else []
    words = [word for word in (echo.written, *(word for word, _ in ranked)) if word and not FRAGMENT.search(word)]
    return next((word for word in words if WORD.fullmatch(word)), words[0] if words else "")


def _fault(
    echoes: Sequence[Echo], kept: Sequence[tuple[Echo, Echo, Echo]], repeats: Sequence[tuple[Echo, Echo]]
) -> str:
    """The first check that fails, in words. `kept` holds (context, with its next word, with a far-fetched sign)."""
    if any(sum(map(math.exp, place.values())) > 1 + TOLERANCE for echo in echoes for place in echo.top):
        return "returns likeliest tokens whose probabilities sum to more than 1"
    if _apart([(before.total, whole.total - whole.after(-1)[0], len(before.tokens)) for before, whole, _ in kept]):
        return "returns prompt log-probabilities that do not add up: log p(ab) is not log p(a) + log p(b | a)"
    if _apart([(one.total, other.total, len(one.tokens)) for one, other in repeats]):
        return "returns other prompt log-probabilities when asked again"
    wins = sum(whole.after(-1)[0] > other.after(-1)[0] for _, whole, other in kept)
    if wins < 0.9 * len(kept):
        return "returns prompt log-probabilities that do not tell its own next word from a far-fetched sign"
    shown = [
        (before.written, max(whole.top[len(before.tokens)].items(), key=lambda item: item[1])[0])
        for before, whole, _ in kept
        if len(whole.top) > len(before.tokens) and whole.top[len(before.tokens)]
    ]
    if sum(written.strip() == likeliest.strip() for written, likeliest in shown) < 0.8 * len(shown):
        return "writes other words than those its log-probabilities call likeliest"
    return ""


def _apart(pairs: Sequence[tuple[float, float, int]]) -> bool:
    """Pairs of sums over so many tokens differ by more than TOLERANCE a token on average."""
    gaps = [abs(one - other) / max(tokens, 1) for one, other, tokens in pairs]
    return bool(gaps) and sum(gaps) / len(gaps) > TOLERANCE
