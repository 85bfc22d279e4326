"""The one training loop. Pretraining, tuning and distilling differ by `loss(model, batch)` alone.

On one machine, thread count and torch version, a run that was stopped or killed and is started again gives the same
losses and weights, bit for bit, as one that was not.
"""

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qualm.config import to_dict
from qualm.errors import InputError, QualmError, Stopped
from qualm.models.base import Model
from qualm.training import state
from qualm.training.average import Average
from qualm.training.checkpoint import Checkpoints, find_fault
from qualm.training.data import Draw, Rows
from qualm.training.device import placed
from qualm.training.losses import Loss, Remembers
from qualm.training.metrics import Metrics, logged
from qualm.training.optimisers import optimiser, usual_rate
from qualm.training.parallel import Ranks
from qualm.training.precision import DTYPES, Precision, prepared
from qualm.training.settings import TrainSettings, rate_at
from qualm.training.sharded import Sharded, check_processes, move_moments, reached, whole, write_moments
from qualm.training.speed import TRAINING, peak
from qualm.training.state import Progress

MOST_BAD = 3  # updates skipped in a row before the run gives up
USUAL, ENOUGH = 32, 8  # losses remembered to tell a spike by, and how many it takes
MOST_NAMED = 8  # rows of a batch that are named
NATS = 5.0  # a loss is no spike unless it is so much above the usual one
GUARDS = ("device", "threads", "strict", "precision", "shard")  # settings that do not decide the result of a step

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Hooks:
    """What the loop calls. `validate` reads a model, lower is better, and draws no random numbers.

    `on_step` gets each row of metrics.jsonl, `on_event` each thing that a person should know of. After each step
    `should_stop` may ask for an end: the run saves and raises Stopped. `write` puts a model's files into a folder, the
    weights by name in model*.safetensors. `flops` is how many floating point operations a forward pass over one row
    takes (0: not known), so that rows can say what share of the machine's peak is reached. `given` is what else decides
    the run, by part and name, as JSON has it: a run is not gone on with under another.
    """

    validate: Callable[[nn.Module], float] | None = None
    on_step: Callable[[Row], None] = lambda row: None
    on_event: Callable[[str], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    write: Callable[[nn.Module, Path], None] = state.write_weights
    flops: float = 0.0
    given: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Where the run ended: `loss` in nats a token at the last step, `best` what validation read at `best_step`."""

    steps: int
    loss: float | None
    best: float | None
    best_step: int
    tokens: int
    seconds: float
    skipped: int
    validations: tuple[tuple[int, float], ...]


def fit(
    model: nn.Module,
    data: Rows,
    loss: Loss,
    settings: TrainSettings,
    folder: Path | None = None,
    hooks: Hooks = Hooks(),
) -> Result:
    """Train `model` in place; it ends with the best weights if there is a validation, else with the last.

    With a `folder`, checkpoints, metrics.jsonl, TensorBoard's events and log.jsonl are kept there, and a run that lies
    there is gone on with.
    Raises QualmError if that run had other settings, data or starting weights (naming the field), if the disk is
    full, or after three updates in a row whose loss or gradient is not finite; Stopped when asked to stop.
    """
    check_processes(settings)
    with ExitStack() as stack:
        stack.enter_context(placed(model, settings))
        ranks = Ranks(next(model.parameters()).device)
        hooks = hooks if ranks.first else replace(hooks, on_step=_silent, on_event=_silent)
        sharded = Sharded(model, loss, settings) if settings.shard else None
        if sharded:
            model, loss = sharded.model, sharded.loss
        stack.enter_context(_own_torch_state(model, settings, ranks))
        stack.enter_context(prepared(model, settings.compile, settings.recompute))
        if folder and ranks.first:
            hooks = replace(hooks, on_event=logged(folder, hooks.on_event))
        places = Checkpoints(folder, hooks.on_event) if folder else None
        if places and ranks.first:
            stack.enter_context(places)
        run = _Run(model, data, loss, settings, hooks, ranks, sharded)
        if places:
            run.open(places)
            stack.callback(run.close)
        if run.precision.why:
            hooks.on_event(f"precision: {run.precision.name}, as {run.precision.why}")
        while not run.progress.finished:
            with reached() if sharded else nullcontext():
                run.advance()
        result = run.end()
        if sharded:
            sharded.gather()
        return result


def _silent(said: object) -> None:
    """What all processes but the first have to say."""


@contextmanager
def _own_torch_state(model: nn.Module, settings: TrainSettings, ranks: Ranks) -> Iterator[None]:
    """Seed, thread count and training mode as the run needs them; the caller's come back afterwards."""
    device, threads, training = next(model.parameters()).device, torch.get_num_threads(), model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(ranks.seed(settings.seed))
        if settings.threads:
            torch.set_num_threads(settings.threads)
        model.train()
        try:
            yield
        finally:
            model.train(training)
            torch.set_num_threads(threads)


@dataclass
class _Run:
    model: nn.Module
    data: Rows
    loss: Loss
    settings: TrainSettings
    hooks: Hooks
    ranks: Ranks
    sharded: Sharded | None = None
    progress: Progress = field(default_factory=Progress)
    places: Checkpoints | None = None
    metrics: Metrics | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.data):
            raise InputError("no rows to train on", then="add text")
        s = self.settings
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError("the model has no weight that may change")
        self.total = s.total(len(self.data))
        self.peak = usual_rate(self.model) if s.lr is None else s.lr
        if s.batch < self.ranks.size:
            self.hooks.on_event(f"{self.ranks.size} processes share batches of {s.batch} rows: some have none")
        self.draw = Draw(self.data, s.batch, s.accumulate, s.seed)
        self.device = self.parameters[0].device
        self.precision = self.ranks.same(Precision(s.precision, self.device))  # a probe's answer is by chance
        self.speed = peak(self.device, DTYPES[self.precision.name]) * self.ranks.size if self.hooks.flops else 0.0
        self.optimiser = optimiser(self.model, s, self.peak)
        self.mean = Average(self.model, s.ema) if s.ema else None

    # -- files

    def open(self, places: Checkpoints) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        self.places = places
        step = self.ranks.same(places.newest() if self.ranks.first else None)
        facts = {} if step is None else state.read_facts(places.path(step))
        if step is not None and self.settings.precision == "auto":
            self.precision = Precision(facts["machine"].get("precision", "fp32"), self.device)
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "world_size": self.ranks.size}
        machine |= {"precision": self.precision.name, "shard": bool(self.sharded), "device": self.device.type}
        self.identity: dict[str, dict[str, Any]] = {
            "settings": {k: v for k, v in to_dict(self.settings).items() if k not in GUARDS},
            "data": {**self.data.identity, "rows": len(self.data)},
            "model": to_dict(self.model.config) if isinstance(self.model, Model) else {},
            "start": {"weights": state.hash_weights(self.model)},
            **self.hooks.given,
        }
        self.ranks.agree(self.identity)
        self.identity["schedule"] = {"total": self.total, "peak": self.peak}
        self.identity["machine"] = machine
        if step is not None:
            for said in state.check_same(facts, self.identity, self.settings.strict, places.path(step)):
                self.hooks.on_event(said)
            self._restore(places.path(step))
            self.hooks.on_event(f"{places.folder}: goes on from step {step} of {self.total}")
        if self.ranks.first:
            self.metrics = Metrics(places.folder, self.progress.step)

    def _restore(self, folder: Path) -> None:
        self.progress, kept = state.restore(folder, self.model, self.optimiser, self.ranks)
        if self.mean:
            self.mean.restore(kept)
        if isinstance(self.loss, Remembers):
            self.loss.restore(self.model, self.ranks.split(kept))
        self.precision.restore(kept)

    def _save(self) -> None:
        if not self.places:
            return
        state.check_finite(self.model, self.optimiser)
        more = self.ranks.join(self.loss.tensors()) if isinstance(self.loss, Remembers) else {}
        more |= self.ranks.each(state.random_state(self.device))
        more |= {**self.precision.tensors(), **(self.mean.tensors() if self.mean else {})}
        parts = self.places.folder / f".moments-{self.progress.step}.tmp"
        if self.sharded:
            self.sharded.gather()
            write_moments(state.moments(self.model, self.optimiser), parts)
        if self.metrics:
            self._write(self.places, self.metrics, more, parts)
        self.ranks.wait()  # so that no process says that it is saved before it is

    def _write(self, places: Checkpoints, metrics: Metrics, more: state.Tensors, parts: Path) -> None:
        facts = state.facts_of(self.progress, self.identity)

        def fill(folder: Path) -> None:
            metrics.sync()
            with self._averaged():
                self.hooks.write(self.sharded.plain if self.sharded else self.model, folder)
            if self.sharded:
                move_moments(parts, folder)
            state.write(folder, self.model, self.optimiser, more, facts)

        places.save(self.progress.step, fill)
        places.prune({self.progress.best_step})
        shutil.rmtree(parts, ignore_errors=True)

    def close(self) -> None:
        if self.metrics:
            self.metrics.close()

    # -- one update

    def advance(self) -> None:
        """One update, and what is due after it: validation, a row of metrics, a checkpoint."""
        p, s, began = self.progress, self.settings, time.perf_counter()
        p.step += 1
        rate = rate_at(p.step, self.total, self.peak, s)
        nats, count, norm = self._gradient()
        good = math.isfinite(nats) and math.isfinite(norm) and not self._spikes(nats / count)
        if good:
            self._update(rate, norm, count)
            p.loss = nats / count
            p.recent = [*p.recent, p.loss][-USUAL:]
        self.optimiser.zero_grad()
        p.tokens += count
        lowered = self.precision.settle(good)
        p.bad = 0 if good or lowered else p.bad + 1
        p.skipped += not good
        seconds = time.perf_counter() - began
        p.finished = p.step == self.total
        row = {"step": p.step, "loss": p.loss if good else None, "lr": rate, "norm": norm / count if good else None}
        if good and self.data.bytes_per_target:
            row["bits_per_byte"] = nats / count / math.log(2) / self.data.bytes_per_target
        row |= {"steps": self.total, "tokens": p.tokens, "tokens_per_second": round(count / seconds, 1)}
        if self.speed:
            work = TRAINING * self.hooks.flops * s.batch * s.accumulate
            row["peak_share"] = round(work / seconds / self.speed, 4)
        improved = self._validate(row) if p.step % s.eval_every == 0 or p.finished else False
        p.seconds += time.perf_counter() - began
        self._report({**row, "seconds": round(p.seconds, 3)}, good)
        stop = self.ranks.any(self.hooks.should_stop()) and not p.finished
        if improved or stop or p.finished or p.step % s.save_every == 0:
            self._save()
        if stop:
            kept = f"saved in {self.places.folder}" if self.places else "nothing is saved"
            raise Stopped(f"stopped after step {p.step} of {self.total}, {kept}", then="run it again to go on")

    def _gradient(self) -> tuple[float, int, float]:
        """Summed nats and targets of the whole update, and the norm of the gradient of the summed nats."""
        nats, count = torch.zeros((), device=self.device), 0
        for rows, epochs in self.draw(self.progress.step):
            own, when = self.ranks.own(rows), self.ranks.own(epochs)
            if not len(own):
                continue
            with self.precision.cast():
                part, targets = self.loss(self.model, self.data.batch(own, when).to(self.device))
            if part.requires_grad:  # else no target is among these rows
                self.precision.backward(part)
            nats += part.detach()
            count += targets
        totals = torch.stack((nats.double(), nats.new_tensor(count, dtype=torch.double)))
        self.ranks.sum([totals])
        self.ranks.sum_gradients(self.parameters)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.precision.unscale(gradients)
        return float(totals[0]), max(int(totals[1]), 1), float(whole(torch.nn.utils.get_total_norm(gradients)))

    def _update(self, rate: float, norm: float, count: int) -> None:
        """Make the gradient the mean over targets, clip it, and step."""
        mean_norm, clip = norm / count, self.settings.clip
        scale = (clip / mean_norm if clip and mean_norm > clip else 1.0) / count
        torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], scale)
        self.optimiser.step(rate)
        if self.mean:
            self.mean.update()

    def _spikes(self, loss: float) -> bool:
        """Whether a loss is far beyond the median of those before it."""
        recent = self.progress.recent
        if not self.settings.spike or len(recent) < ENOUGH:
            return False
        return loss > max(self.settings.spike * statistics.median(recent), statistics.median(recent) + NATS)

    def _averaged(self) -> AbstractContextManager[None]:
        """The model with the weights that are validated and saved: their running mean, if there is one."""
        return self.mean.shown() if self.mean else nullcontext()

    def _report(self, row: Row, good: bool) -> None:
        if self.metrics:
            self.metrics.write(row)
        self.hooks.on_step(row)
        if good:
            return
        p = self.progress
        rows = ", ".join(str(r) for some, _ in self.draw(p.step) for r in some[:MOST_NAMED])
        self.hooks.on_event(
            f"step {p.step}: the loss or its gradient is not finite, or far above the usual; the update is skipped "
            f"(rows {rows})"
        )
        if p.bad >= MOST_BAD:
            kept = f"the last good checkpoint is in {self.places.folder}" if self.places else "nothing is saved"
            raise QualmError(
                f"{MOST_BAD} updates in a row were not finite or spikes, up to step {p.step}; {kept}",
                then="name another folder and lower the learning rate, or look at the rows of these steps",
            )

    # -- validation

    def _validate(self, row: dict[str, Any]) -> bool:
        """Read the model; True if it is the best so far."""
        if not self.hooks.validate:
            return False
        p = self.progress
        self.model.eval()
        with self.sharded.open() if self.sharded else self._averaged():
            value = self.ranks.same(float(self.hooks.validate(self.model)))
        self.model.train()
        row["validation"] = value if math.isfinite(value) else None
        if not math.isfinite(value):
            return False
        p.validations.append((p.step, value))
        if p.best is not None and value >= p.best:
            p.stale += 1
            p.finished |= 0 < self.settings.patience <= p.stale
            return False
        p.best, p.best_step, p.stale = value, p.step, 0
        if not self.places:
            with self._averaged():
                self.best_weights = {name: tensor.clone() for name, tensor in state.weights(self.model).items()}
        return True

    def end(self) -> Result:
        """The best weights back into the model, and the figures."""
        p = self.progress
        if self.mean:
            self.mean.settle()
        if p.best_step and p.best_step != p.step:
            if self.places:
                best = self.places.path(p.best_step)
                if fault := find_fault(best):
                    raise InputError(f"the best checkpoint cannot be used: {fault}", where=str(best), then="train anew")
                state.restore_weights(best, self.model)
            else:
                state.copy_weights(self.model, self.best_weights)
        return Result(p.step, p.loss, p.best, p.best_step, p.tokens, p.seconds, p.skipped, tuple(p.validations))
