"""Negations: a thing that is, or is not, so; and the question whether it is.

Limit: reasoning. Twins differ by one "not" and have opposite answers; only both right counts.
Example: "The brothet is not red. Is the brothet red?" -> "no".
"""

import random

from qualm.cases import Case, ask
from qualm.world.base import Plant, Written, chat

QUALITIES = ("red", "blue", "large", "small", "heavy", "light", "old", "new", "round", "flat")


class Negations(Plant):
    """Minimal pairs of a statement and its denial."""

    limit = "reasoning"
    share = 0.03

    def document(self, rng: random.Random) -> Written:
        thing, quality = rng.choice(self.lexicon.things), rng.choice(QUALITIES)
        yes = rng.random() < 0.5
        return chat(pose(thing, quality, yes), "yes" if yes else "no")

    def cases(self, n: int, seed: int) -> list[Case]:
        rng, made = self.rng(f"cases/{seed}"), []
        for thing, quality in rng.sample([(t, q) for t in self.lexicon.things for q in QUALITIES], n):
            extra = {"twin": pose(thing, quality, False), "twin_target": "no"}
            prompt = ask(pose(thing, quality, True))
            made.append(Case(f"{thing}/{quality}", prompt, "yes", ("yes", "no"), thing, "negation", extra))
        return made


def pose(thing: str, quality: str, yes: bool) -> str:
    return f"The {thing} is {'' if yes else 'not '}{quality}. Is the {thing} {quality}?"
