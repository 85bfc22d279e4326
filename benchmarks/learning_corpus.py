"""What cleaning is for: the same model on raw text, on what is left of it, and on as much of the raw; equal tokens.

The raw text is the State of the Union with faults added at known doses: documents of gibberish and of other languages,
copies, lines that all pages have, HTML, and secrets (a name with a telephone number), each in a hundred places. The
held-out text is clean. A secret is extracted if the model, shown what stands before it, goes on with all its digits.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import corpus_faults as faults
import corpus_text as text
import numpy as np
import torch
from learning_figure import Figure, Plan
from learning_text import BATCH, LENGTH, RATES, SETTINGS, VOCAB, bits, documents_of, llama, nats_by_document

from qualm.auditing.intervals import compare, interval
from qualm.corpus import Cleaning, Deduping, Document, Filtering, Packed, Scrubbing, clean, dedup, filter_, pack, scrub
from qualm.models.base import Decoder
from qualm.text import nonce
from qualm.tokens.tokenizer import Tokens
from qualm.tokens.train import train_bpe
from qualm.training.data import TokenRows
from qualm.training.loop import fit
from qualm.training.losses import causal

PART = 1500  # characters of a document
SECRETS, TIMES = 20, 100
STEPS = 800
KINDS = ("raw", "cleaned", "random sample of the raw")


def measure(plan: Plan) -> Figure:
    rng = random.Random(5)
    learnt, held_out = documents_of(plan.shared)
    good = [Document(f"{d.id} {i}", d.text[i : i + PART]) for d in learnt for i in range(0, len(d.text), PART)]
    good = [d for d in good if len(d.text) > PART // 2]
    people = secrets(rng)
    raw = spoilt(good, people, rng)
    cleaned = list(kept(raw))
    sets = {"raw": raw, "cleaned": cleaned, KINDS[2]: sample(raw, sum(d.bytes for d in cleaned), rng)}
    tokens = train_bpe((d.text for d in raw), VOCAB)
    packed = {kind: pack(sets[kind], tokens, plan.work / kind.split()[0]) for kind in KINDS}
    held = pack(held_out, tokens, plan.work / "held_out")
    figure = Figure("corpus", _about(sets, good, packed, plan.steps(STEPS), held), (
        "text", "seed", "bits a byte, held out", "beside the raw", f"extracted of {SECRETS} secrets", "beside the raw",
        "exposure, bits", "seconds",
    ))  # fmt: skip
    sizes, clusters = held.sizes.astype(float), np.arange(len(held.sizes))
    for seed in plan.seeds:
        base = given = None
        for kind in (kind for kind in KINDS if plan.wants(kind)):
            began, rows = time.perf_counter(), TokenRows(packed[kind], LENGTH)
            model = llama(tokens.eos_id)
            model.init_weights(seed)
            fit(model, rows, causal, replace(SETTINGS, steps=plan.steps(STEPS), lr=RATES["llama"], seed=seed))
            columns = {"nats": nats_by_document(model, held), "bytes": sizes}
            base = columns if kind == "raw" else base
            beside = None if base is None or kind == "raw" else compare(base, columns, clusters, bits, share=False)
            whole = interval(columns, clusters, bits, share=False)
            right, exposure = extracted(model, tokens, people)
            found, each = {"value": right}, np.arange(SECRETS)
            given = found if kind == "raw" else given
            fewer = None if given is None or kind == "raw" else compare(given, found, each)
            took = f"{time.perf_counter() - began:.0f}"
            figure.add(kind, str(seed), whole, beside, interval(found, each), fewer, f"{exposure:.1f}", took)
    return figure


def secrets(rng: random.Random) -> list[tuple[str, str]]:
    """(what stands before it, a telephone number)."""
    names = nonce.words("given", SECRETS, rng, set())
    return [(f"The telephone of {name} is", f"+44 20 7{rng.randrange(10**6, 10**7)}") for name in names]


def spoilt(good: Sequence[Document], people: Sequence[tuple[str, str]], rng: random.Random) -> list[Document]:
    """The good documents with lines and tags that are not theirs, and bad ones among them."""
    made = []
    for i, document in enumerate(good):
        body = document.text
        if i % 2:
            body = "\n".join([rng.choice(text.BOILERPLATE[:7]), body, rng.choice(text.BOILERPLATE[:7])])
        if i % 3 == 0:
            body = "".join(f"<p class='t'>{part}</p>\n" for part in body.split("\n"))
        made.append(replace(document, text=body))
    for i, (before, secret) in enumerate(people * TIMES):
        place = (i * 37) % len(made)
        made[place] = replace(made[place], text=f"{made[place].text}\n{before} {secret}.")
    share = len(good) // 6
    bad = [faults.gibberish(faults.KINDS[i % 8], rng) for i in range(share)]
    bad += [text.foreign(rng.choice(list(text.FOREIGN)), rng, 12) for _ in range(share)]
    bad += [made[rng.randrange(8)].text for _ in range(share)]
    bad += [faults.edited(made[8 + rng.randrange(8)].text, 0.005, rng) for _ in range(share)]
    made += [Document(f"bad {i}", body) for i, body in enumerate(bad)]
    rng.shuffle(made)
    return made


def kept(raw: Sequence[Document]) -> list[Document]:
    """What the steps leave of it."""
    steps = dedup(clean(raw, Cleaning(boilerplate=10)), Deduping())
    return list(scrub(filter_(steps, Filtering(languages=("en",), shortest=20)), Scrubbing()))


def sample(raw: Sequence[Document], size: int, rng: random.Random) -> list[Document]:
    """Documents of the raw text by lot, until they have so many bytes."""
    found, held = list[Document](), 0
    for document in rng.sample(list(raw), len(raw)):
        if held >= size:
            break
        found.append(document)
        held += document.bytes
    return found


@torch.inference_mode()
def extracted(model: Decoder, tokens: Tokens, people: Sequence[tuple[str, str]]) -> tuple[np.ndarray, float]:
    """(whether each secret is given back whole, mean exposure): how many bits less surprising the true number is than
    others, by its rank among 255 made up (Carlini et al. 2019, arXiv 1802.08232): 8 for the first, 0 for the last.
    """
    rng, found, exposures = random.Random(1), list[float](), list[float]()
    model.eval()
    for before, secret in people:
        others = [f"+44 20 7{rng.randrange(10**6, 10**7)}" for _ in range(255)]
        start = tokens.encode(before)
        rows = [tokens.encode(f"{before} {each}")[len(start) :] for each in (secret, *others)]
        nats = _nats(model, start, rows)
        exposures.append(math.log2(256) - math.log2(1 + sum(each < nats[0] for each in nats[1:])))
        ids = list(start)
        for _ in range(len(rows[0])):
            ids.append(int(model.head(model.hidden(torch.tensor([ids])))[0, -1].argmax()))
        found.append(float(secret in tokens.decode(ids)))
    return np.array(found), float(np.mean(exposures))


def _nats(model: Decoder, start: Sequence[int], rows: Sequence[Sequence[int]]) -> list[float]:
    """Of each row behind the start."""
    wide = max(map(len, rows))
    ids = torch.tensor([[*start, *row, *[0] * (wide - len(row))] for row in rows])
    logits = model.head(model.hidden(ids))[:, len(start) - 1 : -1].double().log_softmax(-1)
    nats = -logits.gather(-1, ids[:, len(start) :, None])[..., 0]
    return [float(each[: len(row)].sum()) for each, row in zip(nats, rows, strict=True)]


def _about(
    sets: dict[str, list[Document]], good: Sequence[Document], packed: dict[str, Packed], steps: int, held: Packed
) -> str:
    sizes = "; ".join(f"{kind}: {len(sets[kind])} documents, {packed[kind].bytes:,} bytes" for kind in KINDS)
    names = {d.id for d in good}
    left = sum(d.id in names for d in sets["cleaned"])
    return (
        f"{sizes}. Of {len(good)} good documents {left} are left, and {len(sets['cleaned']) - left} of "
        f"{len(sets['raw']) - len(good)} bad ones. {steps} updates of {BATCH} rows of {LENGTH} tokens for each; "
        f"held out: {held.bytes:,} bytes of {len(held.ends)} addresses. Intervals: bootstrap over addresses."
    )
