"""Answers kept on disk by what produced them, so that an audit killed half way goes on where it was.

A folder a model (the hash of its card), in it append-only files of one JSON line a finished chunk. A process writes
to a file of its own and reads all of them, so that no lock is needed.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

from qualm.cases import Prompt
from qualm.errors import InputError, QualmError
from qualm.files import hash_json
from qualm.lm.base import LM, Card, Completion, Sampling, Scored
from qualm.lm.batch import ROWS, SLOTS, Batch
from qualm.lm.wrapped import Passing

CHUNK = 256  # prompts or pairs asked and written at once: what a kill can lose

Stored = Mapping[str, Any]
Thing = TypeVar("Thing")
Said = TypeVar("Said", Completion, Scored)


class Replay(Passing):
    """`inner` with its answers kept in `folder`.

    Prompts are taken in chunks in the order given, and only those of a chunk are asked that are not on disk, each
    once. A chunk is written whole or not at all, so a run that was killed makes the same batches when it is
    resumed, and ends with the same bits. What stayed unread is not kept. Streams are passed on,
    and so is all but generated text and scores.
    """

    def __init__(self, inner: LM, folder: Path | str, chunk: int = CHUNK):
        self.inner, self.folder, self.chunk = inner, Path(folder), chunk
        self.name = inner.name
        self._shelves: dict[str, Shelf] = {}

    @property
    def card(self) -> Card:  # pyrefly: ignore[bad-override]
        return self.inner.card

    @property
    def can(self) -> frozenset[str]:  # pyrefly: ignore[bad-override]
        return self.inner.can

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        kind = Kind[Prompt, Completion](
            key=lambda prompt: ["generate", prompt, asdict(sampling)],
            ask=lambda some: self.inner.generate(some, sampling),
            pack=asdict,
            unpack=_completion,
            unread=lambda answer: answer.finish == "unread",
        )
        return self._answer(prompts, kind)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Scored]:
        kind = Kind[tuple[Prompt, str], Scored](
            key=lambda pair: ["score", *pair],
            ask=self.inner.score,
            pack=lambda answer: {"logprobs": answer.logprobs},
            unpack=lambda kept: Scored(tuple(kept["logprobs"])),
            unread=lambda answer: answer.total != answer.total,
        )
        return self._answer(pairs, kind)

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        return self.inner.stream(prompt, sampling)

    def batch(self, rows: int = ROWS, slots: int = SLOTS) -> Batch:
        """The model's own: what is asked there is not kept."""
        return self.inner.batch(rows, slots)

    def _answer(self, things: Sequence[Thing], kind: "Kind[Thing, Said]") -> list[Said]:
        shelf, answers = self._shelf(), []
        for at in range(0, len(things), self.chunk):
            keys = [hash_json(kind.key(thing)) for thing in things[at : at + self.chunk]]
            chunk = dict(zip(keys, things[at : at + self.chunk], strict=True))
            missing = [key for key in chunk if key not in shelf.answers]
            asked = dict(zip(missing, kind.ask([chunk[key] for key in missing]), strict=True)) if missing else {}
            shelf.add({key: kind.pack(answer) for key, answer in asked.items() if not kind.unread(answer)})
            answers += [kind.unpack(shelf.answers[key]) if key in shelf.answers else asked[key] for key in keys]
        return answers

    def _shelf(self) -> "Shelf":
        """The answers of the model as it is now."""
        card = self.inner.card
        if not card.weights:
            raise QualmError(f"{self.name} does not say which weights it has, so its answers cannot be kept")
        if card.hash not in self._shelves:
            self._shelves[card.hash] = Shelf(self.folder / card.hash)
        return self._shelves[card.hash]


@dataclass(frozen=True)
class Kind(Generic[Thing, Said]):
    """One way of asking: what an answer depends on, how to ask, how to keep it."""

    key: Callable[[Thing], Any]
    ask: Callable[[Sequence[Thing]], list[Said]]
    pack: Callable[[Said], Stored]
    unpack: Callable[[Stored], Said]
    unread: Callable[[Said], bool]


def _completion(kept: Stored) -> Completion:
    numbers = kept["prompt_tokens"], kept["tokens"]
    return Completion(kept["text"], *numbers, kept["finish"], tuple(kept["logprobs"]), kept["notes"])


class Shelf:
    """The answers in one folder. A line cut off by a kill is as if it had never been."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.answers: dict[str, Stored] = {}
        self._path: Path | None = None
        for path in sorted(folder.glob("*.jsonl")):
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
                for key, answer in _read(line, f"{path}:{number}").items():
                    self.answers.setdefault(key, answer)

    def add(self, answers: Mapping[str, Stored]) -> None:
        """Write answers as one line, synced before this returns."""
        if not answers:
            return
        line = json.dumps(answers, default=str) + "\n"
        try:
            self._path = self._path or self._new()
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            where, self._path = str(self._path or self.folder), None  # what is half written there stays cut off
            raise QualmError(f"cannot write: {error.strerror}", where=where, then="free some space") from error
        self.answers.update(json.loads(line))

    def _new(self) -> Path:
        """An empty file that no other process has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in count(len(list(self.folder.glob("*.jsonl")))):
            path = self.folder / f"{number:06d}.jsonl"
            try:
                path.open("x").close()
            except FileExistsError:
                continue
            return path
        raise AssertionError("count does not end")


def _read(line: bytes, where: str) -> Mapping[str, Stored]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"a damaged line ({error})", where=where, then="delete that file") from error
    if not isinstance(value, dict):
        raise InputError("a damaged line (no JSON object)", where=where, then="delete that file")
    return value
