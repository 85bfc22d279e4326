"""Generation with 5 beams and at most 50 tokens, beside generation by the likeliest next token.

    python examples/beams.py [MODEL] [--output DIR] [--quick]

MODEL is what `qualm.load` takes: a folder, a hub id, ... Without one, a small GPT learns Python's own manual first.
"""

from _given import arguments, python_manual

import qualm
from qualm.training.recipe import Recipe
from qualm.training.settings import TrainSettings

given = arguments(__doc__)
path = given.data
if path is None:
    settings = TrainSettings(steps=20 if given.quick else 300, batch=8)
    recipe = Recipe(size=300_000, family="gpt", length=128, train=settings)
    text = python_manual(given)
    path = qualm.train(text, given.output / "model", recipe).folder

model = qualm.load(path)
prompts = ["The with statement is used to", "A class definition", "If the value is"]
greedy = model.generate(prompts, qualm.Sampling(max_tokens=50))
searched = model.generate(prompts, qualm.Sampling(max_tokens=50, beams=5))
for prompt, one, five in zip(prompts, greedy, searched, strict=True):
    for name, answer in (("likeliest next", one), ("5 beams", five)):
        rate = sum(answer.logprobs) / max(1, answer.tokens)
        print(f"{name}: {rate:.2f} nats a token, {answer.tokens} tokens\n  {prompt}{answer.text!r}")
