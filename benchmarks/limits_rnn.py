"""How far back does a recurrent model remember, and how far back does its gradient reach?

    python benchmarks/limits_rnn.py [seeds]

The task: one of 8 symbols, then `distance` tokens of noise, then a question; the answer is the symbol. A model of one
layer of 32 units is trained for 300 steps of 32 rows on one distance alone, and asked at that distance; and another on
distances from 1 to 64, the logarithm being uniform, and asked at all of them.
The gradient is that of the loss at the question with respect to the symbol's embedding, its norm averaged over 256
rows; the target is drawn at random, so that a model that is sure of itself has a gradient too.

Weights start as the models have them; "elman, uniform" starts the weights from state to state as torch has them.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models.rnn import Rnn, RnnConfig

SYMBOLS, NOISE, WIDTH = 8, 8, 32
QUESTION = SYMBOLS + NOISE
ASKED = (1, 4, 8, 16, 32, 64)
HEADS = (
    "gradient at the start",
    "gradient after training on all distances",
    "accuracy after training on that distance alone",
    "accuracy after training on all distances",
)
UNIFORM = ", uniform"
SUBJECTS = (f"elman{UNIFORM}", "elman", "gru", "lstm")
STEPS, ROWS, RATE = 300, 32, 5e-3


def texts(rows: int, distance: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids (rows, distance + 2), the symbol first and the question last, and the symbols (rows,)."""
    ids = torch.randint(SYMBOLS, SYMBOLS + NOISE, (rows, distance + 2), generator=source)
    ids[:, 0] = torch.randint(0, SYMBOLS, (rows,), generator=source)
    ids[:, -1] = QUESTION
    return ids, ids[:, 0].clone()


def answers(model: Rnn, ids: Tensor) -> Tensor:
    """Logits of the symbols (B, SYMBOLS) at the question."""
    return model.head(model.hidden(ids)[:, -1])[:, :SYMBOLS]


def trained(cell: str, seed: int, distance: int = 0) -> Rnn:
    """A model that was trained on this distance, 0: on all, short ones more often."""
    model, source = untrained(cell, seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(STEPS):
        drawn = distance or round(ASKED[-1] ** float(torch.rand((), generator=source)))
        ids, symbols = texts(ROWS, drawn, source)
        loss = F.cross_entropy(answers(model, ids), symbols)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model


def untrained(cell: str, seed: int) -> Rnn:
    model = Rnn(RnnConfig(QUESTION + 1, WIDTH, 1, cell.removesuffix(UNIFORM)))
    model.init_weights(seed)
    if cell.endswith(UNIFORM):
        source = torch.Generator().manual_seed(seed)
        nn.init.uniform_(model.rnn.weight_hh_l0, -(WIDTH**-0.5), WIDTH**-0.5, source)
    return model


@torch.no_grad()
def accuracy(model: Rnn, distance: int, source: torch.Generator) -> float:
    ids, symbols = texts(256, distance, source)
    return float((answers(model, ids).argmax(-1) == symbols).float().mean())


def gradient(model: Rnn, distance: int, source: torch.Generator) -> float:
    """Norm of the gradient at the symbol's embedding, the mean over rows."""
    ids, symbols = texts(256, distance, source)
    target = symbols[torch.randperm(len(symbols), generator=source)]
    x = model.embed_tokens(ids).detach().requires_grad_()
    out, _ = model.rnn(x, model.rnn.empty(len(ids)))
    logits = model.head(model.projection(out[:, -1]))[:, :SYMBOLS]
    F.cross_entropy(logits, target, reduction="sum").backward()
    assert x.grad is not None
    return float(x.grad[:, 0].norm(dim=-1).mean())


def measured(cell: str, seed: int) -> Tensor:
    """A row for each of HEADS, (4, distances)."""
    source = torch.Generator().manual_seed(seed + 1)
    start, mixed = untrained(cell, seed), trained(cell, seed)
    alone = [trained(cell, seed, distance) for distance in ASKED]
    rows = [
        [gradient(start, distance, source) for distance in ASKED],
        [gradient(mixed, distance, source) for distance in ASKED],
        [accuracy(model, distance, source) for model, distance in zip(alone, ASKED, strict=True)],
        [accuracy(mixed, distance, source) for distance in ASKED],
    ]
    return torch.tensor(rows)


def main(seeds: int) -> None:
    began = time.perf_counter()
    found = {cell: torch.stack([measured(cell, seed) for seed in range(seeds)]) for cell in SUBJECTS}
    for kind, head in enumerate(HEADS):
        print(f"\n| {head}: distance | {' | '.join(map(str, ASKED))} |\n|---|{'---|' * len(ASKED)}")
        for cell, values in found.items():
            middle = values[:, kind].median(0).values.tolist()
            words = [f"{v:.2f}" if "accuracy" in head else f"{v:.0e}" for v in middle]
            print(f"| {cell} | {' | '.join(words)} |")
    print(f"\nMedian of {seeds} seeds; {time.perf_counter() - began:.0f} s, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
