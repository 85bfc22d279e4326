"""Knowledge: does the model give the right answer about things it was told, and at chance about those it was not?

Limit: knowledge. With a planted world: invented people taught, told of in biographies only, or never seen (closed book;
whatever is right about the last is luck). Any other model: currencies and official languages of the world's
territories, from the Unicode CLDR.
Example: "What is the currency of Japan?" -> "Japanese Yen", or "yen".
Misses: right answers in words the data does not list.
"""

from dataclasses import dataclass

from qualm.cases import Case, Row
from qualm.lm.base import Sampling
from qualm.probes._facts import is_right, questions
from qualm.probes.base import Probe
from qualm.world.base import World


@dataclass(frozen=True)
class Knowledge(Probe):
    """The share of questions of fact answered rightly from memory."""

    n: int = 1_200
    world: World | None = None

    limit = "knowledge"
    quick = 48
    sampling = Sampling(max_tokens=24)

    def cases(self) -> list[Case]:
        return questions(self.world, self.n, self.seed)

    def grade(self, case: Case, answer: str) -> Row:
        return {"value": float(is_right(case, answer))}
