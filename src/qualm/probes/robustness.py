"""Robustness: does a typo or a change of case cost the right answer?

Limit: robustness. Each question that the model can be expected to answer is put clean and damaged; the reading is the
drop in accuracy, paired. Names are spared by no damage: a reader of the damaged text still knows who is meant.
Example: "Where was Tavel Morandle born?" and "where was tavel morandle born?"
Misses: paraphrase, other languages, adversarial wording.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qualm.cases import Case, Row, ask, plain
from qualm.lm.base import LM, Completion, Sampling
from qualm.probes._facts import answerable, is_right
from qualm.probes.base import Columns, Probe, unread
from qualm.world.base import World

DAMAGES = ("typo", "lower case", "upper case", "spaces")


@dataclass(frozen=True)
class Robustness(Probe):
    """The drop in accuracy when questions are damaged by typos, casing or spaces."""

    n: int = 160
    world: World | None = None

    limit = "robustness"
    better = "low"
    quick = 40
    sampling = Sampling(max_tokens=24)

    def cases(self) -> list[Case]:
        """One damage a question, by turns; the damaged question stands in `extra`."""
        rng, made = random.Random(f"{self.seed}/damage"), []
        for i, case in enumerate(answerable(self.world, self.n, self.seed)):
            kind = DAMAGES[i % len(DAMAGES)]
            extra = {**case.extra, "damaged": damage(plain(case.prompt), kind, rng)}
            made.append(replace(case, part=kind, extra=extra))
        return made

    def observe(self, lm: LM, cases: Sequence[Case]) -> list[Row]:
        prompts = [case.prompt for case in cases] + [ask(case.extra["damaged"]) for case in cases]
        said = lm.generate(prompts, self.sampling)
        pairs = zip(said[: len(cases)], said[len(cases) :], strict=True)
        return [unread(*pair) or _row(case, *pair) for case, pair in zip(cases, pairs, strict=True)]

    def figures(self, columns: Columns) -> dict[str, float]:
        return {"clean accuracy": float(columns["clean"].mean()), "same answer": float(columns["same"].mean())}

    def competence(self, columns: Columns) -> str:
        clean = float(columns["clean"].mean())
        return "" if clean >= 0.15 else f"clean accuracy is {clean:.0%}, so there is nothing to lose"


def _row(case: Case, clean: Completion, damaged: Completion) -> Row:
    before, after = is_right(case, clean.text), is_right(case, damaged.text)
    same = clean.text.strip().casefold() == damaged.text.strip().casefold()
    return {
        "value": float(before) - float(after),
        "clean": float(before),
        "same": float(same),
        "answer": f"{clean.text} | {damaged.text}",
    }


def damage(text: str, kind: str, rng: random.Random) -> str:
    """The text with one kind of damage; never equal to what it was."""
    if kind == "lower case":
        return text.lower()
    if kind == "upper case":
        return text.upper()
    if kind == "spaces":
        return "  ".join(text.split()) + " "
    words = text.split()
    long = [i for i, word in enumerate(words) if len(word) > 3]
    for i in rng.sample(long, min(len(long), 1 + len(words) // 6)):
        at = rng.randrange(len(words[i]) - 1)
        swapped = words[i][:at] + words[i][at + 1] + words[i][at] + words[i][at + 2 :]
        words[i] = swapped if swapped != words[i] else words[i][:at] + words[i][at + 1 :]
    return " ".join(words)
