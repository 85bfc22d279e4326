"""What limits a decoder: its context, and how far its windows reach.

    python benchmarks/limits_llama.py [context | windows]

Text: the modules of Python's standard library, a tenth of them held out; 512 tokens learnt from the rest. Models of 3
layers and 96 channels are trained on rows of 64 tokens, and then read held-out rows of 1024 tokens from their start:
bits a byte by position. The scalings are put on the trained rotary model as it is, with factor 16. "In windows" is the
same model and the same tokens, of which it is shown the last 32 to 64 only.

Copy: one of 8 symbols, then `distance` tokens of noise, then a question; the answer is the symbol. Models of two layers
are trained on distances from 1 to 63, with and without a window of 16 tokens.
"""

import hashlib
import math
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.models.base import Decoder
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.llama import Llama, LlamaConfig
from qualm.tokens.train import train_bpe

DEPTH, TRAINED, READ, ROWS = 3, 64, 1024, 8
BINS = (0, 16, 32, 48, 64, 80, 96, 128, 256, 512, 1024)
FACTOR = READ / TRAINED
SCALINGS: Mapping[str, dict[str, Any] | None] = {
    "rotary, no scaling": None,
    "rotary, linear": {"rope_type": "linear", "factor": FACTOR},
    "rotary, dynamic": {"rope_type": "dynamic", "factor": FACTOR},
    "rotary, yarn": {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": TRAINED},
}
SYMBOLS, NOISE, WINDOW, ASKED = 8, 8, 16, (1, 8, 14, 15, 16, 22, 29, 30, 31, 40, 60)
Batch = Callable[[torch.Generator], tuple[Tensor, Tensor]]  # ids (B, T), and what follows each: -100 is not asked


def train(model: Any, batch: Batch, steps: int, rate: float) -> float:
    """Train in place by AdamW, the rate rising over a tenth of the steps and falling to 0; returns seconds."""
    source, began = torch.Generator().manual_seed(0), time.perf_counter()
    optimiser = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.95))
    model.train()
    for step in range(steps):
        ids, targets = batch(source)
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / (0.1 * steps)) * (1 - step / steps)
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    return time.perf_counter() - began


# -- context


def library() -> tuple[list[str], list[str]]:
    """Texts to learn from and texts held out, by the hash of a module's name."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    held = {file for file in files if hashlib.sha256(file.name.encode()).digest()[0] < 26}
    return [f.read_text() for f in files if f not in held], [f.read_text() for f in sorted(held)]


@torch.no_grad()
def nats(model: Any, rows: Tensor) -> Tensor:
    """Nats of each token after the first, (B, T - 1)."""
    parts = [F.cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none") for ids in rows.split(2)]
    return torch.cat(parts)


def nats_in_windows(model: Any, rows: Tensor) -> Tensor:
    """The same by windows of TRAINED tokens, half overlapping: all but the first 32 are read after 32 to 63 others."""
    half = TRAINED // 2
    found = [nats(model, rows[:, : TRAINED + 1])]
    for start in range(half, rows.shape[1] - TRAINED, half):
        found.append(nats(model, rows[:, start : start + TRAINED + 1])[:, half:])
    return torch.cat(found, 1)


def line(label: str, found: Tensor, bytes_per_token: float) -> None:
    """Bits a byte of the tokens of each of BINS; a position is that of the token read last. "-": beyond the table."""
    means = [float(found[:, a:b].mean()) / math.log(2) / bytes_per_token for a, b in pairwise(BINS)]
    print(f"| {label} | " + " | ".join("-" if value != value else f"{value:.2f}" for value in means) + " |")


def context(steps: int = 1000) -> None:
    train_texts, held_texts = library()
    tokens = train_bpe(train_texts, 512)
    ids = torch.tensor([i for text in train_texts for i in tokens.encode(text)])
    held = [torch.tensor(tokens.encode(text)) for text in held_texts]
    rows = torch.cat([text[: len(text) // (READ + 1) * (READ + 1)].view(-1, READ + 1) for text in held])[::4][:48]
    per_token = sum(len(text.encode()) for text in held_texts) / sum(map(len, held))
    print(f"{len(train_texts)} modules, {len(ids):,} tokens; {len(rows)} rows of {READ}; {per_token:.2f} bytes a token")

    def batch(source: torch.Generator) -> tuple[Tensor, Tensor]:
        starts = torch.randint(0, len(ids) - TRAINED, (ROWS,), generator=source)
        cut = ids[starts[:, None] + torch.arange(TRAINED + 1)]
        return cut[:, :-1], cut[:, 1:]

    shape = (DEPTH, tokens.vocab_size, TRAINED)
    subjects = {
        "learned": Gpt(GptConfig.sized(*shape)),
        "rotary": Llama(replace(LlamaConfig.sized(*shape), max_position_embeddings=TRAINED)),
        "rotary in 2 of 3": Llama(LlamaConfig.sized(*shape, model_type="smollm3", no_rope_layer_interval=3)),
        "rotary, window 16": Llama(LlamaConfig.sized(*shape, model_type="mistral", sliding_window=WINDOW)),
    }
    print("| positions | " + " | ".join(f"{a}-{b - 1}" for a, b in pairwise(BINS)) + " |")
    for name, model in subjects.items():
        seconds = train(model, batch, steps, 3e-3)
        print(f"trained {name}: {model.config.parameters:,} weights, {steps} steps, {seconds:.0f} s", file=sys.stderr)
        for label, subject in as_scaled(name, model).items():
            line(label, nats(subject, rows[:, : TRAINED + 1] if name == "learned" else rows), per_token)
        line(f"{name}, in windows", nats_in_windows(model, rows), per_token)


def as_scaled(name: str, model: Any) -> dict[str, Decoder]:
    """The model under each scaling, with the same weights; itself alone if it is not the plain rotary one."""
    if name != "rotary":
        return {name: model}
    found: dict[str, Decoder] = {}
    for label, scaling in SCALINGS.items():
        found[label] = Llama(replace(model.config, rope_scaling=scaling)).eval()
        found[label].load_state_dict(model.state_dict())
    return found


# -- windows


def texts(rows: int, distance: int, source: torch.Generator) -> Tensor:
    """Ids (rows, distance + 1): the symbol first, the question last."""
    ids = torch.randint(SYMBOLS, SYMBOLS + NOISE, (rows, distance + 1), generator=source)
    ids[:, 0] = torch.randint(0, SYMBOLS, (rows,), generator=source)
    ids[:, -1] = SYMBOLS + NOISE
    return ids


def copying(source: torch.Generator) -> tuple[Tensor, Tensor]:
    distance = int(torch.randint(1, 64, (), generator=source))
    ids = texts(32, distance, source)
    targets = torch.full_like(ids, -100)
    targets[:, -1] = ids[:, 0]
    return ids, targets


def windows(steps: int = 500) -> None:
    print("| distance | " + " | ".join(map(str, ASKED)) + " |")
    for window in (None, WINDOW):
        config = LlamaConfig(SYMBOLS + NOISE + 1, 64, 256, 2, 2, initializer_range=0.125)
        if window:
            config = replace(config, model_type="mistral", sliding_window=window)
        model = Llama(config)
        seconds = train(model, copying, steps, 2e-3)
        print(f"trained window {window}: {steps} steps, {seconds:.0f} s", file=sys.stderr)
        source, said, moved = torch.Generator().manual_seed(1), [], []
        with torch.no_grad():
            for distance in ASKED:
                ids = texts(512, distance, source)
                other = ids.clone()
                other[:, 0] = (ids[:, 0] + 1) % SYMBOLS
                logits, changed = model(ids)[:, -1], model(other)[:, -1]
                said.append(float((logits[:, :SYMBOLS].argmax(-1) == ids[:, 0]).float().mean()))
                moved.append(float((logits - changed).abs().max()))
        label = f"window {window}" if window else "no window"
        print(f"| right, {label} | " + " | ".join(f"{value:.2f}" for value in said) + " |")
        print(f"| moved, {label} | " + " | ".join(f"{value:.1f}" for value in moved) + " |")


if __name__ == "__main__":
    for part in (windows, context):
        if sys.argv[1:] in ([], [part.__name__]):
            part()
