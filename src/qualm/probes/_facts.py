"""Questions of fact that several probes put: about a planted world's people, or about the world's territories."""

import random

from qualm.cases import Case, ask
from qualm.text import cldr
from qualm.text.match import contains
from qualm.world.base import World


def questions(world: World | None, n: int, seed: int) -> list[Case]:
    """Seeded questions with target and choices: planted ones if there is a world, else real ones."""
    return world.plant("people").cases(n, seed) if world else _real(n, seed)


def answerable(world: World | None, n: int, seed: int) -> list[Case]:
    """Questions that a model of this world (or of the real one) can be expected to answer."""
    if not world:
        return _real(n, seed)
    return [case for case in world.plant("people").cases(8 * n, seed) if case.part == "taught"][:n]


def _real(n: int, seed: int) -> list[Case]:
    """Half currencies, half languages; `choices` hold three others of the kind."""
    rng, made = random.Random(f"{seed}/facts"), []
    for facts, wording in ((cldr.currencies(), "currency"), (cldr.languages(), "official language")):
        values = sorted({fact.value for fact in facts})
        for fact in rng.sample(facts, min(n // 2, len(facts))):
            others = rng.sample([v for v in values if v != fact.value], 3)
            extra = {"also": fact.also, "rivals": fact.rivals}
            question = ask(f"What is the {wording} of {fact.name}?")
            choices = tuple(sorted([fact.value, *others]))
            made.append(Case(f"{wording}/{fact.name}", question, fact.value, choices, fact.name, wording, extra))
    return made


def is_right(case: Case, answer: str) -> bool:
    """The target as whole words; or another right wording, unless the answer names a rival that contains it."""
    if contains(answer, case.target):
        return True
    rival = any(contains(answer, rival) for rival in case.extra.get("rivals", ()))
    return not rival and any(contains(answer, also) for also in case.extra.get("also", ()))
