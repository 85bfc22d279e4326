"""What to train, or what to start from: for a task, so much text, this machine and so much time. Each with its reason.

The loss is that of Hoffmann et al. 2022 (arXiv 2203.15556, approach 3), which was fitted to large models of English web
text: it ranks sizes here, and is no promise.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qualm.corpus import Packed
from qualm.errors import Stopped, UsageError
from qualm.models.base import Config, Model
from qualm.tokens.train import train_bpe
from qualm.training.data import Rows
from qualm.training.device import device_of
from qualm.training.loop import Hooks, fit
from qualm.training.losses import Loss
from qualm.training.objectives import objective_of
from qualm.training.precision import DTYPES, Precision
from qualm.training.recipe import Recipe
from qualm.training.run import ENOUGH, OFTEN
from qualm.training.settings import TrainSettings, rate_for
from qualm.training.size import DEEPEST, config_of, depth_of, made, vocab_of
from qualm.training.speed import TRAINING, peak

E, A, ALPHA, B, BETA = 1.69, 406.4, 0.34, 410.7, 0.28  # nats a token: E + A / N^ALPHA + B / D^BETA
HALF = 0.4  # the share of the peak that is taken for granted until a step is measured
FEWEST = 100  # steps of a run that is worth its name
STEPS, PROBE = 200, 3.0  # that are measured at most, and seconds after which that is enough
PASSES = 3  # over the rows, when a model is tuned
ROOM, PROGRAM = 5e8, 4.5e8  # bytes: for activations, before they are known; of torch and Python
CPU = torch.device("cpu")
WEIGHTS = 16  # bytes a parameter: weight, gradient and AdamW's two moments, all fp32
FAMILIES = {"text": "llama", "chat": "llama", "classify": "bert", "tag": "bert", "qa": "bert", "seq2seq": "t5"}
# what to start from: name, parameters, languages. All are of families that are read here.
KNOWN: Mapping[str, Sequence[tuple[str, float, str]]] = {
    "llama": (
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, "en"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", 362e6, "en"),
        ("Qwen/Qwen3-0.6B", 596e6, "many"),
    ),
    "bert": (
        ("google-bert/bert-base-uncased", 110e6, "en"),
        ("google-bert/bert-base-chinese", 102e6, "zh"),
        ("google-bert/bert-base-multilingual-cased", 178e6, "many"),
    ),
    "t5": (("google/t5-v1_1-small", 77e6, "en"), ("google/mt5-small", 300e6, "many")),
}


@dataclass(frozen=True)
class Wish:
    """What is wanted.

    Attributes:
        task: text (continue a text), chat, classify, tag, qa or seq2seq.
        language: Of the text: en, zh, ...
        tokens: Tokens of text there are: 5M. A token is about 4 bytes of English.
        hours: Time for training.
        memory: Bytes of memory that may be used: 8GB; 0 for what this machine has.
        length: Tokens that the model sees at once.
    """

    task: str = "text"
    language: str = "en"
    tokens: float = 5e6
    hours: float = 2.0
    memory: float = 0.0
    length: int = 128

    def __post_init__(self) -> None:
        if self.task not in FAMILIES:
            raise UsageError(f"no task is named {self.task!r}", then=f"say {', '.join(FAMILIES)}")
        for name in ("tokens", "hours", "length"):
            if not getattr(self, name) > 0:
                raise UsageError(f"must be above 0, not {getattr(self, name)}", where=name)


@dataclass(frozen=True)
class Machine:
    """Where it is to be trained: threads, bytes of memory, the format, and FLOP/s of a matrix product in it."""

    threads: int
    memory: float
    precision: str
    peak: float


@dataclass(frozen=True)
class Plan:
    """A model from nothing: the settings of a run, and what they cost. FLOPs are of one training step."""

    family: str
    depth: int
    parameters: int
    vocab: int
    length: int
    batch: int
    steps: int
    lr: float
    step_flops: float
    step_seconds: float
    seconds: float
    memory: float
    peak_share: float
    loss: float


@dataclass(frozen=True)
class Start:
    """A pretrained model to start from, with what tuning it takes; `fits` if memory and time suffice."""

    name: str
    parameters: float
    memory: float
    seconds: float
    fits: bool


@dataclass(frozen=True)
class Advice:
    """Both ways; `choice` is "train" or "start from", and `reasons` say why."""

    wish: Wish
    machine: Machine
    plan: Plan
    start: Start | None
    choice: str
    reasons: tuple[str, ...]
    command: str

    def document(self) -> dict[str, Any]:
        return {"schema": "qualm.advise/1", **asdict(self), "warning": WARNING}


WARNING = (
    "the loss is Hoffmann et al.'s law, fitted to large models of English web text: it ranks sizes and is no promise"
)


def look(wish: Wish = Wish()) -> Machine:
    """This machine: threads, memory, and format and measured peak of what it trains on."""
    device = device_of("auto", CPU)
    name = Precision("auto", device).name
    return Machine(torch.get_num_threads(), wish.memory or _memory(), name, peak(device, DTYPES[name]))


def _memory() -> float:
    """Bytes that are free or can be had; 4 GB where the system does not say."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return 4e9
    said = dict(line.split(":", 1) for line in table.read_text(encoding="ascii").splitlines())
    return 1024.0 * int(said.get("MemAvailable", "4000000 kB").split()[0])


def law(parameters: float, tokens: float) -> float:
    """Nats a token of the law in the module's head."""
    return E + A / parameters**ALPHA + B / tokens**BETA


def planned(wish: Wish, machine: Machine) -> Plan:
    """The size whose expected loss is least, among those that memory and time allow; its step is measured."""
    share, seen = HALF, set[int]()
    while True:
        plan = _best(wish, machine, share)
        seconds = measured(_recipe(plan))
        found = plan.step_flops / seconds / machine.peak
        other = _best(wish, machine, found)
        if other.depth >= plan.depth or other.depth in seen:
            return _timed(plan, wish, seconds, machine)
        share = found
        seen.add(plan.depth)


def _best(wish: Wish, machine: Machine, share: float) -> Plan:
    plans = [_plan(wish, machine, depth, share) for depth in range(1, DEEPEST + 1)]
    fitting = [plan for plan in plans if plan.memory <= machine.memory]
    if not fitting:
        raise UsageError(
            f"the least model takes {plans[0].memory / 1e6:.0f} MB", where="memory", then="allow more memory"
        )
    room = OFTEN * wish.tokens / ENOUGH  # parameters; the law knows no learning by heart
    trained = [plan for plan in fitting if plan.steps >= FEWEST and plan.parameters <= room] or fitting[:1]
    return min(trained, key=lambda plan: plan.loss)


def _plan(wish: Wish, machine: Machine, depth: int, share: float) -> Plan:
    """A model of this depth, trained for as long as time and text allow."""
    family, length = FAMILIES[wish.task], wish.length
    config = config_of(family, depth, 0, length)
    batch = max(1, min(32, 1024 // length))  # 512 to 1024 tokens a pass keep a CPU busiest
    forward = _row_flops(family, config, length)
    step_seconds = TRAINING * forward * batch / (share * machine.peak)
    most = min(OFTEN * wish.tokens, ENOUGH * config.parameters * OFTEN)
    steps = int(max(1, min(most / (batch * length), 3600 * wish.hours / step_seconds)))
    return Plan(
        family, depth, config.parameters, vocab_of(depth), length, batch, steps,
        config.rate * rate_for(config.parameters),
        TRAINING * forward * batch, step_seconds, steps * step_seconds, WEIGHTS * config.parameters + ROOM, share,
        law(config.parameters, steps * batch * length),
    )  # fmt: skip


def _row_flops(family: str, config: Config, length: int) -> float:
    recipe: Any = Recipe(family=family, length=length)
    tokens: Any = None  # the work does not hang on them
    return objective_of(recipe)(recipe, tokens).flops(config)


def _timed(plan: Plan, wish: Wish, step_seconds: float, machine: Machine) -> Plan:
    """The plan with a measured step, cut to the time there is."""
    steps = int(max(1, min(plan.steps, 3600 * wish.hours / step_seconds)))
    loss = law(plan.parameters, steps * plan.batch * plan.length)
    share = plan.step_flops / step_seconds / machine.peak
    timed = replace(plan, steps=steps, step_seconds=step_seconds, seconds=steps * step_seconds, loss=loss)
    return replace(timed, peak_share=share, memory=needed(_recipe(plan), plan.parameters))


def needed(recipe: Recipe, parameters: int) -> float:
    """Bytes of weights, gradients, moments and activations, and of the program itself."""
    return WEIGHTS * parameters + activations(recipe) + PROGRAM


def _recipe(plan: Plan) -> Recipe:
    settings = TrainSettings(steps=plan.steps, batch=plan.batch, lr=plan.lr)
    return Recipe(size=plan.parameters, family=plan.family, length=plan.length, vocab=plan.vocab, train=settings)


def trial(recipe: Recipe) -> tuple[Model, Rows, Loss]:
    """The model of a recipe with some made-up rows, and their loss."""
    kind = objective_of(recipe)
    tokens = train_bpe(["only the length of this text counts"] * 8, 300, kind.special, kind.frame, kind.mask)
    depth = depth_of(recipe.size, recipe.family, recipe.vocab, recipe.length)
    model = made(recipe.family, config_of(recipe.family, depth, recipe.vocab, recipe.length), 0)
    count = (recipe.length + 1) * recipe.train.batch * 4
    ids = np.random.default_rng(0).integers(5, 250, size=count).astype(np.uint16)
    objective = kind(recipe, tokens)
    packed = Packed(ids, np.array([count]), np.array([4 * count]), {"documents": "made up"})
    return model, objective.rows(packed), objective.loss()


def measured(recipe: Recipe) -> float:
    """Seconds of a training step of this recipe, by some steps of the loop itself; the first ones do not count."""
    model, rows, loss = trial(recipe)
    taken: list[float] = []

    def enough() -> bool:
        return len(taken) > 5 and taken[-1] - taken[1] > PROBE

    settings = replace(recipe.train, steps=STEPS, epochs=None, eval_every=10**9)
    with suppress(Stopped):
        fit(model, rows, loss, settings, hooks=Hooks(on_step=lambda r: taken.append(r["seconds"]), should_stop=enough))
    return (taken[-1] - taken[1]) / (len(taken) - 2)


def activations(recipe: Recipe) -> float:
    """Bytes that a forward pass of one batch keeps for the backward pass, weights not counted."""
    model, rows, loss = trial(recipe)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is given out twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    first = np.arange(recipe.train.batch) % len(rows)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Precision("auto", CPU).cast():
        loss(model.train(), rows.batch(first, np.zeros_like(first)))
    return float(sum(kept.values()))


# -- what to start from, and the reasons


def start_for(wish: Wish, machine: Machine, share: float) -> Start | None:
    """The largest known model for the language that memory and time allow; else the least of them."""
    known = KNOWN[FAMILIES[wish.task]]
    found = [one for one in known if one[2] == wish.language] or [one for one in known if one[2] == "many"]
    starts = []
    for name, count, _ in sorted(found, key=lambda one: -one[1]):
        seconds = PASSES * wish.tokens * 2 * TRAINING * count / (share * machine.peak)
        memory = WEIGHTS * count + ROOM
        fits = memory <= machine.memory and seconds <= 3600 * wish.hours
        starts.append(Start(name, count, memory, seconds, fits))
    return next((start for start in starts if start.fits), starts[-1] if starts else None)


def _reasons(plan: Plan, start: Start | None, wish: Wish) -> tuple[str, ...]:
    read = plan.steps * plan.batch * plan.length
    passes = read / wish.tokens
    said = [
        f"{plan.family}: {WHY[plan.family]}",
        f"{plan.parameters:,} parameters: of the sizes that fit, the least expected loss, {_loss(plan)}",
        f"at most a parameter for {ENOUGH // OFTEN} tokens of text: more would learn it by heart",
        f"{plan.steps:,} steps read {read / 1e6:.1f} M tokens, each {passes:.1f} times; four times is nearly as "
        "good as new text",
        f"a tokenizer of {plan.vocab:,} tokens: its table takes about as much as one or two layers",
        f"{plan.batch} rows of {plan.length} tokens a step, which keeps the processor busy; a step took "
        f"{1000 * plan.step_seconds:.0f} ms here, {100 * plan.peak_share:.0f}% of the peak",
    ]
    if start is None:
        return (*said, f"nothing is known here to start from for {wish.language!r}")
    size = f"{start.name} ({start.parameters / 1e6:.0f} M parameters)"
    if start.fits:
        return (
            *said,
            f"start from {size}: it has read far more than {wish.tokens / 1e6:.1f} M tokens, and tuning it fits. Train "
            "your own where no text but yours may be in it, or where your text is like no other",
        )
    return (
        *said,
        f"not {size}: tuning it takes about {start.memory / 1e9:.1f} GB and {start.seconds / 3600:.1f} hours",
    )


def _loss(plan: Plan) -> str:
    """The law's figure, and whether it can be true: a model that knows nothing has ln V nats."""
    told = f"{plan.loss:.2f} nats a token by the scaling law"
    return told + (", which is out of its range here and ranks only" if plan.loss > math.log(plan.vocab) else "")


WHY = {
    "llama": "reads from left to right, so it can write; its layers are the usual ones of today",
    "bert": "reads from both sides, which is worth more than size where nothing is to be written",
    "t5": "reads a text whole before it writes another",
}


def advise(wish: Wish = Wish()) -> Advice:
    """Look at this machine for some seconds, then advise. Raises UsageError for a wish that nothing can meet."""
    machine = look(wish)
    plan = planned(wish, machine)
    start = start_for(wish, machine, max(plan.peak_share, HALF))
    tune = start is not None and start.fits
    sized = f"--family {plan.family} --size {plan.parameters} --vocab {plan.vocab} --length {plan.length}"
    command = f"qualm train DATA -o OUT {sized} --steps {plan.steps} --batch {plan.batch}"
    if tune and start:
        teach = f"qualm tune {start.name} ROWS -o OUT --task {wish.task}"
        command = teach if wish.task != "text" else f"qualm generate {start.name} PROMPT"
    choice = "start from" if tune else "train"
    return Advice(wish, machine, plan, start, choice, _reasons(plan, start, wish), command)
