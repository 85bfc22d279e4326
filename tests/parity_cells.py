"""Our recurrent layers beside torch.nn's with the same weights: the largest difference of outputs and of states."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from qualm.models._recurrent import Recurrent, State

ALLOWED = 1e-6
TORCH = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
INPUTS, WIDTH, TIME, LENGTHS = 12, 16, 20, (4, 20, 7)


@dataclass(frozen=True)
class Stack:
    cell: str
    layers: int = 1
    both: bool = False  # directions

    def __str__(self) -> str:
        return f"{self.cell}, {self.layers} layer{'s' * (self.layers > 1)}{', both ways' * self.both}"


STACKS = [Stack(cell, *shape) for cell in TORCH for shape in ((1,), (3,), (2, True))]


@torch.no_grad()
def measured_cells(stack: Stack) -> Mapping[str, float | None]:
    """At once by the fused kernel, step by step by our own equations, and over rows filled up on the right."""
    generator = torch.Generator().manual_seed(5)
    theirs = TORCH[stack.cell](INPUTS, WIDTH, stack.layers, batch_first=True, bidirectional=stack.both)
    for weight in theirs.parameters():
        weight.normal_(0, 0.2, generator=generator)
    ours = Recurrent(stack.cell, INPUTS, WIDTH, stack.layers, stack.both)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, TIME, INPUTS, generator=generator)
    start = tuple(torch.randn(s.shape, generator=generator) for s in ours.empty(3))
    given = start if len(start) > 1 else start[0]
    wanted = as_pair(*theirs(x, given))
    lengths = torch.tensor(LENGTHS)
    packed, after = theirs(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), given)
    padded = as_pair(pad_packed_sequence(packed, batch_first=True)[0], after)
    out, state = ours(x, start, lengths)
    out = out * (torch.arange(TIME) < lengths[:, None])[..., None]
    return {
        "outputs": apart(ours(x, start), wanted, 0),
        "states": apart(ours(x, start), wanted, 1),
        "outputs, step by step": None if stack.both else apart(by_steps(ours, x, start), wanted, 0),
        "states, step by step": None if stack.both else apart(by_steps(ours, x, start), wanted, 1),
        "outputs, padded": apart((out, state), padded, 0),
        "states, padded": apart((out, state), padded, 1),
    }


def by_steps(ours: Recurrent, x: Tensor, state: State) -> tuple[Tensor, State]:
    outputs = []
    for t in range(x.shape[1]):
        out, state = ours.step(x[:, t], state)
        outputs.append(out)
    return torch.stack(outputs, 1), state


def as_pair(out: Tensor, state: Tensor | State) -> tuple[Tensor, State]:
    return out, (state,) if isinstance(state, Tensor) else state


def apart(ours: tuple[Tensor, State], theirs: tuple[Tensor, State], which: int) -> float:
    pairs = zip(ours[1], theirs[1], strict=True) if which else [(ours[0], theirs[0])]
    return max((a - b).abs().max().item() for a, b in pairs)
