"""What models learn, each figure with its interval and beside a baseline.

    python benchmarks/learning.py text --shared DATA [--seeds 0,1,2] [--budget 0.5] [--only lstm] [--work FOLDER]

Figures: text (RNN, GRU, LSTM, GPT and n-grams), corpus (raw, cleaned, a sample of the raw), overfitting (and what
mends it), sentiment (BERT and TF-IDF, English and Chinese), translation (Transformer, LSTM with attention, word
lookup). DATA is the folder of the data sets that docs/learning.md names. One thread, no GPU. Written as a table for
people, and with --output FILE as JSON. With --work, what was measured and the checkpoints of what was not yet are
kept there: the same command again goes on.
"""

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from learning_figure import Figure, Plan, drawn

FIGURES = ("text", "corpus", "overfitting", "sentiment", "translation")


def main(words: Sequence[str] | None = None) -> Figure:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--shared", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--budget", type=float, default=1.0, help="the share of the usual training that models get")
    parser.add_argument("--only", default="", help="measure only the subjects whose name holds this, and the baselines")
    parser.add_argument("--work", type=Path, help="keep checkpoints and what was measured here, and go on with them")
    parser.add_argument("--show", action="store_true", help="measure nothing; show what --work holds")
    parser.add_argument("--output", type=Path, help="write the figure here, as JSON")
    parser.add_argument("--svg", type=Path, help="draw its curves here, if it has any")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    began, seeds = time.perf_counter(), tuple(int(seed) for seed in args.seeds.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(args.shared, (args.work or Path(scratch)) / args.figure, seeds, args.budget, args.only, args.show)
        plan.work.mkdir(parents=True, exist_ok=True)
        figure = importlib.import_module(f"learning_{args.figure}").measure(plan)
    print(f"\n{figure.about}\n\n{figure.table()}\n\n{time.perf_counter() - began:.0f} s")
    if args.output:
        args.output.write_text(json.dumps(figure.plain(), indent=1) + "\n", encoding="utf-8")
    if args.svg and figure.curves:
        args.svg.write_text(drawn(figure), encoding="utf-8")
    return figure


if __name__ == "__main__":
    main()
