"""Is torch's speed kept? Our recurrent models and torch's own layers of the same sizes, turn by turn in one run.

    python benchmarks/recurrent.py [turns]

Both sides are a whole language model with the same weights: a tied table of 2,000 tokens, layers, softmax. A training
step is forward, loss, backward and Adam over 16 rows of 128 tokens; a forward pass reads the same rows; a written
token is one step for 16 rows, or for 1, from a state. Each figure is the median over the turns, and a ratio above 1
says that ours is the faster. Within a turn each side goes first every other time. With one thread (OMP_NUM_THREADS=1)
processor time is read, in which what else runs on the machine counts less; with more, time on the wall.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._recurrent import CELLS
from qualm.models.rnn import Rnn, RnnConfig

TORCHS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
VOCAB, LAYERS, ROWS, LENGTH = 2000, 2, 16, 128


class Theirs(nn.Module):
    """torch's layers between the same table and head."""

    def __init__(self, ours: Rnn):
        super().__init__()
        c = ours.config
        self.table = nn.Embedding(c.vocab_size, c.embedding_size)
        self.rnn = TORCHS[c.cell](c.embedding_size, c.hidden_size, c.layers, batch_first=True)
        self.rnn.load_state_dict(ours.rnn.state_dict())
        self.table.weight.data.copy_(ours.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.rnn(self.table(ids))[0], self.table.weight)


def training(model: nn.Module, ids: Tensor) -> Callable[[], object]:
    optimiser = torch.optim.Adam(model.parameters(), 1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def reading(model: nn.Module, ids: Tensor) -> Callable[[], object]:
    model.eval()
    return torch.inference_mode()(lambda: model(ids))


def writing(ours: Rnn, theirs: Theirs, ids: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """One more token after a state, for both."""
    ours.eval()
    theirs.eval()
    one, cache = ids[:, :1], ours.new_cache(len(ids), 0)
    with torch.inference_mode():
        ours(ids, cache)
        _, state = theirs.rnn(theirs.table(ids))
    after = torch.inference_mode()(lambda: F.linear(theirs.rnn(theirs.table(one), state)[0], theirs.table.weight))
    return torch.inference_mode()(lambda: ours(one, cache)), after


def compare(ours: Callable[[], object], theirs: Callable[[], object], turns: int) -> tuple[float, float]:
    """Median seconds of each."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for turn in range(turns + 2):
        for act in (ours, theirs) if turn % 2 else (theirs, ours):
            began = clock()
            act()
            if turn > 1:  # two to warm up
                taken[act].append(clock() - began)
    return statistics.median(taken[ours]), statistics.median(taken[theirs])


def measured(cell: str, width: int, turns: int) -> Iterator[tuple[str, float, float]]:
    """What was done, and seconds of ours and of torch's."""
    ours = Rnn(RnnConfig(VOCAB, width, LAYERS, cell))
    theirs, ids = Theirs(ours), torch.randint(0, VOCAB, (ROWS, LENGTH + 1))
    torch.testing.assert_close(ours(ids), theirs(ids), atol=1e-5, rtol=0)
    yield "training step", *compare(training(ours, ids), training(theirs, ids), turns)
    yield "forward pass", *compare(reading(ours, ids), reading(theirs, ids), turns)
    yield "written token", *compare(*writing(ours, theirs, ids), 10 * turns)
    yield "the same, 1 row", *compare(*writing(ours, theirs, ids[:1]), 10 * turns)


def main(turns: int) -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {turns} turns; milliseconds, median")
    print(f"{'cell':6} {'width':>5}  {'what':15} {'ours':>8} {'torch':>8}  torch / ours")
    for cell in CELLS:
        for width in (128, 256):
            for name, mine, other in measured(cell, width, turns):
                print(f"{cell:6} {width:5}  {name:15} {1e3 * mine:8.2f} {1e3 * other:8.2f}  {other / mine:5.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
