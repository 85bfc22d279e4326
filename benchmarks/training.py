"""How fast do our models train beside those of peers? The same work, turn by turn in one run.

    python benchmarks/training.py [CASE ...] [--rounds 3] [--steps 3] [--formats fp32 bf16] [--peers PYTHON]

Each peer is a process that makes its model, then waits; in each round it takes one step to warm up and `--steps` that
count, with a 1024^3 product of float32 matrices before and after. Figures are medians over the rounds: tokens a second,
that as a ratio to each peer (above 1: ours is the faster), and the share of the machine's matrix products in float32
(the probe) that the model's own come to. At one thread (OMP_NUM_THREADS=1) processor time is read, in which what else
runs on the machine counts less; with more, time on the wall. `--peers` is the Python that has torch, tensorflow, keras
and accelerate; what it lacks is left out. AdamW on random ids. Every one is there in float32 and in bf16 (by autocast,
the Trainer's `bf16`, Keras's mixed_bfloat16), and set beside ours in the same format; "as it comes" is our loop in the
format that it chooses here beside the peer's default, float32.
"""

import argparse
import fcntl
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
clock = time.process_time if THREADS == 1 else time.perf_counter
VOCAB, RATE = 8192, 3e-4
SIZES = {"lstm": (32, 128), "dropout": (8, 256), "plain": (8, 256)}  # rows, tokens a row
CASES = {
    "lstm": ("torch", "keras"),
    "dropout": ("trainer",),
    "plain": ("compiling", "llama", "compiled"),
}
FORMATS = ("fp32", "bf16")
WHAT = {
    "lstm": "LSTM, 2 layers of 256; torch: nn.LSTM in a plain loop; keras: Keras on TensorFlow, model.fit",
    "dropout": "GPT-2, 6 layers of 384, dropout 0.1; trainer: transformers' GPT-2 and Trainer",
    "plain": "Llama, 6 layers of 384, no dropout; llama: transformers' Llama in a plain loop; compiled: that by "
    "torch.compile; compiling: ours with --compile",
}
NEEDS = {"keras": ("keras", "tensorflow"), "trainer": ("transformers", "accelerate"), "llama": ("transformers",)}
COMPILED = {"compiling": "ours", "compiled": "llama"}
GPT = {"vocab_size": VOCAB, "n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 256}
LLAMA = {"vocab_size": VOCAB, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6}
LLAMA |= {"num_attention_heads": 6, "max_position_embeddings": 256}

Act = Callable[[int], list[float]]  # so many steps -> the clock after each


def our_config(case: str):
    from qualm.models.gpt import GptConfig
    from qualm.models.llama import LlamaConfig
    from qualm.models.rnn import RnnConfig

    if case == "lstm":
        return RnnConfig(VOCAB, 256, 2, "lstm", head_bias=True, tie_word_embeddings=False)
    dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.1)
    return GptConfig(**GPT, **dropout) if case == "dropout" else LlamaConfig(**LLAMA)


def ours(case: str, precision: str, compiled: bool = False) -> Act:
    """Our loop as `qualm train` has it: gradient norm, clipping, spikes, metrics and the allocator's settings."""
    from qualm import registry
    from qualm.cli.memory import keep_memory
    from qualm.training.data import TensorRows
    from qualm.training.loop import Hooks, fit
    from qualm.training.losses import causal
    from qualm.training.settings import TrainSettings

    keep_memory()
    model = registry.find("models", {"lstm": "rnn", "dropout": "gpt", "plain": "llama"}[case])(our_config(case))
    rows, settings = (
        TensorRows(ids(case, 1)),
        TrainSettings(batch=SIZES[case][0], lr=RATE, precision=precision, compile=compiled),
    )

    def act(steps: int) -> list[float]:
        after: list[float] = []
        hooks = Hooks(on_step=lambda row: after.append(clock()))
        fit(model, rows, causal, replace(settings, steps=steps), hooks=hooks)
        return after

    return act


def ids(case: str, more: int = 0):
    import torch

    rows, length = SIZES[case]
    return torch.randint(VOCAB, (rows, length + more), generator=torch.Generator().manual_seed(0))


def plain_loop(model, precision: str, loss: Callable) -> Act:
    import torch

    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, fused=True)

    def act(steps: int) -> list[float]:
        after = []
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                nats = loss(model)
            nats.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            after.append(clock())
        return after

    return act


def torchs(case: str, precision: str) -> Act:
    import torch
    import torch.nn.functional as F

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = torch.nn.Embedding(VOCAB, 256), torch.nn.Linear(256, VOCAB)
            self.rnn = torch.nn.LSTM(256, 256, 2, batch_first=True)

        def forward(self, x):
            return self.head(self.rnn(self.table(x))[0])

    rows = ids(case, 1)
    aim = rows[:, 1:].flatten()
    return plain_loop(Theirs(), precision, lambda m: F.cross_entropy(m(rows[:, :-1]).flatten(0, 1).float(), aim))


def llama(case: str, precision: str, compiled: bool = False) -> Act:
    import transformers

    from qualm.cli.memory import keep_memory

    keep_memory()  # as good a loop as can be had

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=False))
    rows = ids(case)
    if compiled:
        model.compile()
    return plain_loop(model, precision, lambda m: m(input_ids=rows, labels=rows, use_cache=False).loss)


def trainer(case: str, precision: str) -> Act:
    import transformers

    transformers.logging.set_verbosity_error()
    data = [{"input_ids": row, "labels": row} for row in ids(case)] * 8
    after: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            after.append(clock())

    model, batch = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)), SIZES[case][0]

    def act(steps: int) -> list[float]:
        after.clear()
        usual = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
        usual |= {"bf16": precision == "bf16"}
        given = transformers.TrainingArguments("unused", max_steps=steps, per_device_train_batch_size=batch, **usual)
        transformers.Trainer(model, given, train_dataset=data, callbacks=[Watch()]).train()
        return list(after)

    return act


def kerass(case: str, precision: str) -> Act:
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bf16" else "float32")
    length = SIZES[case][1]
    parts = [keras.layers.LSTM(256, return_sequences=True) for _ in range(2)]
    start = keras.Input((length,), dtype="int32"), keras.layers.Embedding(VOCAB, 256)  # as floats, bf16 would round ids
    model = keras.Sequential([*start, *parts, keras.layers.Dense(VOCAB)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(RATE, clipnorm=1.0), loss)
    rows, after = ids(case, 1).numpy(), []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            after.append(clock())

    def act(steps: int) -> list[float]:
        after.clear()
        x, y = (part.repeat(steps, 0) for part in (rows[:, :-1], rows[:, 1:]))
        model.fit(x, y, batch_size=len(rows), epochs=1, verbose=0, callbacks=[Watch()])
        return list(after)

    return act


def serve(case: str, peer: str, precision: str, steps: int) -> None:
    """Answer each line of stdin with a round: seconds a step, and of the probe."""
    import torch

    made = {"ours": ours, "torch": torchs, "keras": kerass, "trainer": trainer, "llama": llama}
    made |= {name: partial(made[own], compiled=True) for name, own in COMPILED.items()}
    act = made[peer](case, precision)
    square = torch.randn(1024, 1024)

    def probe() -> float:
        began = clock()
        for _ in range(4):
            square @ square
        return (clock() - began) / 4

    act(2)
    print("ready", flush=True)
    for _ in sys.stdin:
        before, after = probe(), act(steps + 1)
        step = statistics.median(b - a for a, b in pairwise(after))
        print(json.dumps({"step": step, "probe": min(before, probe())}), flush=True)


def peers_of(case: str, python: str) -> Iterator[tuple[str, str]]:
    """(name, the Python that runs it) of those that are there."""
    for name in ("ours", *CASES[case]):
        wanted = NEEDS.get(COMPILED.get(name, name), ())
        if all(importlib.util.find_spec(package) for package in wanted):
            yield name, sys.executable
            continue
        test = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {wanted!r})))"
        if python and not subprocess.run([python, "-c", test], check=False).returncode:
            yield name, python
        else:
            print(f"  {name:7} left out: needs {' and '.join(wanted)} (--peers PYTHON)")


def told_ratio(own: list[dict[str, float]], other: list[dict[str, float]]) -> str:
    ratios = [theirs["step"] / mine["step"] for mine, theirs in zip(own, other, strict=False)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "not measured"


def chosen() -> str:
    """The format that our loop takes on this machine."""
    import torch

    from qualm.training.precision import Precision

    return Precision("auto", torch.device("cpu")).name


def started(case: str, given: argparse.Namespace) -> dict[tuple[str, str], subprocess.Popen]:
    """A process that is ready for each peer and format."""
    running = {}
    for name, python in peers_of(case, given.peers):
        for precision in sorted({*given.formats, chosen()}) if name == "ours" else given.formats:
            command = [python, __file__, case, "--serve", name, "--precision", precision, "--steps", str(given.steps)]
            errors = None if given.errors else subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
            while (line := process.stdout.readline()) and line != "ready\n":
                continue
            running[name, precision] = process
    return running


@contextmanager
def alone(lock: str) -> Iterator[None]:
    """While no other holds the file `lock`, if one is named."""
    with Path(lock or os.devnull).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if lock else fcntl.LOCK_UN)
        yield


def measure(case: str, given: argparse.Namespace) -> None:
    rows, length = SIZES[case]
    print(f"{case}: {WHAT[case]}; {rows} rows of {length}, vocabulary {VOCAB}", flush=True)
    running = started(case, given)
    taken: dict[tuple[str, str], list[dict[str, float]]] = {who: [] for who in running}
    for _ in range(given.rounds):
        with alone(given.lock):
            for who, process in running.items():
                if process.poll() is None:
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    while (line := process.stdout.readline()) and not line.startswith('{"step'):
                        continue
                    taken[who] += [json.loads(line)] if line else []
    for process in running.values():
        process.stdin.close()
        process.wait()
    work = 3 * rows * our_config(case).flops(length)  # forward once, backward twice
    own = chosen()
    for (name, precision), found in taken.items():
        if not found:
            print(f"  {name:9} {precision}  failed (--errors shows why)")
            continue
        step = statistics.median(r["step"] for r in found)
        share = statistics.median(work / r["step"] / (2 * 1024**3 / r["probe"]) for r in found)
        probe = statistics.median(2 * 1024**3 / r["probe"] / 1e9 for r in found)
        told = f"  {name:9} {precision} {rows * length / step:8,.0f} tokens/s  {share:.2f} of {probe:.0f} GFLOP/s"
        if name != "ours":
            told += f"  ours / it {told_ratio(taken['ours', precision], found)}"
        if name != "ours" and precision == "fp32":
            told += f", as it comes ({own}) {told_ratio(taken['ours', own], found)}"
        print(told, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peers", default="", help="a Python with tensorflow, keras and accelerate")
    parser.add_argument("--lock", default="", help="a file that is locked during each round, so that others wait")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=FORMATS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--errors", action="store_true", help="show what the peers say on stderr")
    given = parser.parse_args()
    if given.serve:
        return serve(given.cases[0], given.serve, given.precision, given.steps)
    print(f"{THREADS} thread(s), {given.rounds} rounds of {given.steps} steps, load {os.getloadavg()[0]:.1f}")
    for case in given.cases:
        measure(case, given)
    return None


if __name__ == "__main__":
    main()
