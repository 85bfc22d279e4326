"""A BERT is trained on plain words, then taught to tell languages apart, then asked.

    python examples/bert_classify.py [ROWS] [--output DIR] [--quick]

ROWS is a .jsonl, .csv or .tsv file with the fields text and label. Without one: the names of countries, languages,
scripts and currencies in six languages, out of Unicode's CLDR; which language is a name in?
"""

from collections import Counter

from _given import arguments, names, written

import qualm
from qualm.corpus.records import read_records, split_records
from qualm.training.recipe import Recipe, Tuning
from qualm.training.settings import TrainSettings, TuneSettings

given = arguments(__doc__)
if given.data:
    rows = [dict(row) for row in read_records(given.data)[0]]
else:
    called = {language: set(names(language).values()) for language in ("de", "en", "es", "fi", "fr", "pl")}
    shared = Counter(name for each in called.values() for name in each)
    rows = [{"text": n, "label": k} for k, each in called.items() for n in sorted(each) if shared[n] == 1]
rows = rows[::8] if given.quick and not given.data else rows
read, asked = split_records(read_records(written(given.output / "rows.jsonl", rows))[0], 0.2)
learnt = written(given.output / "learnt.jsonl", read)

words = written(given.output / "words.jsonl", ({"text": row["text"]} for row in read))
settings = TrainSettings(steps=10 if given.quick else 100, batch=16, eval_every=100)
first = Recipe(size=300_000, family="bert", length=64, vocab=1000, train=settings)
made = qualm.train(words, given.output / "words", first)
print(f"{made.parameters:,} weights; {made.result.best:.2f} nats a hidden token")

taught = TuneSettings(epochs=1 if given.quick else 5, batch=32, lr=1e-3, eval_every=100)
tuned = qualm.tune(qualm.load(made.folder), learnt, given.output / "model", Tuning("classify", train=taught))

model = qualm.load(tuned.folder)
said = [max(p, key=lambda label: p[label]) for p in model.classify([row["text"] for row in asked])]
right = sum(answer == row["label"] for answer, row in zip(said, asked, strict=True)) / len(asked)
most = Counter(row["label"] for row in read).most_common(1)[0][0]
guessed = sum(row["label"] == most for row in asked) / len(asked)
print(f"{len(read)} rows learnt; of {len(asked)} others {right:.1%} are right (always {most!r}: {guessed:.1%})")
for row, answer in list(zip(asked, said, strict=True))[:: len(asked) // 6]:
    print(f"  {row['text']}: {answer}" + ("" if answer == row["label"] else f" (it is {row['label']})"))
