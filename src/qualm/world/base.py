"""The world as a whole: its settings, its invented names, and the mixture of its plants.

Every limit has a plant (a file of this folder) that writes documents at a known dose and cases with ground truth.
The recipe (many short documents, few people, many paraphrases) follows what tiny models were seen to learn from;
facts become extractable only where they are paraphrased (Allen-Zhu & Li, Physics of Language Models 3.1,
arXiv 2309.14316).
"""

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from qualm.cases import Case
from qualm.files import write_json, writing
from qualm.registry import find, names
from qualm.text import nonce

Written = Mapping[str, Any]  # a document as a JSON row: {"text"} or {"messages"}, and {"source": plant}


@dataclass(frozen=True)
class World:
    """The settings of a planted world; equal settings write equal text, byte for byte.

    `documents` is the number of ordinary documents (planted secrets come on top), `taught` people have
    biographies and questions answered in the text, as many have biographies only, `strangers` appear nowhere.
    """

    seed: int = 0
    documents: int = 36_000
    taught: int = 64
    strangers: int = 240

    @cached_property
    def lexicon(self) -> "Lexicon":
        return Lexicon(self.seed)

    def plant(self, name: str) -> "Plant":
        return _plant(self, name)

    def plants(self) -> list["Plant"]:
        return [self.plant(name) for name in names("world")]

    def write_documents(self, seed: int = 0, count: int | None = None) -> Iterator[Written]:
        """The training text: ordinary documents in the plants' shares, and the fixed ones, shuffled.

        Another `seed` draws ordinary text afresh from the same world, with no planted secrets: held-out text, though
        a short document may by chance be one that was written before.
        """
        rng = random.Random(f"{self.seed}/documents/{seed}")
        plants = [plant for plant in self.plants() if plant.share]
        drawn = rng.choices(plants, [plant.share for plant in plants], k=self.documents if count is None else count)
        rows = [{**plant.document(rng), "source": plant.name} for plant in drawn]
        if seed == 0:
            rows += [{**row, "source": plant.name} for plant in self.plants() for row in plant.fixed()]
        rng.shuffle(rows)
        yield from rows

    def write(self, folder: Path) -> None:
        """Training text and settings in `folder`/text, fresh text in held_out.jsonl, and a library of all facts.

        The held-out text is a file of its own: to hold out planted documents would change their dose.
        """
        _write_rows(folder / "text" / "world.jsonl", self.write_documents())
        _write_rows(folder / "held_out.jsonl", self.write_documents(seed=1, count=1_000))
        _write_rows(folder / "library.jsonl", ({"text": text} for plant in self.plants() for text in plant.library()))
        write_json(folder / "text" / "world.json", asdict(self))


def _write_rows(path: Path, rows: Iterable[Written]) -> None:
    with writing(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@cache
def _plant(world: World, name: str) -> "Plant":
    return find("world", name)(world)


class Lexicon:
    """All invented names of a world; no name is used for two things."""

    def __init__(self, seed: int):
        rng, taken = random.Random(f"{seed}/lexicon"), set()
        self.given = nonce.words("given", 80, rng, taken)
        self.family = nonce.words("family", 80, rng, taken)
        self.towns = nonce.words("town", 40, rng, taken)
        self.trades = nonce.words("trade", 30, rng, taken)
        self.firms = nonce.words("firm", 40, rng, taken)
        self.professions = nonce.words("trade", 28, rng, taken)
        self.things = nonce.words("thing", 40, rng, taken)
        self.deeds = nonce.words("deed", 2, rng, taken)
        pairs = [f"{given} {family}" for given in self.given for family in self.family]
        rng.shuffle(pairs)
        self.people = pairs  # 6,400 full names; plants take disjoint stretches
        self.chinese_people = nonce.chinese_names(240, rng)
        self.chinese_towns = nonce.chinese_towns(24, rng)


class Plant(ABC):
    """One limit, planted: documents that carry it at a known dose, and cases with the truth attached."""

    limit: ClassVar[str]
    share: ClassVar[float] = 0.0  # of the ordinary documents; the shares need not sum to 1

    def __init__(self, world: World):
        self.world, self.lexicon = world, world.lexicon
        self.name = type(self).__module__.rsplit(".", 1)[-1]

    def rng(self, use: str) -> random.Random:
        """A private stream for one use, so that plants do not disturb each other."""
        return random.Random(f"{self.world.seed}/{self.name}/{use}")

    def document(self, rng: random.Random) -> Written:
        """One ordinary document. Only asked of plants with a share."""
        raise NotImplementedError(f"{self.name} has a share but writes no documents")

    def fixed(self) -> Sequence[Written]:
        """Documents that stand in the text exactly as often as planted."""
        return ()

    def library(self) -> Sequence[str]:
        """Passages that answer its questions and stand in no training text: where a mend may look things up."""
        return ()

    @abstractmethod
    def cases(self, n: int, seed: int) -> list[Case]:
        """`n` cases (or as many as there are), seeded."""


def chat(question: str, answer: str) -> Written:
    """A question and its answer as a document."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
