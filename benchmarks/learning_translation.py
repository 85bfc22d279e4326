"""Translation: a small Transformer, an LSTM with attention at equal parameters and tokens, and word-by-word lookup."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from learning_figure import Columns, Figure, Measured, Plan, Seeds, opened
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from qualm.config import to_dict
from qualm.files import write_text
from qualm.lm.base import Sampling
from qualm.lm.load import load_base
from qualm.models.base import EncoderDecoder
from qualm.models.marian import Marian, MarianConfig
from qualm.models.rnn_attention import RnnAttention, RnnAttentionConfig
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from qualm.training.recipe import Tuning
from qualm.training.settings import TuneSettings
from qualm.training.tuning import Pupil, tune

LONGEST = 10  # English words of a sentence
VOCAB, DEPTH, BATCH, PASSES = 1500, 3, 64, 10
RATES = {"Marian": 4e-3, "LSTM with attention": 4e-3}
ROUNDS = 8  # of expectation and maximisation
NGRAMS, BETA = 6, 2  # of chrF
CHOSEN = 200  # pairs to keep the best step by
SETTINGS = TuneSettings(batch=BATCH, optimiser="muon", eval_every=300, save_every=150, precision="fp32")
WRITING = Sampling(max_tokens=40)
SIDES = ("both", "said", "wanted")
Pair = tuple[str, str]
PARTED = Tokenizer13a()  # sacreBLEU's words


def words(text: str) -> list[str]:
    """Words and marks; what is elided stands with its apostrophe: "l'", "homme"."""
    return re.findall(r"\w+'|\w+|[^\w\s]", text)


def joined(found: Sequence[str]) -> str:
    return re.sub(r"(?<=') | (?=[.,!?;:])", "", " ".join(found))


def pairs(folder: Path, part: str) -> list[Pair]:
    """English and French sentences, those of at most LONGEST English words."""
    english, french = (opened(folder / f"{part}.{language}.gz").splitlines() for language in ("en", "fr"))
    both = zip(english, french, strict=True)
    return [(e.strip(), f.strip()) for e, f in both if e.strip() and f.strip() and len(e.split()) <= LONGEST]


def lexicon(learnt: Sequence[Pair]) -> dict[str, str]:
    """The likeliest French word for each English one: IBM model 1 (Brown et al. 1993), the empty word included."""
    sides: tuple[dict[str, int], dict[str, int]] = ({"": 0}, {})
    cells: list[tuple[int, int, int]] = []  # English word, French word, and which French word of which sentence
    place = 0
    for english, french in learnt:
        e_ids = [0, *(sides[0].setdefault(w, len(sides[0])) for w in words(english.lower()))]
        for word in words(french):
            f_id = sides[1].setdefault(word, len(sides[1]))
            cells += [(e, f_id, place) for e in e_ids]
            place += 1
    e, f, at = np.array(cells).T
    keys, cell = np.unique(e * len(sides[1]) + f, return_inverse=True)
    source, t = keys // len(sides[1]), np.ones(len(keys))  # t: how likely this French word is, given the English one
    for _ in range(ROUNDS):
        share = t[cell] / np.bincount(at, t[cell])[at]
        counts = np.bincount(cell, share)
        t = counts / np.bincount(source, counts)[source]
    order = np.lexsort((-t, source))
    first = order[np.unique(source[order], return_index=True)[1]]
    french_words = list(sides[1])
    best = {int(source[i]): french_words[keys[i] % len(french_words)] for i in first}
    return {word: best[i] for word, i in sides[0].items()}


def looked_up(known: Mapping[str, str], text: str) -> str:
    """Word for word; one that is not known stays."""
    said = joined([known.get(word.lower(), word) for word in words(text)])
    return said[:1].upper() + said[1:]


def overlap(units: Sequence[Any], reference: Sequence[Any], n: int) -> tuple[int, int, int]:
    """n-grams in both, in the first, in the second."""
    ours, theirs = (Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (units, reference))
    return (ours & theirs).total(), ours.total(), theirs.total()


def counted(said: Sequence[str], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """What chrF and BLEU are made of, a number a sentence (n,): of n-grams of characters ("c1" ...) and of words
    ("w1" ...), how many are in both, in what is said, in what is wanted ("c1 both", "c1 said", "c1 wanted").
    """
    found: dict[str, list[int]] = {}
    for ours, theirs in zip(said, wanted, strict=True):
        letters = "".join(ours.split()), "".join(theirs.split())
        kinds = [(f"c{n}", *letters, n) for n in range(1, NGRAMS + 1)]
        kinds += [(f"w{n}", PARTED(ours).split(), PARTED(theirs).split(), n) for n in range(1, 5)]
        for name, one, other, n in kinds:
            for side, count in zip(SIDES, overlap(one, other, n), strict=True):
                found.setdefault(f"{name} {side}", []).append(count)
    return {name: np.array(counts, float) for name, counts in found.items()}


def sums(columns: Columns, unit: str) -> list[list[float]]:
    """Of each length of n-gram: in both, said, wanted."""
    return [
        [float(columns[f"{unit}{n} {side}"].sum()) for side in SIDES]
        for n in range(1, NGRAMS + 1)
        if f"{unit}{n} both" in columns
    ]


def chrf(columns: Columns) -> float:
    """Corpus chrF2, 0 to 100 (Popović 2015): no words, no spaces, as sacreBLEU computes it."""
    lengths = [(both / said, both / wanted) for both, said, wanted in sums(columns, "c") if said and wanted]
    precision, recall = np.mean(lengths, axis=0).tolist() if lengths else (0.0, 0.0)
    below = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / below if below else 0.0


def bleu(columns: Columns) -> float:
    """Corpus BLEU-4, 0 to 100 (Papineni et al. 2002), on sacreBLEU's words ("13a"), no smoothing."""
    lengths = sums(columns, "w")
    if not all(both for both, _, _ in lengths):
        return 0.0
    short = min(0.0, 1 - lengths[0][2] / lengths[0][1])
    return 100 * math.exp(short + float(np.mean([math.log(both / said) for both, said, _ in lengths])))


def models(vocab: int, end: int) -> dict[str, EncoderDecoder]:
    """A Transformer from the dial, and the LSTM whose width comes nearest to as many parameters."""
    ids: dict[str, Any] = {"eos_token_id": end, "pad_token_id": 1, "decoder_start_token_id": end}
    marian = Marian(MarianConfig.sized(DEPTH, vocab, 64, **ids))
    del ids["pad_token_id"]
    sizes = [RnnAttentionConfig(vocab, width, 1, embedding_size=width, **ids) for width in range(32, 400, 4)]
    near = min(sizes, key=lambda config: abs(config.parameters - marian.config.parameters))
    return {"Marian": marian, "LSTM with attention": RnnAttention(near)}


@dataclass(frozen=True)
class Task:
    """Pairs to learn from, written to `data`, and pairs to test on; the models that learn them, by name."""

    learnt: Sequence[Pair]
    tested: Sequence[Pair]
    data: Path
    tokens: Tokens
    models: Mapping[str, EncoderDecoder]

    @classmethod
    def of(cls, plan: Plan) -> "Task":
        """No English sentence that is tested is learnt from."""
        folder = plan.shared / "mt-multi30k"
        learnt, tested = pairs(folder, "train"), pairs(folder, "val")
        known = {english for english, _ in tested}
        learnt = [pair for pair in learnt if pair[0] not in known]
        tokens = train_bpe((text for pair in learnt for text in pair), VOCAB, frame=(False, True))
        made = models(tokens.vocab_size, tokens.eos_id or 0)
        return cls(learnt, tested, written(learnt, plan.work / "pairs"), tokens, made)

    @property
    def sources(self) -> list[str]:
        return [english for english, _ in self.tested]

    def judged(self, said: Sequence[str]) -> Columns:
        return counted(said, [french for _, french in self.tested])

    def read(self, name: str, settings: TuneSettings, folder: Path) -> Columns:
        """What a model says that was tuned in `folder`."""
        model = self.models[name]
        model.init_weights(settings.seed)
        tune(Pupil(model, self.tokens), self.data, folder / "made", Tuning("seq2seq", 64, train=settings))
        said = [each.text.strip() for each in load_base(folder / "made").generate(self.sources, WRITING)]
        print("\n".join(f"  {e} -> {s}" for e, s in zip(self.sources[:3], said, strict=False)))
        return self.judged(said)

    def measured(self, plan: Plan) -> dict[str, list[Measured]]:
        found: dict[str, list[Measured]] = {name: [] for name in self.models if plan.wants(name)}
        for seed in plan.seeds:
            for name in found:
                settings = replace(SETTINGS, epochs=PASSES * plan.budget, lr=RATES[name], seed=seed)
                made_of = [to_dict(self.models[name].config), to_dict(settings), self.learnt, self.tested]
                one = plan.once(f"{name} {seed}", made_of, partial(self.read, name, settings))
                found[name] += [one] if one else []
        return found


def written(learnt: Sequence[Pair], folder: Path) -> Path:
    """train.jsonl and validation.jsonl for a tuning."""
    rows = [json.dumps({"source": e, "target": f}, ensure_ascii=False) for e, f in learnt]
    folder.mkdir(exist_ok=True)
    write_text(folder / "validation.jsonl", "\n".join(rows[:CHOSEN]))
    write_text(folder / "train.jsonl", "\n".join(rows[CHOSEN:]))
    return folder


def measure(plan: Plan) -> Figure:
    task = Task.of(plan)
    found, lookup = task.measured(plan), lexicon(task.learnt)
    figure = Figure(
        "translation",
        f"Multi30k English to French, sentences of at most {LONGEST} English words: {len(task.learnt) - CHOSEN:,} "
        f"pairs to learn from and {CHOSEN} to choose the step by, {PASSES * plan.budget:g} passes; the "
        f"{len(task.tested)} of its validation part to translate, greedily. Corpus chrF2 and BLEU-4 with the bootstrap "
        "over sentences, the seeds pooled.",
        ("translator", "parameters", "chrF", "each seed", "BLEU", "chrF beside lookup", "seconds a seed"),
    )
    base = task.judged([looked_up(lookup, text) for text in task.sources])

    def add(name: str, count: str, measured: list[Measured]) -> None:
        seeds = Seeds(measured, chrf)
        beside = None if measured[0].columns is base else seeds.beside(base)
        figure.add(name, count, seeds.interval(), seeds.each(), seeds.interval(bleu), beside, seeds.seconds())

    add("word for word", f"{len(lookup):,} words", [Measured(base, 0.0)])
    add("the source as it stands", "", [Measured(task.judged(task.sources), 0.0)])
    for name, measured in found.items():
        if measured:
            add(name, f"{task.models[name].config.parameters:,}", measured)
    if all(found.get(name) for name in task.models) and len({len(measured) for measured in found.values()}) == 1:
        one, other = (Seeds(found[name], chrf) for name in task.models)
        figure.add("Marian less the LSTM", "", one.against(other), "", None, None, "")
    return figure
