"""What the recurrent models share: the equations of the cells, layers of them, and the state as a cache.

One step of a cell is a few lines below. A whole text goes through torch's fused kernels instead, which compute the same
and do not stop between steps.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from qualm.models import _product
from qualm.models._caches import Cache
from qualm.models.base import Causal
from qualm.models.layers import Int8Linear

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM; each (B, H), or (layers, B, H) of a stack


def elman(a: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """h' = tanh(a + U h + b) (Elman 1990, Cognitive Science 14). The signature of all cells:

    `a` (B, H * gates) is what the input gives to the gates, `weight` U (H * gates, H) and `bias` b are for the state.
    """
    (h,) = state
    return ((a + F.linear(h, weight, bias)).tanh(),)


def gru(a: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """r = sigmoid(a_r + U_r h + b_r), z = sigmoid(a_z + U_z h + b_z), n = tanh(a_n + r * (U_n h + b_n)),
    h' = (1 - z) * n + z * h.

    Cho et al. 2014 (arXiv 1406.1078), in the variant of torch and cuDNN: there r * h goes into U_n, here r comes after.
    """
    (h,) = state
    (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), F.linear(h, weight, bias).chunk(3, -1)
    r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
    n = (a_n + r * u_n).tanh()
    return (n.lerp(h, z),)


def lstm(a: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """i, f, o = sigmoid(a + U h + b), g = tanh(a + U h + b), c' = f * c + i * g, h' = o * tanh(c').

    Hochreiter and Schmidhuber 1997 (Neural Computation 9:8), with the forget gate f of Gers et al. 2000.
    """
    h, c = state
    i, f, g, o = (a + F.linear(h, weight, bias)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@dataclass(frozen=True)
class Cell:
    """A kind of cell: torch's name and kernel for it, its own equations, gates a unit, tensors of state."""

    mode: str
    kernel: Callable[..., tuple[Tensor, ...]]
    step: Callable[[Tensor, State, Tensor, Tensor], State]
    gates: int
    states: int


CELLS = {
    "elman": Cell("RNN_TANH", torch.rnn_tanh, elman, 1, 1),
    "gru": Cell("GRU", torch.gru, gru, 3, 1),
    "lstm": Cell("LSTM", torch.lstm, lstm, 4, 2),
}


class Recurrent(nn.RNNBase):
    """Layers of one kind of cell, with the parameters of nn.RNN, nn.GRU or nn.LSTM by name; the model fills them.

    Of each layer k: `weight_ih_lk` W, `bias_ih_lk`, `weight_hh_lk` U, `bias_hh_lk`; the gates stand one below the other
    in the order of the cell's equations. With `both`, a second half of each layer, named `..._reverse`, reads from the
    right, and the outputs stand side by side.
    """

    def __init__(self, cell: str, inputs: int, width: int, layers: int, both: bool = False):
        self.cell = CELLS[cell]
        super().__init__(self.cell.mode, inputs, width, layers, batch_first=True, bidirectional=both)

    def reset_parameters(self) -> None: ...

    def empty(self, batch: int) -> State:
        """The state before the first token: zeros."""
        weights = self.all_weights
        return (weights[0][1].new_zeros(len(weights), batch, self.hidden_size),) * self.cell.states

    def forward(
        self, x: Tensor, state: State, lengths: Tensor | None = None, drop: float = 0.0, drop_weight: float = 0.0
    ) -> tuple[Tensor, State]:
        """Outputs (B, T, H) of the last layer for inputs (B, T, I), and the state after them.

        Inputs beyond `lengths` (B,) change no state, and what stands there in the outputs means nothing. In training
        `drop` is the share dropped of what a layer gives to the next one, and `drop_weight` of its weights U
        (DropConnect: Wan et al. 2013; here Merity et al. 2017, section 2).

        A single token in evaluation goes by the cell's own equations: torch's LSTM prepares its weights anew at each
        call, which for one step takes longer than the step.
        """
        if lengths is not None and int(lengths.min()) == x.shape[1]:
            lengths = None
        if x.shape[1] == 1 and not (self.training or torch.is_grad_enabled() or self.bidirectional):
            out, state = self.step(x[:, 0], state)
            return out[:, None], state
        alone = self.training and bool(drop or drop_weight)  # layer by layer
        at_once = (2 if self.bidirectional else 1) if alone else len(self.all_weights)
        parts = []
        for first in range(0, len(self.all_weights), at_once):
            x = locked_dropout(x, drop) if first else x
            weights: list[Tensor] = []
            for w_ih, w_hh, *biases in self.all_weights[first : first + at_once]:
                weights += [w_ih, F.dropout(w_hh, drop_weight, alone), *biases]
            x, after = self._run(x, tuple(s[first : first + at_once] for s in state), weights, lengths)
            parts.append(after)
        return x, tuple(torch.cat(s) for s in zip(*parts, strict=True))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, left to right, by the cell's own equations: outputs (B, H) for inputs (B, I), and the state."""
        return self.stepper(len(x))(x, state)

    def stepper(
        self, batch: int, drop: float = 0.0, drop_weight: float = 0.0
    ) -> Callable[[Tensor, State], tuple[Tensor, State]]:
        """`step` for all steps of one text, which in training share one draw of dropout (as in `forward`)."""
        masks, weights = [], self.all_weights
        if self.training and drop:
            masks = [locked_mask(u, (batch, self.hidden_size), drop) for _, u, *_ in weights]
        if self.training and drop_weight:
            weights = [[w, F.dropout(u, drop_weight), *biases] for w, u, *biases in weights]

        def step(x: Tensor, state: State) -> tuple[Tensor, State]:
            states: list[State] = []
            for layer, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights):
                x = x * masks[layer] if layer and masks else x
                states.append(self.cell.step(F.linear(x, w_ih, b_ih), tuple(s[layer] for s in state), w_hh, b_hh))
                x = states[-1][0]
            return x, tuple(torch.stack(s) for s in zip(*states, strict=True))

        return step

    def _run(self, x: Tensor, state: State, weights: list[Tensor], lengths: Tensor | None) -> tuple[Tensor, State]:
        """torch's kernel over as many layers as there are weights for; in float32 where a CPU has none for less."""
        if x.is_cpu and torch.is_autocast_enabled("cpu") and not _product.WIDE:
            with torch.autocast("cpu", enabled=False):
                return self._run(x.float(), tuple(s.float() for s in state), weights, lengths)
        both = self.bidirectional
        layers = len(weights) // (8 if both else 4)
        # the kernel's own dropout is not used, so its training mode only decides whether it can be differentiated
        settings = (weights, True, layers, 0.0, torch.is_grad_enabled(), both)
        if lengths is None:
            out, *after = self.cell.kernel(x, self._given(state), *settings, True)
            return out, tuple(after)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        state = tuple(s[:, packed.sorted_indices] for s in state)
        data, *after = self.cell.kernel(packed.data, packed.batch_sizes, self._given(state), *settings)
        read = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        out, _ = pad_packed_sequence(read, batch_first=True, total_length=x.shape[1])
        return out, tuple(s[:, packed.unsorted_indices] for s in after)

    def _given(self, state: State) -> Tensor | State:
        """The state as torch's kernel takes it."""
        return state if self.cell.states > 1 else state[0]


def locked_dropout(x: Tensor, share: float) -> Tensor:
    """Drop the same channels at all steps of a row of x (B, T, D) (Gal and Ghahramani 2016, arXiv 1512.05287)."""
    return x * locked_mask(x, (x.shape[0], 1, x.shape[2]), share) if share else x


def locked_mask(like: Tensor, shape: tuple[int, ...], share: float) -> Tensor:
    """Zeros for what is dropped, 1 / (1 - share) for the rest."""
    return F.dropout(like.new_ones(shape), share)


@torch.no_grad()
def fill(name: str, weight: Tensor, cell: str, source: torch.Generator) -> None:
    """Starting values of one parameter of a `Recurrent`.

    U: an orthogonal matrix a gate, so that a state neither fades nor grows before training (Saxe et al. 2013,
    arXiv 1312.6120). W: uniform within 1 / sqrt(H), as torch has it. Biases 0, but 1 for an LSTM's forget gate, so that
    it starts by keeping (Gers et al. 2000; Jozefowicz et al. 2015): of its two biases, b_ih.
    """
    gates = CELLS[cell].gates
    width = weight.shape[0] // gates
    if "bias" in name:
        weight.zero_()
        if cell == "lstm" and "bias_ih" in name:
            weight[width : 2 * width] = 1.0
    elif "weight_hh" in name:
        for gate in weight.split(width):
            nn.init.orthogonal_(gate, generator=source)
    else:
        weight.uniform_(-(width**-0.5), width**-0.5, generator=source)


class RecurrentCache(Cache):
    """The state (layers, B, H) after what was read so far: all that a recurrent model keeps of it, however long.

    To train over a long text piece by piece (truncated back-propagation), give the same cache to each piece's forward
    pass and call `detach` between them: the next piece starts from the state, and no gradient flows back beyond it.
    """

    def __init__(self, state: State):
        self.state = state
        self.lengths = torch.zeros(state[0].shape[1], dtype=torch.long, device=state[0].device)

    def keep(self, rows: Tensor) -> None:
        self.state = tuple(s[:, rows] for s in self.state)
        self.lengths = self.lengths[rows]

    def add(self, other: "RecurrentCache") -> None:
        self.state = tuple(torch.cat(pair, 1) for pair in zip(self.state, other.state, strict=True))
        self.lengths = torch.cat((self.lengths, other.lengths))

    def beginning(self, row: int, length: int) -> Self | None:
        """Of all that was read, or of nothing less: a state cannot be taken back."""
        if int(self.lengths[row]) != length:
            return None
        made = copy.copy(self)
        made.keep(torch.tensor([row], device=self.lengths.device))
        return made

    def detach(self) -> None:
        """Cut the state off from the graph that it was computed in."""
        self.state = tuple(s.detach() for s in self.state)

    def read(self, state: State, new: int | Tensor) -> None:
        """Take the state after `new` more ids, of each row or all."""
        self.state = state
        self.lengths = self.lengths + new


@torch.no_grad()
def scale_head(model: Causal, factor: float) -> None:
    """Multiply all logits by `factor` through `model.last`, a linear head, its bias and all.

    A tied head gets weights of its own first: the embeddings stay as they are. Nothing is changed in place, since a
    copy of the model may share it.
    """
    head = model.last
    model.config = replace(model.config, tie_word_embeddings=False)
    for name, weight in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(weight * factor, weight.requires_grad))
    if isinstance(head, Int8Linear):
        head.weight_scale = head.weight_scale * factor
