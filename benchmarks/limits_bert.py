"""What limits a BERT: direction, places filled independently, and the cost of scoring. Measured against a GPT.

    python benchmarks/limits_bert.py

Two models of the same depth and width are trained on the same text for as many steps. `Pairs` are rows of random words
in which two places belong together: knowing one tells the other. `Prose` is text of the planted world; what is asked
for is in rows that neither was trained on. About two minutes of one core.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qualm.models.base import Model
from qualm.models.bert import Bert, BertConfig
from qualm.models.gpt import Gpt, GptConfig
from qualm.models.store import parameters
from qualm.tokens.train import train_bpe
from qualm.world.base import World

DEPTH, BATCH, RATE, SEED = 2, 64, 3e-3, 0
MASKED = 0.15  # of the places, as in Devlin et al. 2018; all of them by the mask
KINDS, FILLERS, LENGTH = 16, 32, 16  # of the pairs' rows
FIRST, SECOND = 4, 11  # where a pair's words stand
MASK, WORDS = 0, 1  # ids: the mask, and where the words begin
ROW, PLACE = 32, 16  # tokens of a row of prose, and which of them is asked for
Draw = Callable[[torch.Generator], Tensor]  # a batch of rows


@dataclass(frozen=True)
class Two:
    """A BERT and a GPT of one size, taught the same rows."""

    bert: Bert
    gpt: Gpt
    mask: int

    def masked(self, rows: Tensor, *places: int) -> Tensor:
        """Log-probabilities (B, T, V) by BERT of rows in which these places are masked."""
        hidden = rows.clone()
        hidden[:, list(places)] = self.mask
        return self.bert(hidden).log_softmax(-1)

    def next(self, rows: Tensor, place: int) -> Tensor:
        """Log-probabilities (B, V) by GPT of what stands at a place, given what stands before it."""
        return self.gpt(rows[:, :place])[:, -1].log_softmax(-1)


def taught(vocab: int, length: int, steps: int, draw: Draw, mask: int) -> Two:
    bert = Bert(BertConfig.sized(DEPTH, vocab, length))
    gpt = Gpt(GptConfig.sized(DEPTH, vocab, length))
    for name, model, loss in (("BERT", bert, masked_loss), ("GPT", gpt, next_loss)):
        began = time.perf_counter()
        last = train(model, loss, draw, steps, mask)
        seconds = time.perf_counter() - began
        print(f"  {name}: {parameters(model):,} weights, {steps} steps, {seconds:.0f} s, loss {last:.2f} nats")
    return Two(bert.eval(), gpt.eval(), mask)


def train(model: Model, loss: Callable[..., Tensor], draw: Draw, steps: int, mask: int) -> float:
    source, values = torch.Generator().manual_seed(SEED), []
    optimiser = torch.optim.AdamW(model.train().parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        value = loss(model, draw(source), source, mask)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        values.append(value.item())
    return sum(values[-50:]) / 50


def masked_loss(model: Model, rows: Tensor, source: torch.Generator, mask: int) -> Tensor:
    chosen = torch.rand(rows.shape, generator=source) < MASKED
    return F.cross_entropy(model(rows.masked_fill(chosen, mask))[chosen], rows[chosen])


def next_loss(model: Model, rows: Tensor, source: torch.Generator, mask: int) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def draw_pairs(source: torch.Generator, count: int = BATCH) -> Tensor:
    """Rows (B, LENGTH) of random words; at FIRST a word of 16, at SECOND the one of 16 others that belongs to it."""
    rows = torch.randint(WORDS + 2 * KINDS, WORDS + 2 * KINDS + FILLERS, (count, LENGTH), generator=source)
    kind = torch.randint(KINDS, (count,), generator=source)
    rows[:, FIRST] = WORDS + kind
    rows[:, SECOND] = WORDS + KINDS + (7 * kind + 3) % KINDS
    return rows


def belong(first: Tensor, second: Tensor) -> float:
    """The part of the pairs of words that belong together."""
    return (WORDS + KINDS + (7 * (first - WORDS) + 3) % KINDS == second).float().mean().item()


def right(logits: Tensor, wanted: Tensor) -> float:
    return (logits.argmax(-1) == wanted).float().mean().item()


@torch.no_grad()
def pairs() -> None:
    print(f"Pairs: {LENGTH} words a row; the words at {FIRST} and {SECOND} tell each other, one of {KINDS}")
    with torch.enable_grad():
        two = taught(WORDS + 2 * KINDS + FILLERS, LENGTH, 900, draw_pairs, MASK)
    source = torch.Generator().manual_seed(SEED + 1)
    rows = draw_pairs(source, 2000)
    first, second = rows[:, FIRST], rows[:, SECOND]
    told = {
        "evidence to its left": (
            right(two.masked(rows, SECOND)[:, SECOND], second),
            right(two.next(rows, SECOND), second),
        ),
        "evidence to its right": (right(two.masked(rows, FIRST)[:, FIRST], first), right(two.next(rows, FIRST), first)),
    }
    for what, (bert, gpt) in told.items():
        print(f"  word found, {what}: BERT {bert:.3f}, GPT {gpt:.3f}")
    at_once = two.masked(rows, FIRST, SECOND)
    one, other = drawn(at_once[:, FIRST], source), drawn(at_once[:, SECOND], source)
    print(f"  both masked, drawn at once: BERT's words belong together in {belong(one, other):.3f}")
    filled = rows.clone()
    filled[:, FIRST] = one
    print(f"  drawn one after the other: {belong(one, drawn(two.masked(filled, SECOND)[:, SECOND], source)):.3f}")
    filled[:, FIRST] = one = drawn(two.next(rows, FIRST), source)
    print(f"  written by GPT: {belong(one, drawn(two.next(filled, SECOND), source)):.3f}")


def drawn(logits: Tensor, source: torch.Generator) -> Tensor:
    return torch.multinomial(logits.exp(), 1, generator=source)[:, 0]


def prose_rows(tokens: Any, texts: list[str]) -> Tensor:
    ids = [i for text in texts for i in tokens.encode(text + "\n")]
    return torch.tensor(ids[: len(ids) // ROW * ROW]).view(-1, ROW)


@torch.no_grad()
def prose() -> None:
    world = World(documents=6000)
    texts = [row["text"] for row in world.write_documents() if "text" in row]
    tokens = train_bpe(texts, 1024, ["[MASK]"])
    mask = tokens.special["[MASK]"]
    rows = prose_rows(tokens, texts)
    fresh = prose_rows(tokens, [row["text"] for row in world.write_documents(seed=1, count=6000) if "text" in row])[
        :2000
    ]
    print(f"Prose: {rows.numel():,} tokens of the planted world in rows of {ROW}; {len(fresh)} fresh rows")

    def draw(source: torch.Generator) -> Tensor:
        return rows[torch.randint(len(rows), (BATCH,), generator=source)]

    with torch.enable_grad():
        two = taught(tokens.vocab_size, ROW, 900, draw, mask)
    wanted = fresh[:, PLACE]
    for what, logits in (
        ("BERT, text on both sides", two.masked(fresh, PLACE)[:, PLACE]),
        ("BERT, nothing to the right", two.masked(fresh[:, : PLACE + 1], PLACE)[:, PLACE]),
        ("GPT, nothing to the right", two.next(fresh, PLACE)),
    ):
        nats = F.nll_loss(logits, wanted).item()
        print(f"  token {PLACE} of {ROW}: {what}: {right(logits, wanted):.3f} right, {nats:.2f} nats")
    cost(two, fresh[:64])


def cost(two: Two, rows: Tensor) -> None:
    """Seconds and floating point operations to score each row: masking every place by turns, or reading it once."""
    places = torch.arange(ROW)
    began = time.perf_counter()
    for row in rows:
        turned = row.repeat(ROW, 1)
        turned[places, places] = two.mask
        two.bert(turned)[places, places].log_softmax(-1)
    bert = time.perf_counter() - began
    began = time.perf_counter()
    for row in rows:
        two.gpt(row[None]).log_softmax(-1)
    gpt = time.perf_counter() - began
    flops = ROW * two.bert.config.flops(ROW) / two.gpt.config.flops(ROW)
    print(f"  a score of {ROW} tokens: BERT {1000 * bert / len(rows):.1f} ms, GPT {1000 * gpt / len(rows):.1f} ms")
    print(f"  {bert / gpt:.0f} times the seconds, {flops:.0f} times the operations")


if __name__ == "__main__":
    began = time.perf_counter()
    pairs()
    prose()
    print(f"{time.perf_counter() - began:.0f} s in all")
