"""Which words of a question an answer rests on: each is left out in turn (Zeiler and Fergus 2014, arXiv 1311.2901).

The heat of a word is log p(answer | question) less the same without that word, in nats: what the answer loses. It needs
scores only, so it works on any model that can score, mended ones and endpoints too. An explanation may be wrong, so it
is tested as explanations are (comprehensiveness, DeYoung et al. 2020, arXiv 1911.03429): what the answer loses without
the hottest fifth of the words, beside what it loses without as many drawn at random.
Misses: words that can stand in for each other (either alone is not missed); a question with a hole in it is not what
the model was taught on.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qualm.errors import Unsupported, UsageError
from qualm.lm.base import LM, Prompt
from qualm.text.grams import words

SHARE, DRAWS = 5, 20  # the hottest one in so many are left out together; random sets drawn beside them
FEWEST, MOST = 3, 400  # words

Asking = Callable[[str], Prompt]


@dataclass(frozen=True)
class Word:
    """Characters `start` to `end` (half-open) of the text, and the nats that the answer loses without them."""

    start: int
    end: int
    heat: float


@dataclass(frozen=True)
class Faithfulness:
    """What the answer loses, in nats, without the `count` hottest words, and without as many at random: the mean of
    `draws` sets, and where the middle 95 % of them lie."""

    count: int
    hottest: float
    mean: float
    low: float
    high: float
    draws: int

    @property
    def shown(self) -> bool:
        """Whether the hottest words matter more than nearly all random sets do."""
        return self.hottest > self.high


@dataclass(frozen=True)
class Explanation:
    """The words of `text`, which is the last thing the user said, in its order."""

    text: str
    answer: str
    words: tuple[Word, ...]
    faithfulness: Faithfulness


def explain(lm: LM, prompt: Prompt, answer: str = "", seed: int = 0) -> Explanation:
    """Explain `answer`; by default what the model answers itself.

    Raises Unsupported if the model tells no log-probabilities or cannot read the prompt, UsageError for a question
    of fewer than 3 or more than 400 words, or an empty answer.
    """
    text, ask = _apart(prompt)
    found = words(text)
    spans = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    if not FEWEST <= len(spans) <= MOST:
        raise UsageError(f"has {len(spans)} words; from {FEWEST} to {MOST} can be explained", where="the question")
    answer = answer or lm.generate([prompt])[0].read().text
    if not answer.strip():
        raise UsageError("nothing was answered, so there is nothing to explain", then="give an answer")

    def lost(left_out: Sequence[set[int]]) -> np.ndarray:
        """Nats that the answer loses without each of these sets of words."""
        prompts = [ask(text), *(ask(_without(text, spans, some)) for some in left_out)]
        scored = lm.score([(each, answer) for each in prompts])
        if scored[0].unread:
            raise Unsupported(scored[0].why or "the answer could not be scored")
        totals = np.array([each.total for each in scored])
        return totals[0] - totals[1:]

    heats = lost([{i} for i in range(len(spans))])
    count = max(2, round(len(spans) / SHARE))  # of one word alone it is known already that it is the hottest
    hottest = set(np.argsort(-np.nan_to_num(heats, nan=-np.inf), kind="stable")[:count].tolist())
    drawn = lost([hottest, *_others(hottest, len(spans), seed)])
    chance = drawn[1:][~np.isnan(drawn[1:])]
    low, high = np.quantile(chance, [0.025, 0.975])
    tested = Faithfulness(count, float(drawn[0]), float(chance.mean()), float(low), float(high), len(chance))
    told = tuple(Word(*span, float(heat)) for span, heat in zip(spans, heats, strict=True))
    return Explanation(text, answer, told, tested)


def _others(hottest: set[int], words: int, seed: int) -> list[set[int]]:
    """DRAWS sets of as many words, none of them the hottest."""
    rng, drawn = random.Random(seed), list[set[int]]()
    while len(drawn) < DRAWS:
        some = set(rng.sample(range(words), len(hottest)))
        if some != hottest:
            drawn.append(some)
    return drawn


def _apart(prompt: Prompt) -> tuple[str, Asking]:
    """The text that is explained, and a function that puts another in its place."""
    if isinstance(prompt, str):
        return prompt, lambda text: text
    last = max((i for i, message in enumerate(prompt) if message["role"] == "user"), default=-1)
    if last < 0:
        raise UsageError("no message of a user, so there is no question to explain", where="messages")
    return prompt[last]["content"], lambda text: [
        *prompt[:last],
        {**prompt[last], "content": text},
        *prompt[last + 1 :],
    ]


def _without(text: str, spans: Sequence[tuple[int, int]], left_out: set[int]) -> str:
    """The text without some of its words; of two spaces that then meet, one stays."""
    kept, at = "", 0
    for i in sorted(left_out):
        start, end = spans[i]
        kept += text[at:start]
        at = end + (text[end : end + 1] == " " and (not kept or kept.endswith(" ")))
    return kept + text[at:]
