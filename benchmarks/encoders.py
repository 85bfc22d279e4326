"""Vectors and pseudo-likelihoods beside transformers: `python benchmarks/encoders.py MODEL TEXTS` (a line a text).

Both sides read the same lines with the same weights, by turns, in one thread, in processor seconds. transformers' side
is what sentence-transformers does (batches of 32, sorted by length, mean pooling), and a batch of masked copies a text.
Pseudo-likelihoods are those of a masked head with random weights put on MODEL's shape.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import qualm
from qualm.lm.encoder import EncoderLM

ROUNDS, BATCH, SCORED = 3, 32, 48


def embed(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found: dict[int, np.ndarray] = {}
    for at in range(0, len(order), BATCH):
        some = order[at : at + BATCH]
        batch = tokenizer([texts[i] for i in some], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None].float()
        mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        found |= dict(zip(some, torch.nn.functional.normalize(mean, dim=1).numpy(), strict=True))
    return np.stack([found[i] for i in range(len(texts))])


def score(model: Any, tokenizer: Any, texts: list[str]) -> list[float]:
    found = []
    for text in texts:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        at = torch.arange(1, len(ids) - 1)
        rows = ids.repeat(len(at), 1)
        rows[torch.arange(len(at)), at] = tokenizer.mask_token_id
        logits = model(rows).logits[torch.arange(len(at)), at]
        found.append(float(logits.log_softmax(-1).gather(1, ids[at][:, None]).sum()))
    return found


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def beside(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    for _ in range(ROUNDS):
        (a, mine), (b, other) = seconds(ours), seconds(theirs)
        apart = np.abs(np.array(mine) - np.array(other)).max()
        print(f"{name}: {a:.2f} s, transformers {b:.2f} s, largest difference {apart:.1e}")


@torch.inference_mode()
def main(spec: str, path: str) -> None:
    torch.set_num_threads(1)
    texts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()][:384]
    lm: Any = qualm.load(spec)
    config = replace(lm.model.config, head="masked", id2label=None, num_labels=0)
    masked: Any = EncoderLM(type(lm.model)(config), lm.tokens)
    with tempfile.TemporaryDirectory() as folder:
        lm.save(f"{folder}/plain")
        masked.save(f"{folder}/masked")
        tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/plain")
        plain = transformers.AutoModel.from_pretrained(f"{folder}/plain").eval()
        headed = transformers.AutoModelForMaskedLM.from_pretrained(f"{folder}/masked").eval()
    beside(f"vectors of {len(texts)} texts", lambda: lm.embed(texts), lambda: embed(plain, tokenizer, texts))
    few = texts[:SCORED]
    ours = lambda: [s.total for s in masked.score([("", text) for text in few])]  # noqa: E731
    beside(f"pseudo-likelihoods of {SCORED} texts", ours, lambda: score(headed, tokenizer, few))


if __name__ == "__main__":
    main(*sys.argv[1:])
