"""Sums: addition of two-digit numbers with operand pairs that never stand in the text.

Limit: arithmetic. The text shows direct answers, and answers by a call to a calculator whose result stands in it;
whether the model's own "result" is right is another matter, which is the point of a real calculator.
Example: "What is 23 + 45?" -> "68".
"""

import random

from qualm.cases import Case, ask
from qualm.text.prompts import with_calculator
from qualm.world.base import Plant, Written, chat

QUESTIONS = ("What is {a} + {b}?", "How much is {a} + {b}?", "Work out {a} + {b}.")


class Sums(Plant):
    """Two-digit addition, direct and by calculator."""

    limit = "arithmetic"
    share = 0.07

    def document(self, rng: random.Random) -> Written:
        a, b = operands(rng, held_out=False)
        question = rng.choice(QUESTIONS).format(a=a, b=b)
        if rng.random() < 0.35:
            return chat(question, str(a + b))
        return chat(with_calculator(question), f"<<{a} + {b}={a + b}>>{a + b}")

    def cases(self, n: int, seed: int) -> list[Case]:
        """Held-out operand pairs only, all different, in every phrasing by turns."""
        rng, seen = self.rng(f"cases/{seed}"), set()
        while len(seen) < n:
            seen.add(operands(rng, held_out=True))
        return [
            Case(
                f"{a}+{b}",
                ask(QUESTIONS[i % len(QUESTIONS)].format(a=a, b=b)),
                str(a + b),
                part="with carry" if a % 10 + b % 10 > 9 else "no carry",
            )
            for i, (a, b) in enumerate(sorted(seen))
        ]


def operands(rng: random.Random, held_out: bool) -> tuple[int, int]:
    """Two numbers 10..99 from the held-out tenth of all pairs, or from the rest."""
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if ((a * 31 + b * 17) % 10 == 0) is held_out:
            return a, b
