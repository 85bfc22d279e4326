"""An LSTM learns a text: some of it is held out, and training stops when that is told no better.

    python examples/lstm.py [TEXT] [--output DIR] [--quick]

TEXT is a .txt, .md or .jsonl file, or a folder of them; without one, 25 articles of Python's own manual are read.
"""

from _given import arguments, python_manual

import qualm
from qualm.training.loop import Hooks
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

given = arguments(__doc__)
settings = TrainSettings(
    epochs=1 if given.quick else 100,
    batch=16,
    schedule="constant",  # the rate does not fall: when to stop is left to the held-out text
    patience=3,  # validations without a new best, after which training ends
    eval_every=20 if given.quick else 60,
)
recipe = Recipe(size=300_000 if given.quick else 500_000, family="rnn", held_out=0.2, train=settings)


def show(row: dict) -> None:
    if row.get("validation") is not None:
        print(f"step {row['step']:5} of {row['steps']}: {row['validation']:.3f} bits per byte of the held-out text")


made = qualm.train(
    python_manual(given, articles=25), given.output / "model", recipe, Hooks(on_step=show, on_event=print)
)
best = made.result
print(f"stopped after step {best.steps}; step {best.best_step} was the best and is kept: {best.best:.3f} bits per byte")

model = qualm.load(made.folder)
written = model.generate(["The following"], qualm.Sampling(max_tokens=30, temperature=0.8))[0]
print(f"The following{written.text}")
