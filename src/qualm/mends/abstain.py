"""Selective answering: an answer the model is not sure of is withheld (Kalai et al. 2025, arXiv 2509.04664).

Mends confabulation. Confidence is exp(mean log-probability of the answer's tokens): the geometric mean of their
probabilities, so that long answers are not withheld for their length. Where a completion carries no log-probabilities
it is agreement: the share of K samples that give the same answer.
Only conversations are touched: a text to continue was not asked.
Misses: what the model invents with confidence; and it withholds right answers too, which its proof must show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qualm.cases import Case
from qualm.errors import Unsupported, UsageError
from qualm.lm.base import LM, Completion, Prompt, Sampling
from qualm.mends.base import Mend, Mended, question_of
from qualm.text.match import abstains, contains, is_chinese, same

SAMPLES = 5
WORDS, CHINESE_WORDS = "I do not know.", "我不知道。"


@dataclass(frozen=True)
class Abstain(Mend):
    """Answers below `threshold` (None: to be fitted) become `words`; to a Chinese question, the default is in Chinese.

    `target` is the share of right answers below which an answer is worse than none: fitting counts a right answer 1,
    a wrong or invented one -target / (1 - target), a withheld one 0.
    """

    threshold: float | None = None
    target: float = 0.5
    words: str = WORDS

    mends: ClassVar[frozenset[str]] = frozenset({"confabulation"})
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})

    def __post_init__(self) -> None:
        if not 0 <= self.target < 1:
            raise UsageError(f"must be from 0 to below 1, not {self.target}", where="Abstain.target")

    def fit(self, lm: LM, cases: Sequence[Case]) -> "Abstain":
        """The threshold with the best mean score on these cases; a case without target has no right answer.

        A threshold that is set stays.
        """
        if self.threshold is not None:
            return self
        kept = [case for case in cases if not isinstance(case.prompt, str)]
        if not kept:
            raise Unsupported("no questions to fit a threshold on", then="give threshold=...")
        prompts, sampling = [case.prompt for case in kept], Sampling(max_tokens=32)
        answers = lm.generate(prompts, sampling)
        sure = np.array(confidences(lm, prompts, answers, sampling))
        gains = np.array([self._gain(case, answer.text) for case, answer in zip(kept, answers, strict=True)])
        read = np.array([not answer.unread for answer in answers])
        if not read.any():
            raise Unsupported(
                f"no question to fit a threshold on was read: {answers[0].why}", then="give threshold=..."
            )
        sure, gains = sure[read], gains[read]
        return replace(self, threshold=best_threshold(sure, gains))

    def _gain(self, case: Case, answer: str) -> float:
        if abstains(answer):
            return 0.0
        wanted = [case.target, *case.extra.get("also", ())] if case.target else []
        return 1.0 if any(contains(answer, w) for w in wanted) else -self.target / (1 - self.target)

    def __call__(self, lm: LM) -> LM:
        if self.threshold is None:
            raise UsageError("the threshold is neither given nor fitted", where="Abstain", then="give threshold=...")
        return Withholding(lm, self, self.threshold, self.words)


class Withholding(Mended):
    """notes["confidence"] of every answer, and notes["withheld"] where it was kept back."""

    def __init__(self, inner: LM, mend: Abstain, threshold: float, words: str):
        super().__init__(inner, mend)
        self.threshold, self.words = threshold, words

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        answers = self.inner.generate(prompts, sampling)
        asked = [i for i, p in enumerate(prompts) if not isinstance(p, str) and not answers[i].unread]
        sure = confidences(self.inner, [prompts[i] for i in asked], [answers[i] for i in asked], sampling)
        for i, confidence in zip(asked, sure, strict=True):
            answers[i] = self._judge(prompts[i], answers[i], confidence)
        return answers

    def _judge(self, prompt: Prompt, answer: Completion, confidence: float) -> Completion:
        notes = {**answer.notes, "confidence": confidence}
        if confidence >= self.threshold or abstains(answer.text):
            return replace(answer, notes=notes)
        chinese = self.words == WORDS and is_chinese(question_of(prompt))
        words = CHINESE_WORDS if chinese else self.words
        return replace(answer, text=words, finish="stop", logprobs=(), notes={**notes, "withheld": answer.text})


def confidences(lm: LM, prompts: Sequence[Prompt], answers: Sequence[Completion], sampling: Sampling) -> list[float]:
    """0..1 for each answer; an empty answer has none."""
    sure = [math.exp(sum(a.logprobs) / len(a.logprobs)) if a.logprobs else 0.0 for a in answers]
    blind = [i for i, a in enumerate(answers) if a.text.strip() and not a.logprobs]
    if not blind:
        return sure
    agreed = np.zeros(len(blind))
    for k in range(SAMPLES):
        one = replace(sampling, temperature=1.0, seed=sampling.seed + 1 + k)
        samples = lm.generate([prompts[i] for i in blind], one)
        agreed += [same(s.text, answers[i].text) for i, s in zip(blind, samples, strict=True)]
    for i, share in zip(blind, agreed / SAMPLES, strict=True):
        sure[i] = float(share)
    return sure


def best_threshold(sure: np.ndarray, gains: np.ndarray) -> float:
    """The threshold whose answered cases (sure >= threshold) gain most in sum; of equals, the one that withholds least.

    It lies midway between two cases, so that it does not hang on either; above the surest if no answer is worth it.
    """
    order = np.argsort(-sure, kind="stable")
    levels, last = np.unique(-sure[order], return_index=True)  # the surest first
    sums = np.cumsum(gains[order])
    ends = np.append(last[1:], len(sure)) - 1
    total = np.append(0.0, sums[ends])  # answered: none, the surest level, two levels, ...
    answered = len(total) - 1 - int(np.argmax(total[::-1]))
    bounds = np.concatenate(([1.0 + 1e-6], -levels, [0.0]))
    return float((bounds[answered] + bounds[answered + 1]) / 2) if answered < len(levels) else 0.0
