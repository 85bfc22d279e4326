"""A GPT is trained on a text, then writes.

    python examples/gpt.py [TEXT] [--output DIR] [--quick]

TEXT is a .txt, .md or .jsonl file, or a folder of them; without one, Python's own manual is read.
"""

from _given import arguments, python_manual

import qualm
from qualm.training.loop import Hooks
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

given = arguments(__doc__)
settings = TrainSettings(steps=20 if given.quick else 600, batch=8, eval_every=200)
recipe = Recipe(size=300_000 if given.quick else 1_000_000, family="gpt", length=128, train=settings)


def show(row: dict) -> None:
    if row["step"] % 50 == 0:
        print(f"step {row['step']:4}: {row['loss']:.3f} nats a token, {row['tokens_per_second']:,.0f} tokens a second")


made = qualm.train(python_manual(given), given.output / "model", recipe, Hooks(on_step=show, on_event=print))
print(f"{made.parameters:,} weights, {made.result.seconds:.0f} s, {made.result.best:.3f} bits per byte of unseen text")

model = qualm.load(made.folder)
prompts = ["A class is", "The following", "for i in"]
for prompt, answer in zip(
    prompts, model.generate(prompts, qualm.Sampling(max_tokens=40, temperature=0.7)), strict=True
):
    print(f"--- {prompt}{answer.text}")
