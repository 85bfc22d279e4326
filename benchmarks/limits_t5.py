"""What limits a T5: sources longer than those it was taught on, and what the encoder costs an answer.

    python benchmarks/limits_t5.py

`Length`: tiny models learn to copy, or to turn round, rows of up to LENGTH random symbols, and are then asked for rows
of up to three times that. Attention knows only how far apart two symbols stand, so nothing breaks by itself. `reach` is
relative_attention_max_distance: distances beyond it share one bucket; of those between LENGTH and it, some have a
bucket of their own, which nothing was learnt for. `Cost`: reading a text and writing ANSWER tokens under it, beside a
Llama of as many weights that reads and goes on; processor time of one thread, the best of REPEATS. About two minutes.
"""

import itertools
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.lm.base import Sampling
from qualm.lm.decode import steps
from qualm.lm.search import greedy
from qualm.models._caches import Cache
from qualm.models.llama import Llama, LlamaConfig
from qualm.models.store import parameters
from qualm.models.t5 import T5, T5Config

SYMBOLS, LENGTH, START, END, NONE = 16, 10, 0, 1, -100
ASKED, ROWS = (4, 8, 10, 11, 12, 15, 20, 30), 200
BUCKETS, REACHES = 16, (128, 10)
BATCH, RATE, STEPS = 32, 3e-3, 1200
DEPTH, VOCAB, ANSWER, REPEATS = 6, 2000, 32, 5
SOURCES = (32, 128, 512)
Task = Callable[[Tensor], Tensor]
TASKS: dict[str, Task] = {"copy": lambda row: row, "turn round": lambda row: row.flip(0)}


def drawn(lengths: Tensor, task: Task, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sources and what is to be written (B, T + 1), rows of these lengths closed by END; NONE beyond it."""
    ids = torch.randint(2, 2 + SYMBOLS, (len(lengths), int(lengths.max()) + 1), generator=source)
    written = ids.clone()
    for i, length in enumerate(lengths.tolist()):
        written[i, :length] = task(ids[i, :length])
        ids[i, length] = written[i, length] = END
        written[i, length + 1 :] = NONE
    return ids, written


def taught(task: Task, reach: int) -> T5:
    attention = {"relative_attention_num_buckets": BUCKETS, "relative_attention_max_distance": reach}
    model = T5(T5Config.sized(2, 2 + SYMBOLS, LENGTH, dropout_rate=0.0, **attention))
    source = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        lengths = torch.randint(1, LENGTH + 1, (BATCH,), generator=source)
        ids, wanted = drawn(lengths, task, source)
        shown = F.pad(wanted[:, :-1].clamp(min=0), (1, 0), value=START)
        loss = F.cross_entropy(model(ids, shown, lengths + 1).flatten(0, 1), wanted.flatten(), ignore_index=NONE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def asked(model: T5, task: Task, length: int) -> tuple[float, float, float]:
    """Of rows of this length: the part written right whole, the part of symbols right, and how many are written."""
    ids, wanted = drawn(torch.full((ROWS,), length), task, torch.Generator().manual_seed(1))
    begun = [[START]] * ROWS
    new = itertools.islice(steps(model, begun, model.encode(ids), greedy(begun)), 2 * length + 2)
    written = torch.tensor([[move.written[0].token for move in each] for each in new]).T  # (ROWS, 2 * length + 2)
    right = written[:, : length + 1] == wanted
    ended = F.pad(written == END, (0, 1), value=True).int().argmax(1)
    return right.all(1).float().mean().item(), right[:, :length].float().mean().item(), ended.float().mean().item()


def length_told() -> None:
    print(f"Length: rows of 1 to {LENGTH} of {SYMBOLS} symbols, {STEPS} steps of {BATCH}; {ROWS} rows of each length")
    for (name, task), reach in itertools.product(TASKS.items(), REACHES):
        began = time.process_time()
        model = taught(task, reach)
        told = f"{parameters(model):,} weights, {time.process_time() - began:.0f} s"
        print(f"\n  {name}, reach {reach} ({told})\n  symbols        " + "".join(f"{n:7d}" for n in ASKED))
        whole, single, written = zip(*(asked(model, task, n) for n in ASKED), strict=True)
        print("  rows right     " + "".join(f"{value:7.1%}" for value in whole))
        print("  symbols right  " + "".join(f"{value:7.1%}" for value in single))
        print("  symbols written" + "".join(f"{value:7.1f}" for value in written), flush=True)


def best(run: Callable[[], object]) -> float:
    """Processor milliseconds of the fastest of REPEATS runs."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return 1e3 * min(seconds)


def write(model: T5 | Llama, prompt: Sequence[int], cache: Cache) -> None:
    for _ in itertools.islice(steps(model, [prompt], Sampling(), set(), cache), ANSWER):
        pass


@torch.inference_mode()
def cost_told() -> None:
    t5 = T5(T5Config.sized(DEPTH, VOCAB, max(SOURCES))).eval()
    depths = {abs(LlamaConfig.sized(d, VOCAB, 64).parameters - parameters(t5)): d for d in range(1, 2 * DEPTH)}
    llama = Llama(LlamaConfig.sized(depths[min(depths)], VOCAB, max(SOURCES))).eval()
    print(f"\nCost: T5 of {parameters(t5):,} weights, Llama of {parameters(llama):,}; {ANSWER} tokens written")
    print("  source     T5 reads  T5 writes    in all   Llama reads  Llama writes    in all   operations T5 / Llama")
    for source in SOURCES:
        print(f"  {source:6d}  {cost_of(t5, llama, source)}")


def cost_of(t5: T5, llama: Llama, source: int) -> str:
    ids = torch.randint(2, VOCAB, (1, source), generator=torch.Generator().manual_seed(0))
    read = best(lambda: t5.encode(ids, room=ANSWER))
    whole = best(lambda: write(t5, [START], t5.encode(ids, room=ANSWER)))
    read_on = best(lambda: llama.hidden(ids, llama.new_cache(1, source + ANSWER)))
    whole_on = best(lambda: write(llama, ids[0].tolist(), llama.new_cache(1, source + ANSWER)))
    spent = [read, whole - read, whole, read_on, whole_on - read_on, whole_on]
    share = t5.config.flops(ANSWER, source) / llama.config.flops(source + ANSWER)
    return " ".join(f"{value:8.1f} ms" for value in spent) + f"{share:10.2f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    length_told()
    cost_told()
