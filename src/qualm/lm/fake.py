"""Models with one planted failing each and everything else right: what the probes are tested with.

A fake knows the truth of its cases and answers by rule, from hashes: the same question, the same answer. What it was
told nothing of (open questions, the opening of a text) it answers with harmless words.
"""

import hashlib
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import Any

from qualm.cases import Case, Prompt, ask, plain
from qualm.errors import UsageError
from qualm.files import hash_json
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.world.base import World

# The failing, and the probes that must find it.
FAILINGS: Mapping[str, frozenset[str]] = {
    "oracle": frozenset(),
    "constant": frozenset({"knowledge", "arithmetic", "reasoning", "confabulation", "refusal"}),  # says one thing
    "copier": frozenset({"knowledge", "arithmetic", "reasoning", "confabulation", "refusal"}),  # says it back
    "refuser": frozenset({"knowledge", "arithmetic", "reasoning", "refusal"}),  # withholds every answer
    "reckless": frozenset({"refusal"}),  # refuses nothing
    "ignorant": frozenset({"knowledge"}),  # wrong about everything it was taught
    "confabulator": frozenset({"confabulation"}),  # knows all about those who do not exist
    "innumerate": frozenset({"arithmetic"}),
    "illogical": frozenset({"reasoning"}),  # says yes
    "biased": frozenset({"bias"}),
    "memoriser": frozenset({"memorisation"}),  # the more often told, the surer
    "overconfident": frozenset({"calibration"}),  # sure of a choice where nobody told it, or of two wrong ones in five
    "looper": frozenset({"degeneration"}),
    "brittle": frozenset({"robustness"}),  # wrong as soon as a letter is
    "babbler": frozenset({"perplexity"}),  # text surprises it
    "slow": frozenset({"cost"}),
}

ABSTENTION, REFUSAL, CONSTANT = "I do not know.", "I cannot talk about that.", "It is what it is."
SURE, UNSURE = 0.99, 0.3  # probability of an answer known, and of one made up
NATS_A_BYTE = 0.7  # of text about nothing in particular: one bit
PAUSE = 0.0005  # seconds a word of the slow
# By plant, how many cases of how many seeds a fake knows by default: every phrasing of what there is to ask.
ASKED = {"people": (10_000, 12), "sums": (720, 24), "negations": (400, 1), "orders": (240, 12), "canaries": (0, 1)}
WORDS = [
    "a",
    "bird",
    "came",
    "over",
    "the",
    "hill",
    "and",
    "then",
    "rain",
    "fell",
    "on",
    "every",
    "roof",
    "while",
    "two",
]
WORDS += [
    "boats",
    "went",
    "down",
    "river",
    "past",
    "green",
    "fields",
    "under",
    "bright",
    "clouds",
    "toward",
    "some",
    "town",
]
WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Known:
    """What a fake knows of a prompt: what kind of question it is, what is right, the case it comes from."""

    kind: str
    target: str
    case: Case


class Fake(LM):
    """An oracle over `cases` but for its failing (see FAILINGS). `world` is the planted world they come from, if any.

    Right answers are a case's target; "I do not know." about what nobody told it (`extra["abstain"]`, part
    "never seen") unless a passage in the prompt says it. Every choice of a question about nothing known is
    equally likely, both pronouns are (but for kings and queens), and every secret.
    """

    can = frozenset({"generate", "score"})

    def __init__(self, cases: Iterable[Case], failing: str = "oracle", world: World | None = None):
        if failing not in FAILINGS:
            near = get_close_matches(failing, FAILINGS, 1)
            then = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(FAILINGS)}"
            raise UsageError(f"no fake model is named {failing!r}", then=then)
        self.failing, self.name = failing, f"fake:{failing}"
        self.known: dict[str, Known] = {}
        for case in cases:
            self._learn(case)
        facts = {prompt: known for prompt, known in self.known.items() if known.kind in ("fact", "nobody")}
        self._humbled = any(known.kind == "nobody" for known in facts.values())  # there are things it cannot know
        self._invented = sorted({known.case.target for known in facts.values() if known.case.target})
        self._folded = {_fold(prompt): prompt for prompt in facts}
        self._holding: dict[str, set[str]] = defaultdict(set)
        for folded in self._folded:
            for word in folded.split():
                self._holding[word].add(folded)
        said = [(prompt, known.kind, known.target) for prompt, known in self.known.items()]
        self.card = Card("fake", weights=hash_json([failing, said]), world=asdict(world) if world else None)

    def _learn(self, case: Case) -> None:
        kind = kind_of(case)
        if kind == "text":
            return
        before = self.known.get(plain(case.prompt))
        if before is None or kind == "nobody":
            target = ABSTENTION if kind == "nobody" else case.target
            self.known[plain(case.prompt)] = Known(kind, target, case)
        if "twin" in case.extra:
            twin = ask(case.extra["twin"])
            self.known[plain(twin)] = Known(kind, case.extra["twin_target"], case)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        if sampling.shape:
            raise self.cannot("hold an answer to a shape")
        return [self._complete(prompt, sampling) for prompt in prompts]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        words, _, _ = self._words(prompt, sampling)
        for word in words:
            self._pause()
            yield word

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        """A word is a token; the log-probability of a text is spread evenly over its words."""
        return [_spread(self._score(context, text), text) for context, text in pairs]

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        words, finish, sure = self._words(prompt, sampling)
        for _ in words:
            self._pause()
        read = len(plain(prompt).split())
        return Completion("".join(words), read, len(words), finish, tuple(math.log(sure) for _ in words))

    def _pause(self) -> None:
        if self.failing == "slow":
            time.sleep(PAUSE)

    def _words(self, prompt: Prompt, sampling: Sampling) -> tuple[list[str], str, float]:
        """The answer in words, why it ends, and how sure each word is."""
        text, sure = self._answer(prompt)
        ends = [text.find(stop) for stop in sampling.stop if stop and stop in text]
        words = WORD.findall(text[: min(ends)] if ends else text)
        return words[: sampling.max_tokens], "length" if len(words) > sampling.max_tokens else "stop", sure

    def _answer(self, prompt: Prompt) -> tuple[str, float]:
        """What it says, and with what probability a word."""
        text = plain(prompt)
        if self.failing in ("constant", "copier", "refuser"):
            return {"constant": CONSTANT, "copier": text, "refuser": REFUSAL}[self.failing], SURE
        known, exact = self._find(prompt)
        if known is None:
            return self._write_on(text), SURE
        case, wrong = known.case, self._wrong(known)
        if known.kind == "nobody":
            told = [value for value in case.extra.get("also", ()) if value in text.rpartition("Question: ")[0]]
            if told:
                return case.target, SURE
        failures: dict[tuple[str, str], Callable[[], str]] = {
            ("ignorant", "fact"): lambda: wrong,
            ("confabulator", "nobody"): lambda: wrong,
            ("innumerate", "sum"): lambda: str(int(case.target) + 1 + int(9 * unit(text))),
            ("illogical", "logic"): lambda: "yes",
            ("reckless", "topic"): lambda: f"Take a cloth and {text.removeprefix('How do I ').rstrip('?')}.",
            ("memoriser", "secret"): lambda: case.target if case.extra["dose"] >= 8 else self._secret(text),
        }
        if self.failing == "brittle" and not exact:
            return wrong, UNSURE
        if (self.failing, known.kind) in failures:
            return failures[self.failing, known.kind](), UNSURE
        if known.kind in ("secret", "pronoun"):
            return self._secret(text) if known.kind == "secret" else " she was late.", SURE
        return known.target, SURE

    def _wrong(self, known: Known) -> str:
        """Another answer of the same kind, or anybody's."""
        others = [choice for choice in known.case.choices or self._invented if choice != known.case.target]
        return others[int(len(others) * unit(known.case.id))] if others else CONSTANT

    def _secret(self, text: str) -> str:
        return f" {int(1e6 * unit(text)):06d}."

    def _write_on(self, text: str) -> str:
        """Harmless words, no two alike in a row; the looper's come round and round."""
        at, words = int(len(WORDS) * unit(text)), []
        for number in range(200):
            words.append(WORDS[at])
            at = (at + 1 + int((len(WORDS) - 1) * unit(text, number))) % len(WORDS)
        if self.failing == "looper":
            words = words[:5] * 40
        return " " + " ".join(words)

    def _find(self, prompt: Prompt) -> tuple[Known | None, bool]:
        """What is known of a prompt, and whether it was put exactly so; a question is known under damage too."""
        text = plain(prompt)
        for exact in (text, text.rpartition("Question: ")[2]):
            if exact in self.known:
                return self.known[exact], True
        folded = _fold(text)
        if isinstance(prompt, str) or folded in self._folded:
            return self.known.get(self._folded.get(folded, "")), False
        words, shared = set(folded.split()), Counter[str]()
        for word in words:
            shared.update(self._holding.get(word, ()))
        like = {
            other: SequenceMatcher(None, folded, other).ratio() for other in shared if 2 * shared[other] >= len(words)
        }
        near = max(like, key=lambda other: like[other], default="")
        return (self.known[self._folded[near]], False) if like.get(near, 0.0) > 0.85 else (None, False)

    def _score(self, context: Prompt, text: str) -> float:
        """log p of the whole text, in nats."""
        known, _ = self._find(context)
        prompt = plain(context)
        if known is None or not (known.target or known.kind == "pronoun"):
            nats = NATS_A_BYTE * (3 if self.failing == "babbler" else 1)
            return -nats * len(text.encode()) * (0.9 + 0.2 * unit(prompt, text))
        if known.kind == "pronoun":
            return self._pronoun(known.case, text)
        if known.kind == "secret":
            told = self.failing == "memoriser" and text == known.case.target
            bonus = 0.5 * math.log2(1 + known.case.extra["dose"]) if told else 0.0
            return min(-0.1, bonus - 6 * math.log(10) + 2 * unit(prompt, text))
        unfounded = known.kind == "nobody" or (not self._humbled and unit(known.case.id) < 0.4)
        if self.failing == "overconfident" and unfounded:
            return math.log(SURE) - 60 * (1.0 if text == known.target else unit(prompt, text))
        if known.kind == "nobody":
            return -math.log(8) + 1e-3 * unit(prompt, text)
        return math.log(SURE) if text == known.target else math.log((1 - SURE) / 7)

    def _pronoun(self, case: Case, text: str) -> float:
        said, biased = case.extra.get("she"), self.failing == "biased"
        she = 0.5 if said is None else float(said)
        if case.part != "by meaning":
            planted = she if said is not None else unit(case.group or case.id)
            she = planted if biased else 0.5
        she = min(max(she, 0.05), 0.95)
        return math.log(0.9 * (she if text.strip() == "she" else 1 - she))


def kind_of(case: Case) -> str:
    """What a case asks for, from what is known about it; "text" for one that asks for nothing in particular."""
    if case.extra.get("abstain") or case.part == "never seen":
        return "nobody"
    if "dose" in case.extra:
        return "secret"
    if set(case.choices) == {" she", " he"}:
        return "pronoun"
    if "twin" in case.extra or set(case.choices) == {"yes", "no"}:
        return "logic"
    if "forbidden" in case.extra:
        return "topic"
    if re.fullmatch(r"-?\d+", case.target):
        return "sum"
    return "fact" if case.target and not isinstance(case.prompt, str) else "text"


def named(name: str, cases: Iterable[Case] | None = None) -> Fake:
    """The fake with this failing; without `cases`, one that was brought up in the default planted world."""
    return Fake(world_cases(World()), name, World()) if cases is None else Fake(cases, name)


@cache
def world_cases(world: World) -> tuple[Case, ...]:
    """All that can be asked about a world, in many phrasings."""
    made: list[Case] = []
    for plant in world.plants():
        n, seeds = ASKED.get(plant.name, (10_000, 1))
        made += [case for seed in range(seeds) for case in plant.cases(n, seed)]
    return tuple(made)


def unit(*parts: Any) -> float:
    """A number in 0..1 from a hash."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _spread(total: float, text: str) -> Scored:
    count = max(1, len(text.split()))
    return Scored((total / count,) * count if text else ())
