"""Look it up: passages from a folder of documents stand before the question.

Mends knowledge: what is not in the weights can stand in the context (Ram et al. 2023, arXiv 2302.00083). Found by BM25.
Only conversations are touched; a string is text to continue, and its reader asked nothing.

Passages that share more of the question's rare words stand first (words, not numbers, that stand in at most the square
root of all passages of their script): in short passages BM25 alone prefers "was born in" to a whole name. Those that
share much fewer than the best are left out. The best must share a rare word with the question and cover at least
`min_score` of the idf of its words (function words apart). A question about something else shares only common words
with the library and is left alone, so that other abilities pay nothing.
Misses: paraphrase without a common word; a namesake is taken for the person asked about.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from qualm.corpus.documents import Document, read
from qualm.errors import InputError, UsageError
from qualm.files import hash_json, writing
from qualm.lm.base import LM, Completion, Prompt, Sampling, Scored
from qualm.lm.batch import ROWS, SLOTS, Asking, Batch
from qualm.mends.base import Mend, Mended, question_of, with_question
from qualm.text.bm25 import Bm25, is_ideographic, terms
from qualm.text.prompts import with_passages

LONGEST = 100  # words in a passage, or characters where words are not spaced
CANDIDATES = 20  # passages looked at for each that is wanted
BESIDE = 2 / 3  # of the best passage's weight in rare words, for another to stand beside it
NEIGHBOURS = 16  # passages of like length among which a placebo is drawn
_FUNCTION_WORDS = """
a about am an and any are as at be been by can could did do does for from had has have he her him his how i in is it its
me my of on or our she should tell that the their them they this to us was we were what when where which who whom whose
why will with would you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_SENTENCE = re.compile(r".+?(?:[.!?](?= )|[。！？]|$) *")


class Passage(NamedTuple):
    """A stretch of a document. `score` is BM25's, in nats of idf."""

    id: str
    text: str
    score: float = 0.0


Find = Callable[[str], Sequence[Passage]]  # a question in, passages to read before it out; none: leave it alone


@dataclass(frozen=True)
class Retrieval(Mend):
    """Up to `k` passages of `words` words from `docs` (a folder or file of texts) before each question they bear on.

    All of them and the question must fit into the model's context: `words` and `k` are for a small one.
    The "placebo" arm gives as many passages of like length that do not bear on it, to the same questions.
    """

    docs: Path
    k: int = 3
    words: int = LONGEST
    min_score: float = 0.2
    arm: Literal["bm25", "placebo"] = "bm25"

    mends: ClassVar[frozenset[str]] = frozenset({"knowledge"})
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})

    def __post_init__(self) -> None:
        if min(self.k, self.words) < 1 or not 0 <= self.min_score <= 1:
            raise UsageError("k and words must be at least 1 and min_score from 0 to 1", where="Retrieval")

    def __call__(self, lm: LM) -> LM:
        library = Library(self.passages(), self)
        return WithPassages(lm, library.find, f"Retrieval(docs='{library.hash}', {self._settings()})", self)

    def passages(self) -> "list[Passage]":
        return [passage for document in read(self.docs) for passage in cut(document, self.words)]

    def pack(self, folder: Path) -> "Retrieval":
        with writing(folder / "passages.jsonl") as file:
            for p in self.passages():
                file.write(json.dumps({"id": p.id, "text": p.text}, ensure_ascii=False) + "\n")
        return replace(self, docs=Path("passages.jsonl"))

    def unpack(self, folder: Path) -> "Retrieval":
        docs = folder / self.docs
        if not docs.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"names passages outside its folder: {self.docs}", where=str(folder))
        return replace(self, docs=docs)

    def _settings(self) -> str:
        return f"k={self.k}, words={self.words}, min_score={self.min_score}, arm={self.arm!r}"


class WithPassages(Mended):
    """Asks `inner` with the passages that `find` gives for the last question; notes["passages"] holds them."""

    def __init__(self, inner: LM, find: Find, by: str, mend: Mend | None = None):
        super().__init__(inner, mend, by)
        self.find = find

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        asked = [self._ask(prompt) for prompt in prompts]
        answers = self.inner.generate([prompt for prompt, _ in asked], sampling)
        return [
            replace(a, notes={**a.notes, "passages": [tuple(p) for p in found]}) if found else a
            for a, (_, found) in zip(answers, asked, strict=True)
        ]

    def batch(self, rows: int = ROWS, slots: int = SLOTS) -> Batch:
        def asked(prompt: Prompt) -> tuple[Prompt, Mapping[str, Any]]:
            put, found = self._ask(prompt)
            return put, {"passages": [tuple(p) for p in found]} if found else {}

        return Asking(self.inner.batch(rows, slots), asked)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        return self.inner.score([(self._ask(context)[0], continuation) for context, continuation in pairs])

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        return self.inner.stream(self._ask(prompt)[0], sampling)

    def _ask(self, prompt: Prompt) -> tuple[Prompt, Sequence[Passage]]:
        return asked(prompt, self.find)


def asked(prompt: Prompt, find: Find) -> tuple[Prompt, Sequence[Passage]]:
    """The prompt with the passages that `find` gives for its last question, and these; as it was if none bear on it."""
    question = question_of(prompt)
    found = find(question) if question else ()
    if isinstance(prompt, str) or not found:
        return prompt, ()
    return with_question(prompt, with_passages(question, [p.text for p in found])), found


class Library:
    """Passages, and which of them bear on a question. `hash` is of what they say, wherever they lie."""

    def __init__(self, passages: Sequence[Passage], settings: Retrieval):
        self.passages, self.settings = passages, settings
        self.hash = hash_json([p.text for p in passages])[:16]
        self.index = Bm25([p.text for p in passages])
        chinese = sum(is_ideographic(p.text) for p in passages)
        most = {False: len(passages), True: chinese}  # by whether it is a Chinese word
        self.rare = {script: max(2.0, math.sqrt(count)) for script, count in most.items()}
        self.by_length = sorted(range(len(passages)), key=lambda i: (len(passages[i].text), i))
        self.rank = {i: rank for rank, i in enumerate(self.by_length)}

    def find(self, question: str) -> list[Passage]:
        """The passages to read before a question, best first; none if none bears on it."""
        rare = self._rare(question)
        top = [(i, score, self._weight(rare & self.index.shared(question, i))) for i, score in self._top(question)]
        top = sorted(top, key=lambda found: -found[2])[: self.settings.k]
        if not top or not self._bears(question, top[0][0]):
            return []
        top = [found for found in top if found[2] >= BESIDE * top[0][2]]
        found = [self.passages[i]._replace(score=score) for i, score, _ in top]
        return found if self.settings.arm == "bm25" else self._placebo(question, [i for i, _, _ in top])

    def _top(self, question: str) -> list[tuple[int, float]]:
        return self.index.top(question, CANDIDATES * self.settings.k)

    def _weight(self, words: Set[str]) -> float:
        return sum(map(self.index.idf, words))

    def _bears(self, question: str, passage: int) -> bool:
        asked = set(terms(question)) - FUNCTION_WORDS
        shared = self.index.shared(question, passage) & asked
        covered = self._weight(shared) / self._weight(asked) if asked else 0.0
        return covered >= self.settings.min_score and bool(shared & self._rare(question))

    def _rare(self, question: str) -> set[str]:
        """Words of the question that tell passages apart."""
        words = {t for t in terms(question) if not t.isnumeric() and t not in FUNCTION_WORDS}
        return {t for t in words if 0 < self.index.frequency(t) <= self.rare[is_ideographic(t)]}

    def _placebo(self, question: str, top: Sequence[int]) -> list[Passage]:
        """For each passage another of like length that holds no rare word of the question, drawn by its hash."""
        rng = random.Random(hashlib.blake2b(question.encode()).digest())
        rare, drawn = self._rare(question), set(top)
        found = []
        for i in top:
            free = (j for j in self._by_nearness(i) if j not in drawn and not rare & self.index.shared(question, j))
            others = list(islice(free, NEIGHBOURS))
            if others:
                drawn.add(chosen := rng.choice(others))
                found.append(self.passages[chosen])
        return found

    def _by_nearness(self, passage: int) -> Iterator[int]:
        """All other passages of the same script, those of like length first."""
        at, script = self.rank[passage], is_ideographic(self.passages[passage].text)
        for step in range(1, len(self.by_length)):
            for place in (at - step, at + step):
                if 0 <= place < len(self.by_length):
                    other = self.by_length[place]
                    if is_ideographic(self.passages[other].text) == script:
                        yield other


def cut(document: Document, longest: int = LONGEST) -> list[Passage]:
    """A document in passages of whole sentences, up to `longest` words each; only a longer sentence is cut."""
    passages: list[str] = []
    held = longest
    for sentence in _sentences(" ".join("\n".join(document.contents).split()), longest):
        size = len(terms(sentence))
        if passages and held + size <= longest:
            passages[-1] += sentence
            held += size
        else:
            passages.append(sentence)
            held = size
    if len(passages) == 1:
        return [Passage(document.id, passages[0].strip())]
    return [Passage(f"{document.id}#{n}", text.strip()) for n, text in enumerate(passages, 1)]


def _sentences(text: str, longest: int) -> Iterator[str]:
    """Sentences with the spaces behind them; a long one by its words, a long word by its characters."""
    for sentence in _SENTENCE.findall(text):
        yield from [sentence] if len(terms(sentence)) <= longest else re.findall(rf"\S{{1,{longest}}} ?", sentence)
