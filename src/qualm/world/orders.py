"""Orders: who beats whom, by a chain of facts in shuffled order.

Limit: reasoning by depth. Every question has a twin with the opposite answer, and counts only if both are right:
a model that always says yes reads 0, one that guesses 25 %.
Example: "Tavel beats Morix. Morix beats Drelin. Does Tavel beat Drelin?" -> "yes"; "Does Drelin beat Tavel?" -> "no".
"""

import itertools
import random

from qualm.cases import Case, ask
from qualm.world.base import Plant, Written, chat

TAUGHT_DEPTHS = (1, 2)  # links between the two who are asked about
ASKED_DEPTHS = (1, 2, 3)


class Orders(Plant):
    """Transitivity over invented contestants."""

    limit = "reasoning"
    share = 0.08

    def document(self, rng: random.Random) -> Written:
        facts, chain = self._chain(rng, rng.choice(TAUGHT_DEPTHS))
        yes = rng.random() < 0.5
        first, last = (chain[0], chain[-1]) if yes else (chain[-1], chain[0])
        return chat(f"{facts} Does {first} beat {last}?", "yes" if yes else "no")

    def _chain(self, rng: random.Random, depth: int) -> tuple[str, list[str]]:
        chain = rng.sample(self.lexicon.given, depth + 1)
        facts = [f"{a} beats {b}." for a, b in itertools.pairwise(chain)]
        rng.shuffle(facts)
        return " ".join(facts), chain

    def cases(self, n: int, seed: int) -> list[Case]:
        """Depths by turns; the twin's prompt and target stand in `extra`."""
        rng, made = self.rng(f"cases/{seed}"), []
        for i in range(n):
            depth = ASKED_DEPTHS[i % len(ASKED_DEPTHS)]
            facts, chain = self._chain(rng, depth)
            yes, no = f"{facts} Does {chain[0]} beat {chain[-1]}?", f"{facts} Does {chain[-1]} beat {chain[0]}?"
            extra = {"twin": no, "twin_target": "no", "depth": depth}
            made.append(Case(f"order/{i}", ask(yes), "yes", ("yes", "no"), part=f"depth {depth}", extra=extra))
        return made
