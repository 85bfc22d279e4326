"""How long does it take to a given bits per byte? `qualm train` as it comes, and transformers' Trainer.

    python benchmarks/time_to_loss.py [--steps 200] [--seeds 0 1 2] [--rates 5e-5 3e-3] [--lock FILE]

The same text (Python's own manual, a tenth of it held out), the same tokens, a Llama of the same shape. The Trainer
takes AdamW, a rate that falls linearly to 0, no warm-up and batch 8, which are its defaults, and transformers' first
weights; its default rate is 5e-5, one for tuning, so a good rate stands beside it. What it reads of the held-out text
after all its steps is the aim. Ours (its own rate, schedule, first weights and arithmetic, documents apart, batch 8)
has as many steps, and the first reading, each tenth step, that is no worse meets the aim. Time is that of the
steps alone, validation left out; processor time at one thread (OMP_NUM_THREADS=1), else on the wall.
"""

import argparse
import fcntl
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pydoc_data.topics import topics

import torch
import transformers

from qualm.corpus import Document, pack, split
from qualm.errors import Stopped
from qualm.models.llama import Llama
from qualm.tokens.train import train_bpe
from qualm.training.data import TokenRows
from qualm.training.loop import Hooks, fit
from qualm.training.losses import causal
from qualm.training.reading import bits_per_byte
from qualm.training.settings import TrainSettings
from qualm.training.size import build

VOCAB, DEPTH, LENGTH, BATCH, OFTEN = 1024, 4, 128, 8, 10
clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def trainer(config, rows: TokenRows, arguments: transformers.TrainingArguments) -> tuple[Llama, float]:
    """Their model in ours, and the seconds that its steps took."""
    transformers.set_seed(arguments.seed)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**config.to_hf(), "initializer_range": 0.02}))
    ids = torch.from_numpy(rows.ids[: len(rows.ids) // LENGTH * LENGTH].astype("int64")).view(-1, LENGTH)
    data = [{"input_ids": row, "labels": row} for row in ids]
    taken, began = [0.0], [0.0]

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            began[0] = clock()

        def on_step_end(self, args, state, control, **_):
            taken[0] += clock() - began[0]

    made = transformers.Trainer(theirs, arguments, train_dataset=data, callbacks=[Watch()])
    made.remove_callback(transformers.PrinterCallback)
    made.train()
    model = Llama(config)
    model.load_state_dict(theirs.state_dict())
    return model.eval(), taken[0]


def ours(config, rows: TokenRows, settings: TrainSettings, held, aims: list[float]) -> list[tuple[float, int] | None]:
    """Seconds and steps until each aim is met, None if it never is; training ends with the last one."""
    model = Llama(config)
    model.init_weights(settings.seed)
    met: list[tuple[float, int] | None] = [None] * len(aims)
    spent, began, at = 0.0, clock(), 0

    def validate(trained) -> float:
        nonlocal spent, began, at
        spent += clock() - began
        at += OFTEN
        read = bits_per_byte(trained, held, LENGTH, apart=True)
        for i, aim in enumerate(aims):
            met[i] = met[i] or ((spent, at) if read <= aim else None)
        began = clock()
        return read

    with suppress(Stopped):
        fit(model, rows, causal, settings, hooks=Hooks(validate, should_stop=lambda: all(met)))
    return met


@contextmanager
def alone(lock: str) -> Iterator[None]:
    """While no other holds the file `lock`, if one is named."""
    with Path(lock or os.devnull).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if lock else fcntl.LOCK_UN)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="*", default=[5e-5, 3e-3])
    parser.add_argument("--lock", default="", help="a file that is locked for each run, so that others wait")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    documents, held_out = split((Document(name, text) for name, text in sorted(topics.items())), 0.1)
    tokens = train_bpe((d.text for d in documents), VOCAB)
    config = build("llama", DEPTH, tokens.vocab_size, LENGTH).config
    ratios: dict[float, list[float]] = {rate: [] for rate in given.rates}
    print(
        f"{config.parameters:,} weights, {given.steps} steps of {BATCH} rows of {LENGTH}, load {os.getloadavg()[0]:.1f}"
    )
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    quiet |= {"max_steps": given.steps, "use_cpu": True}
    with tempfile.TemporaryDirectory() as folder:
        packed, held = pack(documents, tokens, Path(folder, "text")), pack(held_out, tokens, Path(folder, "held"))
        for seed in given.seeds:
            theirs = {}
            for rate in given.rates:
                arguments = transformers.TrainingArguments(folder, seed=seed, learning_rate=rate, **quiet)
                with alone(given.lock):
                    model, seconds = trainer(config, TokenRows(packed, LENGTH), arguments)
                theirs[rate] = bits_per_byte(model, held, LENGTH, apart=True), seconds
            settings = TrainSettings(given.steps, batch=BATCH, seed=seed, eval_every=OFTEN)
            with alone(given.lock):
                rows = TokenRows(packed, LENGTH, apart=True)
                met = ours(config, rows, settings, held, [aim for aim, _ in theirs.values()])
            for (rate, (aim, seconds)), found in zip(theirs.items(), met, strict=True):
                told = f"ours after {found[0]:.1f} s, step {found[1]}" if found else "ours never gets there"
                print(f"seed {seed}: the Trainer at {rate:g} reads {aim:.3f} after {seconds:.1f} s; {told}", flush=True)
                ratios[rate] += [seconds / found[0]] if found else []
    for rate, found in ratios.items():
        if found:
            middle, span = statistics.median(found), f"{min(found):.1f} to {max(found):.1f}"
            print(f"beside the Trainer at {rate:g}: {middle:.1f} times faster ({span}; {len(found)} seeds)")


if __name__ == "__main__":
    main()
