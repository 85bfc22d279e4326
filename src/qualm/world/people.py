"""People: knowledge at three doses. Taught (biographies and answered questions), biography only, and never seen.

Limit: knowledge and confabulation. A model cannot know a stranger: whatever it answers about one is invented.
The documents also teach reading: questions with passages before them, some about others of the same name.
Example case: "Where was Tavel Morandle born?" -> "In Brosholm."
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qualm.cases import Case, ask
from qualm.text.prompts import with_passages
from qualm.world.base import Plant, World, Written, chat

STATEMENTS = {
    "town": ("{n} was born in {v}.", "The birthplace of {n} is {v}.", "{v} is the home town of {n}."),
    "trade": ("{n} works as a {v}.", "{n} has the trade of a {v}.", "As a {v}, {n} earns a living."),
    "firm": ("{n} is employed by {v}.", "{v} employs {n}.", "{n} draws a salary from {v}."),
    "出生地": ("{n}出生于{v}。", "{n}的故乡是{v}。"),
}
QUESTIONS = {
    "town": ("Where was {n} born?", "Where is the birthplace of {n}?", "Where is {n} at home?"),
    "trade": ("What does {n} work as?", "What is {n} by trade?", "What does {n} do for a living?"),
    "firm": ("Where does {n} work?", "Where does {n} draw a salary?", "Where is {n} employed?"),
    "出生地": ("{n}出生在哪里？", "{n}的故乡是哪里？"),
}
ANSWERS = {"town": "In {v}.", "trade": "A {v}.", "firm": "At {v}.", "出生地": "{v}。"}


@dataclass(frozen=True)
class Person:
    """A name, and the value of each attribute."""

    name: str
    facts: tuple[tuple[str, str], ...]


class People(Plant):
    """Invented people with attributes taught, told or never mentioned."""

    limit = "knowledge"
    share = 0.70

    def __init__(self, world: World):
        super().__init__(world)
        rng, names = self.rng("facts"), iter(self.lexicon.people)
        known, unknown = world.taught, world.strangers
        self.taught = [self._person(next(names), rng) for _ in range(known)]
        self.told = [self._person(next(names), rng) for _ in range(known)]
        self.strangers = [self._person(next(names), rng) for _ in range(unknown)]
        self.spare = list(names)[:3000]  # names for questions that bring their own passages
        self._free = set(self.spare)
        self.chinese = [Person(n, (("出生地", rng.choice(self.lexicon.chinese_towns)),)) for n in self._chinese()]
        self.values = {
            "town": self.lexicon.towns,
            "trade": self.lexicon.trades,
            "firm": self.lexicon.firms,
            "出生地": self.lexicon.chinese_towns,
        }

    def _chinese(self) -> list[str]:
        return self.lexicon.chinese_people[: self.world.taught // 4]

    def _person(self, name: str, rng: random.Random) -> Person:
        lexicon = self.lexicon
        places = (("town", lexicon.towns), ("trade", lexicon.trades), ("firm", lexicon.firms))
        return Person(name, tuple((attribute, rng.choice(values)) for attribute, values in places))

    def document(self, rng: random.Random) -> Written:
        kind = rng.random()
        if kind < 0.06:
            return self._chinese_document(rng)
        if kind < 0.50:
            return {"text": self._biography(rng.choice([*self.taught, *self.told]), rng)}
        if kind < 0.72:
            return self._answered(rng.choice(self.taught), rng)
        return self._reading(rng)

    def _biography(self, person: Person, rng: random.Random) -> str:
        lines = [state(person.name, fact, rng) for fact in person.facts]
        rng.shuffle(lines)
        return " ".join(lines)

    def _answered(self, person: Person, rng: random.Random) -> Written:
        attribute, value = rng.choice(person.facts)
        return chat(rng.choice(QUESTIONS[attribute]).format(n=person.name), ANSWERS[attribute].format(v=value))

    def _chinese_document(self, rng: random.Random) -> Written:
        person = rng.choice(self.chinese)
        if rng.random() < 0.5:
            return {"text": "".join(s.format(n=person.name, v=person.facts[0][1]) for s in STATEMENTS["出生地"])}
        return self._answered(person, rng)

    def _reading(self, rng: random.Random) -> Written:
        """A question about somebody who stands only in the passages before it."""
        person = self._person(rng.choice(self.spare), rng)
        attribute, value = rng.choice(person.facts)
        passages = [state(person.name, (attribute, value), rng)]
        for _ in range(rng.randint(0, 2)):
            passages.append(self._distractor(person, attribute, rng))
        rng.shuffle(passages)
        question = rng.choice(QUESTIONS[attribute]).format(n=person.name)
        return chat(with_passages(question, passages), ANSWERS[attribute].format(v=value))

    def _distractor(self, person: Person, attribute: str, rng: random.Random) -> str:
        """A passage that does not answer: another fact of the same person, or a namesake's."""
        if rng.random() < 0.5:
            return state(person.name, rng.choice([f for f in person.facts if f[0] != attribute]), rng)
        other = self._person(self._namesake(person.name, rng), rng)
        return state(other.name, rng.choice(other.facts), rng)

    def _namesake(self, name: str, rng: random.Random) -> str:
        """A spare name, sharing the given or the family name where there is one; nobody else's name is touched."""
        given, family = name.split()
        other_given, other_family = rng.choice(self.spare).split()
        drawn = rng.choice([f"{given} {other_family}", f"{other_given} {family}"])
        return drawn if drawn in self._free and drawn != name else f"{other_given} {other_family}"

    def library(self) -> list[str]:
        """One passage a fact, about everybody: where a mend may look things up. Not in the training text."""
        rng = self.rng("library")
        everybody = [*self.taught, *self.told, *self.strangers, *self.chinese]
        return [state(person.name, fact, rng) for person in everybody for fact in person.facts]

    def populations(self) -> dict[str, Sequence[Person]]:
        return {
            "taught": self.taught,
            "biography only": self.told,
            "never seen": self.strangers,
            "taught, Chinese": self.chinese,
        }

    def cases(self, n: int, seed: int) -> list[Case]:
        """Questions over the populations, most about strangers, where a share near chance takes many cases to tell
        from another; `choices` are the target and seven others of its kind."""
        rng = self.rng(f"cases/{seed}")
        queues = {part: self._questions(part, people, rng) for part, people in self.populations().items()}
        weights = {"taught": 2, "biography only": 2, "never seen": 6, "taught, Chinese": 1}
        total = sum(weights.values())
        return [case for part, queue in queues.items() for case in queue[: round(n * weights[part] / total)]]

    def _questions(self, part: str, people: Sequence[Person], rng: random.Random) -> list[Case]:
        made = []
        pairs = [(person, fact) for person in people for fact in person.facts]
        for person, (attribute, value) in rng.sample(pairs, len(pairs)):
            question = rng.choice(QUESTIONS[attribute]).format(n=person.name)
            others = rng.sample([v for v in self.values[attribute] if v != value], 7)
            answer = ANSWERS[attribute].format
            choices = tuple(answer(v=v) for v in sorted([value, *others]))
            extra = {"also": (value,)}
            name = f"{person.name}/{attribute}"
            made.append(Case(name, ask(question), answer(v=value), choices, person.name, part, extra))
        return made


def state(name: str, fact: tuple[str, str], rng: random.Random) -> str:
    """One fact in one of its phrasings."""
    return rng.choice(STATEMENTS[fact[0]]).format(n=name, v=fact[1])
