"""Optimisers: which rule each weight is moved by, and several rules as one."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qualm.models._product import product
from qualm.models.base import Model
from qualm.training.settings import TrainSettings, rate_for

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, so five rounds are enough
ROUNDS = 5
TABLES = (nn.Embedding,)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before it is applied (Jordan et al. 2024), for matrices (out, in).

    Updates are scaled to the size of AdamW's, so that one rate does for both (Liu et al. 2025, arXiv 2502.16982).
    torch's own rounds in bfloat16, which many CPUs do in software; this one does where the weights are on a GPU.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                towards = weight.grad.lerp(state["momentum"], group["momentum"])  # Nesterov's look ahead
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(weight.shape) ** 0.5
                weight.add_(orthogonal(towards), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (M, N) with the same singular vectors and all singular values near 1, by Newton-Schulz rounds."""
    a, b, c = QUINTIC
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = product(x, x)
        x = product(torch.add(b * gram, product(gram, gram), alpha=c), x.T).add_(x, alpha=a)
    return (x if wide else x.T).to(matrix.dtype)


class Optimiser:
    """One or more of torch's optimisers, each over its own weights."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]):
        self.parts = list(parts)

    @property
    def state(self) -> Mapping[Tensor, Mapping[str, Any]]:
        return {weight: state for part in self.parts for weight, state in part.state.items()}

    def step(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def restore(self, weight: Tensor, state: Mapping[str, Any]) -> None:
        """Give a weight the state it had."""
        [part] = [p for p in self.parts if any(weight is w for g in p.param_groups for w in g["params"])]
        part.state[weight] = dict(state)


def optimiser(model: nn.Module, settings: TrainSettings, rate: float) -> Optimiser:
    """What `settings.optimiser` names, over all weights that may change. Weight decay is for matrices only.

    "adamw" (Loshchilov and Hutter 2017, arXiv 1711.05101); "muon" for the matrices inside, with AdamW for embeddings,
    heads and all else; "sgd" with momentum `beta1`.
    """
    s, changing = settings, [p for p in model.parameters() if p.requires_grad]
    inside = inner_matrices(model) if s.optimiser == "muon" else []
    rest = [p for p in changing if not any(p is other for other in inside)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": s.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    if s.optimiser == "sgd":
        return Optimiser([torch.optim.SGD(groups, lr=rate, momentum=s.beta1, fused=True)])
    adamw = torch.optim.AdamW(groups, lr=rate, betas=(s.beta1, s.beta2), fused=True)
    return Optimiser([adamw, Muon(inside, rate, s.weight_decay)] if inside else [adamw])


def usual_rate(model: nn.Module) -> float:
    """The peak learning rate of a model for which none is said: by its size, and by its kind."""
    times = model.config.rate if isinstance(model, Model) else 1.0
    return times * rate_for(sum(p.numel() for p in model.parameters()))


def inner_matrices(model: nn.Module) -> list[Tensor]:
    """The matrices that may change, but for embeddings and for the linear layers at the top, which are heads."""
    tables = [m.weight for m in model.modules() if isinstance(m, TABLES)]
    heads = [p for module in model.children() if isinstance(module, nn.Linear) for p in module.parameters()]
    outer = {id(p) for p in (*tables, *heads)}
    return [p for p in model.parameters() if p.requires_grad and p.dim() == 2 and id(p) not in outer]
