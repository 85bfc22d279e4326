"""A T5 learns to translate: "Translate this text to French: Hello, world!"

    python examples/t5_translate.py [PAIRS] [--output DIR] [--quick]

PAIRS is a .tsv, .csv or .jsonl file with the fields source and target, as in a parallel corpus. Without one: dates as
English and French write them, by Unicode's CLDR ("Monday, January 1, 1990" is "lundi 1 janvier 1990").
"""

from datetime import date, timedelta

from _given import arguments, written
from babel.dates import format_date

import qualm
from qualm.corpus.records import read_records, split_records
from qualm.training.recipe import Recipe, Tuning
from qualm.training.settings import TrainSettings, TuneSettings

ASK = "Translate this text to French: "

given = arguments(__doc__)
if given.data:
    rows = [(row.text("source"), row.text("target")) for row in read_records(given.data)[0]]
else:
    days = [date(1990, 1, 1) + timedelta(days=11 * i) for i in range(150 if given.quick else 1500)]
    rows = [(format_date(day, "full", "en"), format_date(day, "full", "fr")) for day in days]
pairs = [{"prompt": ASK + source, "completion": target} for source, target in rows]
read, asked = split_records(read_records(written(given.output / "pairs.jsonl", pairs))[0], 0.1)
learnt = written(given.output / "learnt.jsonl", read)

words = written(given.output / "words.jsonl", ({"text": text} for row in read for text in row.values()))
settings = TrainSettings(steps=5 if given.quick else 100, batch=16, eval_every=100)
first = Recipe(size=150_000 if given.quick else 400_000, family="t5", length=64, vocab=600, train=settings)
made = qualm.train(words, given.output / "words", first)  # a tokenizer of both languages, and hidden spans filled in
print(f"{made.parameters:,} weights; {made.result.best:.2f} nats a token of hidden spans")

taught = TuneSettings(epochs=1 if given.quick else 80, batch=32, lr=3e-3, eval_every=50)
tuned = qualm.tune(qualm.load(made.folder), learnt, given.output / "model", Tuning("seq2seq", train=taught))
print(f"{tuned.rows} pairs in {tuned.result.seconds:.0f} s; {tuned.result.best:.2f} nats a token of pairs held out")

model = qualm.load(tuned.folder)
for what, some in (("learnt", read[:100]), ("others", asked[:100])):
    said = model.generate([row["prompt"] for row in some], qualm.Sampling(max_tokens=30))
    right = sum(answer.text == row["completion"] for answer, row in zip(said, some, strict=True))
    copied = sum(row["prompt"].removeprefix(ASK) == row["completion"] for row in some)
    print(f"of {len(some)} {what}, {right} are right word for word (copied as they are: {copied})")
for row, answer in zip(asked[:5], said[:5], strict=True):
    print(f"  {row['prompt'].removeprefix(ASK)} -> {answer.text} (it is {row['completion']})")
print(f"  Hello, world! -> {model.generate([ASK + 'Hello, world!'], qualm.Sampling(max_tokens=30))[0].text}")
