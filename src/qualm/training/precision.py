"""The number format of a run's arithmetic, and layers that are compiled or computed twice. Weights stay as they are."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qualm.errors import UsageError
from qualm.models._product import product

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FASTER = 1.5  # times that bf16 must be faster on a CPU to be worth its rounding
FIRST, HIGHEST, LONG = 2.0**4, 2.0**16, 1000  # of an fp16 loss's scale: the summed nats are large already


class Precision:
    """What the forward pass is computed in; `why` says how that was decided, if it was left open ("auto").

    With fp16 the loss is multiplied by `scale`, halved when a gradient runs over and doubled after 1000 good updates
    (Micikevicius et al. 2017, arXiv 1710.03740).
    """

    def __init__(self, wanted: str, device: torch.device):
        self.device, self.why = device.type, ""
        self.name, self.why = choose(device) if wanted == "auto" else (wanted, "")
        self.scale, self.good = (FIRST if self.name == "fp16" else 1.0), 0

    def cast(self) -> AbstractContextManager[Any]:
        """Matrix products in the format inside, all that needs more digits in fp32."""
        return torch.autocast(self.device, DTYPES[self.name], enabled=self.name != "fp32")

    def backward(self, loss: Tensor) -> None:
        (loss * self.scale if self.scale != 1 else loss).backward()

    def unscale(self, gradients: list[Tensor]) -> None:
        if self.scale != 1 and gradients:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def settle(self, good: bool) -> bool:
        """After an update: whether it failed for the scale alone, which is lower now."""
        if self.name != "fp16":
            return False
        self.good = self.good + 1 if good else 0
        if not good and self.scale > 1:
            self.scale /= 2
            return True
        if self.good == LONG:
            self.scale, self.good = min(2 * self.scale, HIGHEST), 0
        return False

    def tensors(self) -> Mapping[str, Tensor]:
        return {"scaler": torch.tensor([self.scale, self.good])} if self.name == "fp16" else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if "scaler" in tensors:
            self.scale, self.good = float(tensors["scaler"][0]), int(tensors["scaler"][1])


def choose(device: torch.device) -> tuple[str, str]:
    """The format for a device, and why: bf16 on a GPU that has it; on a CPU if it is much faster in a short probe."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU has it") if native else ("fp32", "this GPU has no bf16")
    if device.type != "cpu":
        return "fp32", f"bf16 is not tried on {device.type}"
    plain, half = (_seconds(dtype, torch.get_num_threads()) for dtype in (torch.float32, torch.bfloat16))
    told = f"bf16 is {_times(plain, half)} here"
    return ("bf16" if plain > FASTER * half else "fp32"), told


def _times(plain: float, half: float) -> str:
    return f"{half / plain:.1f} times slower" if half > plain else f"{plain / half:.1f} times faster"


@functools.cache
def _seconds(dtype: torch.dtype, threads: int) -> float:
    """The best time of a small matrix product; some 20 ms in all, once a process."""
    a = torch.ones(256, 256, dtype=dtype)
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        product(a, a)
        taken.append(time.perf_counter() - began)
    return min(taken)


@contextmanager
def prepared(model: nn.Module, compiled: bool, recompute: bool) -> Iterator[None]:
    """The model with its layers compiled, or computed again in the backward pass in place of being kept.

    Names and weights stay; afterwards the model is as it was. Raises UsageError if it has no list of layers.
    """
    found = layers(model) if compiled or recompute else []
    if (compiled or recompute) and not found:
        raise UsageError(f"a {type(model).__name__} has no list of layers", then="leave out --compile and --recompute")
    try:
        for layer in found:
            if recompute:
                layer.forward = _again(layer.forward)
            if compiled:
                layer.compile()
        yield
    finally:
        for layer in found:
            for name in ("forward", "_compiled_call_impl"):
                vars(layer).pop(name, None)


def layers(model: nn.Module) -> list[nn.Module]:
    """What stands in the outermost lists of a model: its layers, if each is called as a whole."""
    found: list[nn.Module] = []
    below: list[nn.Module] = [model]
    while below:
        for child in below.pop().children():
            if isinstance(child, nn.ModuleList):
                found += child
            else:
                below.append(child)
    return found


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer that keeps its inputs alone (Chen et al. 2016, arXiv 1604.06174)."""

    def recomputed(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        return checkpoint(forward, *given, use_reentrant=False, **named)

    return recomputed
