"""The cells' equations and the layers of them are torch's, and padding changes no state."""

import pytest
import torch
from torch import nn

from qualm.models import _product
from qualm.models._recurrent import CELLS, Recurrent

TORCHS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def stacks(cell: str, layers: int = 3) -> tuple[Recurrent, nn.RNNBase]:
    theirs = TORCHS[cell](7, 11, layers, batch_first=True)
    ours = Recurrent(cell, 7, 11, layers)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def given(cell: str, state: tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    return state if cell == "lstm" else state[0]


@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_are_torchs_cells(cell):
    ours, theirs = stacks(cell)
    x = torch.randn(4, 9, 7)
    state = tuple(torch.randn(3, 4, 11) for _ in range(CELLS[cell].states))
    wanted, after = theirs(x, given(cell, state))
    outs = []
    for t in range(9):
        out, state = ours.step(x[:, t], state)
        outs.append(out)
    torch.testing.assert_close(torch.stack(outs, 1), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(given(cell, state), after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_whole_texts_and_their_gradients_are_torchs(cell):
    ours, theirs = stacks(cell)
    x, state = torch.randn(4, 9, 7), tuple(torch.randn(3, 4, 11) for _ in range(CELLS[cell].states))
    out, after = ours(x, state)
    wanted, wanted_after = theirs(x, given(cell, state))
    torch.testing.assert_close(out, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(given(cell, after), wanted_after, atol=1e-6, rtol=0)
    out.square().sum().backward()
    wanted.square().sum().backward()
    for (name, weight), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, atol=1e-5, rtol=1e-5, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_one_token_in_evaluation_goes_through_the_equations(cell, monkeypatch):
    ours, theirs = stacks(cell)
    x, state = torch.randn(4, 1, 7), tuple(torch.randn(3, 4, 11) for _ in range(CELLS[cell].states))
    monkeypatch.setattr(ours.eval(), "_run", None)
    out, after = ours(x, state)
    wanted, wanted_after = theirs(x, given(cell, state))
    torch.testing.assert_close(out, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(given(cell, after), wanted_after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_no_state_and_no_output(cell, both):
    stack = Recurrent(cell, 7, 11, 2, both=both)
    stack.load_state_dict(TORCHS[cell](7, 11, 2, bidirectional=both).state_dict())
    x, lengths = torch.randn(4, 9, 7), torch.tensor([3, 9, 1, 5])
    start = tuple(torch.randn_like(s) for s in stack.empty(4))
    out, state = stack(x, start, lengths)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        wanted, after = stack(x[one, :length], tuple(s[:, one].contiguous() for s in start))
        torch.testing.assert_close(out[one, :length], wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(tuple(s[:, one] for s in state), after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_between_layers_leaves_the_first_layer_alone(cell):
    stack, _ = stacks(cell, 2)
    x, start = torch.randn(4, 9, 7), stack.empty(4)
    _, plain = stack(x, start)
    once, after = stack(x, start, drop=0.5)
    torch.testing.assert_close(after[0][0], plain[0][0], atol=1e-6, rtol=0)
    assert not torch.allclose(after[0][1], plain[0][1], atol=1e-3)
    assert not torch.equal(stack(x, start, drop=0.5)[0], once)
    step = stack.stepper(4, drop=0.5)
    (out, stepped), (again, _) = step(x[:, 0], start), step(x[:, 0], start)
    assert torch.equal(out, again)
    _, plain = stack(x[:, :1], start)
    torch.testing.assert_close(stepped[0][0], plain[0][0], atol=1e-6, rtol=0)
    assert not torch.allclose(stepped[0][1], plain[0][1], atol=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_without_avx_512_it_runs_in_float32_under_autocast(cell, monkeypatch):
    ours, _ = stacks(cell)
    x = torch.randn(4, 9, 7)
    wanted, _ = ours(x, ours.empty(4))
    monkeypatch.setattr(_product, "WIDE", False)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = ours(x, ours.empty(4))
    assert out.dtype == torch.float32
    assert torch.equal(out, wanted)
