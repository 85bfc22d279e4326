"""Adapters of low rank: few weights beside a model that stays as it is.

LoRA (Hu et al. 2021, arXiv 2106.09685) adds the product of two thin matrices to a linear layer's; DoRA (Liu et al.
2024, arXiv 2402.09353) learns besides how long each row of the sum is. Names and shapes are those of PEFT.
"""

import copy
from collections.abc import Collection
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models.base import Encoder, Model
from qualm.models.layers import Conv1D, Linear

M = TypeVar("M", bound=nn.Module)
HEADS = ("classifier", "pre_classifier", "qa_outputs", "pooler")  # modules over the body, by what heads need


class Adapted(nn.Module):
    """A linear layer W of shape (out, in), shared and frozen, to whose output scale * B A x is added.

    A (rank, in) starts at random and B (out, rank) at zero, so that nothing is changed at first. With a magnitude m
    (out,) it is m * (W + scale * B A) / |W + scale * B A|, the length being that of a row; no gradient flows through it
    (section 4.3). `turned`: the weight is kept as (in, out).
    """

    def __init__(self, layer: nn.Module, rank: int, scale: float, dora: bool = False):
        super().__init__()
        assert isinstance(layer, nn.Linear | Conv1D)
        self.weight, self.bias, self.turned = layer.weight, layer.bias, isinstance(layer, Conv1D)
        out, width = self.matrix.shape
        like = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.lora_A = Linear(width, rank, bias=False, **like)
        self.lora_B = Linear(rank, out, bias=False, **like)
        self.register_buffer("lora_scale", torch.tensor([scale]))  # a buffer, so that the hash of the weights knows it
        nn.init.zeros_(self.lora_B.weight)
        self.lora_magnitude_vector = nn.Parameter(self.matrix.detach().norm(dim=1)) if dora else None

    @property
    def matrix(self) -> Tensor:
        """W, (out, in)."""
        return self.weight.T if self.turned else self.weight

    def whole(self) -> Tensor:
        """The matrix (out, in) of one layer that does what this one does."""
        made = self.matrix + self.lora_scale.to(self.weight.dtype) * (self.lora_B.weight @ self.lora_A.weight)
        return made if self.lora_magnitude_vector is None else made * self._stretch(made)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        added = self.lora_scale.to(x.dtype) * self.lora_B(self.lora_A(x))
        if self.lora_magnitude_vector is None:
            return F.linear(x, self.matrix, self.bias) + added
        with torch.no_grad():
            made = self.matrix + self.lora_scale.to(self.weight.dtype) * (self.lora_B.weight @ self.lora_A.weight)
        out = (F.linear(x, self.matrix) + added) * self._stretch(made)
        return out if self.bias is None else out + self.bias

    def _stretch(self, made: Tensor) -> Tensor:
        """What each row of W + scale * B A is multiplied by, (out,)."""
        assert self.lora_magnitude_vector is not None
        return self.lora_magnitude_vector / made.detach().norm(dim=1)


def merged(model: M) -> M:
    """The model without adapters, which are in the weights of the copy; itself if there are none."""
    if not is_adapted(model):
        return model
    made = shared(model)
    for name, adapted in adapted_layers(made).items():
        matrix = adapted.whole().detach()
        plain = Conv1D(*matrix.T.shape) if adapted.turned else Linear(*matrix.T.shape, bias=adapted.bias is not None)
        plain.weight = nn.Parameter((matrix.T if adapted.turned else matrix).contiguous())
        plain.bias = adapted.bias
        made.set_submodule(name, plain)
    return made.requires_grad_(True).train(model.training)


def shared(model: M, frozen: bool = False) -> M:
    """A copy whose modules are new and whose tensors are the model's; with `frozen` they may not change in it."""
    memo: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach(), weight.requires_grad and not frozen)
    return copy.deepcopy(model, memo)


def is_adapted(model: nn.Module) -> bool:
    return any(isinstance(module, Adapted) for module in model.modules())


def adapted_layers(model: nn.Module) -> dict[str, Adapted]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def linear_layers(model: Model) -> dict[str, nn.Module]:
    """By name, but for those that share their weights with another module."""
    shares = {*model.ties, *model.ties.values()}
    modules = model.named_modules()
    return {name: m for name, m in modules if isinstance(m, nn.Linear | Conv1D) and name not in shares}


def ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def within(name: str, modules: Collection[str]) -> bool:
    """Whether something belongs to one of the modules, or is one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def own_modules(model: Model) -> tuple[str, ...]:
    """The modules that belong to an encoder's labels: an adapter has its own, whole."""
    if not isinstance(model, Encoder) or model.config.head not in ("sequence", "token", "question"):
        return ()
    found = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in HEADS]
    return tuple(name for name in found if not any(name.startswith(f"{other}.") for other in found))
