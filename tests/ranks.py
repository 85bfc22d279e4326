"""Train on several processes in every way that matters, and report what came of it.

`python tests/ranks.py FOLDER` prints it as JSON. A program of its own because it forks: torch is imported once, then
every process of a run is a child, joined to the others by gloo.
"""

import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from qualm.config import to_dict
from qualm.corpus.packing import Packed
from qualm.errors import QualmError
from qualm.files import hash_file
from qualm.models.bert import Bert, BertConfig
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.rnn import Rnn, RnnConfig
from qualm.training import parallel, state
from qualm.training.checkpoint import Checkpoints
from qualm.training.data import IGNORE, Batch, Rows, StreamRows, TensorRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import Carried, causal, masked
from qualm.training.recipe import Tuning
from qualm.training.settings import TrainSettings, TuneSettings
from qualm.training.size import config_of, made, with_keys
from qualm.training.tuning import Pupil, tune
from tiny import tiny_local, tiny_tokens

WAIT = 60.0  # seconds after which a process is taken for hung
VOCAB, ROWS = 24, 37
SETTINGS = TrainSettings(steps=8, batch=5, lr=1e-2, threads=1, precision="fp32", eval_every=4, save_every=2)


def together(work: Callable[[int], Any], size: int, place: Path) -> list[Any]:
    """What each of `size` processes returns of work(rank); {"error": ...} of one that ended in a QualmError, None of
    one that was killed."""
    place.mkdir(parents=True)
    children = [fork(work, rank, size, place) for rank in range(size)]
    until = time.monotonic() + WAIT
    for child in children:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                raise AssertionError("a process hangs")
            time.sleep(0.01)
    traces = [path.read_text() for path in place.glob("*.trace")]
    assert not traces, traces[0]
    told = [place / f"{rank}.json" for rank in range(size)]
    return [json.loads(path.read_text()) if path.exists() else None for path in told]


def fork(work: Callable[[int], Any], rank: int, size: int, place: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        store = dist.FileStore(str(place / "store"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=WAIT))
        try:
            told = work(rank)
        except QualmError as error:
            told = {"error": str(error), "code": error.exit_code}
        (place / f"{rank}.json").write_text(json.dumps(told))
    except BaseException:
        (place / f"{rank}.trace").write_text(traceback.format_exc())
        raise
    finally:
        os._exit(0)
    return 0


# -- what is trained


def ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (ROWS, 9), generator=torch.Generator().manual_seed(seed))


def llama() -> Llama:
    return Llama(LlamaConfig(VOCAB, 16, 32, 2, 2, tie_word_embeddings=True, initializer_range=0.2))


def gpt() -> Gpt:
    return Gpt(GptConfig(VOCAB, 16, 2, 2, 16, initializer_range=0.2, resid_pdrop=0.2, embd_pdrop=0.2))


class Masks(Rows):
    """Rows of which every other one has nothing to predict, so that a process may have no gradient of the head."""

    def __init__(self):
        self.identity = {"masks": "made up"}

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        own = ids()[torch.from_numpy(rows)]
        labels = torch.where(torch.from_numpy(rows % 2 == 0)[:, None] & (own % 3 == 0), own, IGNORE)
        return Batch(ids=own, labels=labels)


class Seen(TensorRows):
    """Rows that are noted when they are drawn: (epoch, row)."""

    def __init__(self, rows: torch.Tensor):
        super().__init__(rows)
        self.seen: list[tuple[int, int]] = []

    def batch(self, rows: np.ndarray, epochs: np.ndarray) -> Batch:
        self.seen += zip(epochs.tolist(), rows.tolist(), strict=True)
        return super().batch(rows, epochs)


def stream() -> StreamRows:
    text = np.random.default_rng(0).integers(VOCAB, size=400).astype(np.uint16)
    return StreamRows(Packed(text, np.array([400]), np.array([400]), {"documents": "made up"}), 8, SETTINGS.batch)


CASES: dict[str, Callable[[], tuple]] = {
    "llama": lambda: (llama(), TensorRows(ids()), causal),
    "rnn": lambda: (Rnn(RnnConfig.sized(1, VOCAB, 8)), stream(), Carried()),
    "bert": lambda: (Bert(BertConfig.sized(1, VOCAB, 16)), Masks(), masked),
}


def losses(case: tuple, settings: TrainSettings, folder: Path | None = None, hooks: Hooks = Hooks()) -> list[float]:
    """Loss and norm of every step, and the hash of the weights it ends with."""
    rows: list[Any] = []

    def on_step(row: Any) -> None:
        hooks.on_step(row)
        rows.extend((row["loss"], row["norm"]))

    model, data, loss = case
    torch.manual_seed(7)
    fit(model, data, loss, settings, folder, replace(hooks, on_step=on_step))
    return [*rows, state.hash_weights(model)]


def stopping(step: int, rank: int = 0) -> Hooks:
    """Hooks by which process `rank` alone asks for an end after `step` steps."""
    asked = iter(range(1, 1000))
    return Hooks(should_stop=lambda: next(asked) == step and dist.is_initialized() and dist.get_rank() == rank)


def poisoned(model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
    """The causal loss, of which process 1 makes NaN where a row begins with one of the first three tokens."""
    nats, count = causal(model, batch)
    bad = bool((batch["ids"][:, 0] < 3).any()) and dist.is_initialized() and dist.get_rank() == 1
    return nats * (float("nan") if bad else 1.0), count


# -- tuning


def lessons() -> dict[str, tuple[Pupil, list[dict[str, Any]], Tuning]]:
    """A model, rows and a tuning by name; none draws noise."""
    tokens, things = tiny_tokens(), ("fox", "dog", "apple", "capital", "time")
    settings = TuneSettings(steps=8, batch=5, lr=1e-3, threads=1, precision="fp32", eval_every=4, save_every=2)
    special = {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id, "pad_token_id": tokens.pad_id}
    bert = with_keys(config_of("bert", 1, tokens.vocab_size, 32, **special), {}, 0.0)
    quiet = {key: "0.0" for key in to_dict(bert) if "dropout" in key and getattr(bert, key)}
    encoder = Pupil(made("bert", with_keys(bert, quiet), 0), tokens)
    writer = Pupil(tiny_local(0).model, tokens)
    labelled = [{"text": f"the {thing} {i}", "label": i % 3} for i in range(6) for thing in things]
    written = [{"prompt": f"the {thing} {i}", "completion": f" is {i % 3}"} for i in range(6) for thing in things]
    pairs = [{**row, "chosen": " yes", "rejected": f" no {i}"} for i, row in enumerate(written)]
    return {
        "classify": (encoder, labelled, Tuning("classify", train=settings)),
        "seq2seq": (writer, written, Tuning("seq2seq", lora=4, merge=True, train=settings)),
        "prefer": (writer, pairs, Tuning("prefer", train=settings)),
    }


def tunings(place: Path) -> dict[str, Any]:
    """Each lesson on one process, on two, spread over two where it can be; and on two, stopped and gone on with."""
    found: dict[str, Any] = {}

    def work(name: str, folder: str, shard: bool = False, stop: int = 0) -> Callable[[int], Any]:
        pupil, _, tuning = taught[name]
        tuning = replace(tuning, train=replace(tuning.train, shard=shard))

        def run(_: int) -> Any:
            seen: list[float] = []
            hooks = replace(stopping(stop), on_step=lambda row: seen.extend((row["loss"], row["norm"])))
            tuned = tune(pupil, place / f"{name}.jsonl", place / folder, tuning, hooks)
            return [*seen, tuned.figures["loss"], hash_file(place / folder / "model.safetensors")]

        return run

    taught = lessons()
    for name, (_, rows, _) in taught.items():
        place.mkdir(exist_ok=True)
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        told = {"one": work(name, f"{name}-one")(0)}
        told["two"] = together(work(name, f"{name}-two"), 2, place / f"{name}.two")
        told["stopped"] = together(work(name, f"{name}-cut", stop=3), 2, place / f"{name}.stopped")
        told["rest"] = together(work(name, f"{name}-cut"), 2, place / f"{name}.rest")
        if name != "classify":
            told["shard"] = together(work(name, f"{name}-shard", shard=True), 2, place / f"{name}.shard")
        found[name] = told
    return found


# -- what happens


def curves(place: Path) -> dict[str, Any]:
    """Each case on one process, on two, and on more than there are rows in a micro-batch."""
    found: dict[str, Any] = {}
    few = replace(SETTINGS, batch=2, accumulate=3)
    for name, make in CASES.items():
        parallel.MESSAGE = 300  # bytes: gradients go in many messages
        found[name] = [losses(make(), SETTINGS), *together(lambda _, m=make: losses(m(), SETTINGS), 2, place / name)]
    two = together(lambda _: losses(CASES["llama"](), few), 3, place / "few")
    found["few"] = [losses(CASES["llama"](), few), *two]
    spread = replace(SETTINGS, shard=True)
    found["shard"] = [found["llama"][0], *together(lambda _: losses(CASES["llama"](), spread), 2, place / "shard")]
    return found


def noise(place: Path, shard: bool) -> dict[str, Any]:
    """With dropout on two processes: run whole, run in two parts, and what each process draws."""
    settings = replace(SETTINGS, shard=shard)
    case: Callable[[], tuple] = lambda: (gpt(), TensorRows(ids()), causal)  # noqa: E731
    drawn = together(lambda _: first_noise(), 2, place / "drawn")
    whole = together(lambda _: losses(case(), settings, place / "whole"), 2, place / "a")
    stopped = together(lambda _: losses(case(), settings, place / "cut", stopping(3, rank=1)), 2, place / "b")
    steps = [path.name for path in (place / "cut").glob("step-*")]
    rest = together(lambda _: losses(case(), settings, place / "cut"), 2, place / "c")
    return {"drawn": drawn, "whole": whole[0], "stopped": stopped, "steps": steps, "rest": rest[0]}


def first_noise() -> float:
    taken: list[float] = []

    def loss(model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        taken.append(float(torch.rand(())))
        return causal(model, batch)

    losses((llama(), TensorRows(ids()), loss), replace(SETTINGS, steps=1))
    return taken[0]


def sizes(place: Path, name: str, shard: bool = False) -> dict[str, Any]:
    """Two processes, then one, then two go on with one run; and the same on one process."""
    settings = replace(SETTINGS, steps=30, strict=False)
    told: dict[str, Any] = {"seen": []}

    def part(stop: int, strict: bool = False) -> Callable[[int], Any]:
        def work(_: int) -> Any:
            model, data, loss = CASES[name]()
            data = Seen(data.rows) if name == "llama" else data
            try:
                spread = replace(settings, strict=strict, shard=shard and dist.get_world_size() > 1)
                losses((model, data, loss), spread, place / "run", stopping(stop))
            except QualmError as error:
                if error.exit_code != 75:
                    raise
            return data.seen if name == "llama" else []

        return work

    for number, (size, stop) in enumerate(((2, 7), (1, 9), (2, 99))):
        told["seen"] += [pair for seen in together(part(stop), size, place / str(number)) for pair in seen]
        if number == 0:
            told["refused"] = together(part(99, strict=True), 1, place / "refused")
    log = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    told["losses"] = [row["loss"] for row in log]
    told["one"] = losses(CASES[name](), settings)[:-1:2]
    return told


def faults(place: Path) -> dict[str, Any]:
    """A process that is killed, a disk that is full, data that differ."""

    def killed(rank: int, shard: bool = False) -> Any:
        began = time.monotonic()

        def on_stop() -> bool:
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        try:
            settings = replace(SETTINGS, shard=shard)
            losses(CASES["llama"](), settings, place / f"killed{shard}", Hooks(should_stop=on_stop))
        except QualmError as error:
            return {"error": str(error), "code": error.exit_code, "seconds": time.monotonic() - began}

    def full(rank: int) -> Any:
        def no_space(folder: Path, *rest: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        state.write = no_space
        return losses(CASES["llama"](), SETTINGS, place / "full")

    def killed_sharded(rank: int) -> Any:
        return killed(rank, shard=True)

    def refused(rank: int) -> Any:
        said = []
        for name, settings in (("bert", SETTINGS), ("llama", replace(SETTINGS, ema=0.9))):
            try:
                losses(CASES[name](), replace(settings, shard=True))
            except QualmError as error:
                said.append(str(error))
        return said

    def unlike(rank: int) -> Any:
        return losses((llama(), TensorRows(ids(rank)), causal), SETTINGS, place / "unlike")

    def poison(rank: int) -> Any:
        events: list[str] = []
        case = llama(), TensorRows(ids()), poisoned
        losses(case, SETTINGS, place / "poison", Hooks(on_event=events.append))
        return events

    kinds = (killed, killed_sharded, full, unlike, refused, poison)
    found = {work.__name__: together(work, 2, place / f"{work.__name__}.told") for work in kinds}
    assert Checkpoints(place / "full", print).steps() == []
    return found


if __name__ == "__main__":
    home = Path(sys.argv[1])
    torch.set_num_threads(1)
    happened: dict[str, Any] = {"curves": curves(home / "curves")}
    happened["noise"] = {name: noise(home / f"noise-{name}", name == "shard") for name in ("plain", "shard")}
    happened["sizes"] = {name: sizes(home / name, name) for name in ("llama", "rnn")}
    happened["sizes"]["shard"] = sizes(home / "shard", "llama", shard=True)
    happened["faults"] = faults(home / "faults")
    happened["tunings"] = tunings(home / "tunings")
    print(json.dumps(happened))
