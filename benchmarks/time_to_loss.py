"""How long does it take to a given bits per byte? `qualm train` as it comes, and transformers' Trainer as it comes.

    python benchmarks/time_to_loss.py [--steps 200] [--seeds 3] [--rate 5e-5]

The same text (Python's own manual, a tenth of it held out), the same tokens, a Llama of the same shape. The Trainer
takes its own defaults (AdamW, rate 5e-5 falling linearly to 0, no warm-up, batch 8) and transformers' first weights.
What it reads of the held-out text after all its steps is the aim; ours (its own rate, schedule, first weights and
arithmetic, documents apart, batch 8) has as many steps, and stops at the first reading, each tenth step, that is no
worse. With `--rate` the Trainer takes another rate than its own. Time is that of the steps alone, validation left out;
processor time at one thread (OMP_NUM_THREADS=1), else on the wall.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import suppress
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
from qualm.training.losses import bits_per_byte, causal
from qualm.training.settings import TrainSettings
from qualm.training.size import build

VOCAB, DEPTH, LENGTH, BATCH, OFTEN = 1024, 4, 128, 8, 10
clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def trainer(config, rows: TokenRows, given: argparse.Namespace, seed: int, folder: str) -> tuple[Llama, float]:
    """Their model in ours, and the seconds that its steps took."""
    transformers.set_seed(seed)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**config.to_hf(), "initializer_range": 0.02}))
    ids = torch.from_numpy(rows.ids[: len(rows.ids) // LENGTH * LENGTH].astype("int64")).view(-1, LENGTH)
    data = [{"input_ids": row, "labels": row} for row in ids]
    taken, began = [0.0], [0.0]

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            began[0] = clock()

        def on_step_end(self, args, state, control, **_):
            taken[0] += clock() - began[0]

    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    quiet |= {"max_steps": given.steps, "learning_rate": given.rate, "use_cpu": True}
    arguments = transformers.TrainingArguments(folder, seed=seed, **quiet)
    made = transformers.Trainer(theirs, arguments, train_dataset=data, callbacks=[Watch()])
    made.remove_callback(transformers.PrinterCallback)
    made.train()
    model = Llama(config)
    model.load_state_dict(theirs.state_dict())
    return model.eval(), taken[0]


def ours(config, rows: TokenRows, settings: TrainSettings, held, aim: float) -> tuple[float | None, float, int]:
    """The reading that met the aim (None if none did), the seconds until then, and the step."""
    model = Llama(config)
    model.init_weights(settings.seed)
    read: list[float] = []
    spent, began, at = 0.0, clock(), 0

    def validate(trained) -> float:
        nonlocal spent, began
        spent += clock() - began
        read.append(bits_per_byte(trained, held, LENGTH, apart=True))
        began = clock()
        return read[-1]

    def on_step(row) -> None:
        nonlocal at
        at = row["step"]

    hooks = Hooks(validate, on_step, should_stop=lambda: bool(read) and read[-1] <= aim)
    with suppress(Stopped):
        fit(model, rows, causal, settings, hooks=hooks)
    return (read[-1] if read[-1] <= aim else None), spent, at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5e-5)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    documents, held_out = split((Document(name, text) for name, text in sorted(topics.items())), 0.1)
    tokens = train_bpe((d.text for d in documents), VOCAB)
    config = build("llama", DEPTH, tokens.vocab_size, LENGTH).config
    ratios: dict[str, list[float]] = {"auto": [], "fp32": []}
    print(
        f"{config.parameters:,} weights, {given.steps} steps of {BATCH} rows of {LENGTH}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        packed, held = pack(documents, tokens, Path(folder, "text")), pack(held_out, tokens, Path(folder, "held"))
        apart = TokenRows(packed, LENGTH, apart=True)
        for seed in range(given.seeds):
            model, theirs = trainer(config, TokenRows(packed, LENGTH), given, seed, folder)
            aim = bits_per_byte(model, held, LENGTH, apart=True)
            print(f"seed {seed}: the Trainer reads {aim:.3f} bits per byte after {theirs:.1f} s", flush=True)
            for precision, found in ratios.items():
                settings = TrainSettings(given.steps, batch=BATCH, seed=seed, eval_every=OFTEN, precision=precision)
                value, seconds, step = ours(config, apart, settings, held, aim)
                found += [theirs / seconds] if value is not None else []
                told = f"{value:.3f} after {seconds:.1f} s, step {step}" if value is not None else "never gets there"
                print(f"  ours, {precision}: {told}", flush=True)
    for precision, found in ratios.items():
        if found:
            print(f"{precision}: {statistics.median(found):.1f} times faster ({min(found):.1f} to {max(found):.1f})")


if __name__ == "__main__":
    main()
