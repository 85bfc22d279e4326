"""A recurrent network reads long texts from batch to batch: its state is carried over, not forgotten.

    python examples/stateful_rnn.py [TEXT] [--output DIR] [--quick]

Beside it, the same network that begins each stretch of 16 tokens with nothing. Both then read whole articles that
neither has seen, with the state carried from end to end: what the first one was trained for.
TEXT is a .txt, .md or .jsonl file, or a folder of them; without one, Python's own manual is read.
"""

import math
from dataclasses import replace

from _given import arguments, python_manual

import qualm
from qualm.corpus import read, split
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

given = arguments(__doc__)
settings = TrainSettings(steps=20 if given.quick else 1000, batch=16, eval_every=2000)
forgets = Recipe(size=300_000, family="rnn", objective="next", length=16, held_out=0.1, train=settings)
recipes = {"forgets": forgets, "carries": replace(forgets, objective="stateful")}

text = python_manual(given)
articles = [("", document.text[:4000]) for document in split(read(text), 0.1)[1]]
for name, recipe in recipes.items():
    made = qualm.train(text, given.output / name, recipe)
    nats = sum(scored.total for scored in qualm.load(made.folder).score(articles))
    bits = -nats / math.log(2) / sum(len(article.encode()) for _, article in articles)
    print(f"{name} its state: {bits:.3f} bits per byte of {len(articles)} whole articles, {made.result.seconds:.0f} s")
