"""What the models share: attention, norms, int8 linears."""

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualm.models._caches import Cache, KVCache
from qualm.models._dropout import attention
from qualm.models._packed import LARGEST, Packed, can_pack, mark
from qualm.models._product import product


class Linear(nn.Linear):
    """nn.Linear that leaves filling its weights to the model."""

    packed: Packed | None = None  # of the weight, or of those of all that stand beside it

    def reset_parameters(self) -> None: ...

    def forward(self, input: Tensor) -> Tensor:
        packed = self.packed
        if packed is None or len(packed.sizes) > 1 or not packed.fits([self.weight], input):
            return product(input, self.weight, self.bias)
        out = packed(input)
        return out if self.bias is None else out + self.bias


def together(x: Tensor, *layers: nn.Module) -> Sequence[Tensor]:
    """What each of several layers makes of the same x: of one product, where their weights lie side by side."""
    packed = getattr(layers[0], "packed", None)
    plain = [layer for layer in layers if isinstance(layer, Linear)]
    weights = [layer.weight for layer in plain]
    if packed is None or not len(packed.sizes) == len(weights) == len(layers) or not packed.fits(weights, x):
        return [layer(x) for layer in layers]
    parts = packed(x).split(packed.sizes, -1)
    return [y if layer.bias is None else y + layer.bias for y, layer in zip(parts, plain, strict=True)]


class Embedding(nn.Embedding):
    """nn.Embedding that leaves filling its weights to the model."""

    def reset_parameters(self) -> None: ...


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean taken in float32 at least (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype)


Bias = Callable[
    [Tensor], Tensor
]  # how far behind a token each other stands (.., 1, T, S) -> what it adds (.., H, T, S)


class Reading:
    """Where the new tokens of one call stand, worked out once for all layers: their positions, slots and masks.

    `bias` is added to the attention scores of all layers, `scale` multiplies them (1 / sqrt(Dh) if None).
    `documents` (B, T) keeps texts of a row apart: a token sees its own only, and positions start anew with each.
    `dropout` is the part of the attention that is dropped, in training.
    """

    def __init__(
        self,
        ids: Tensor,
        cache: Cache | None,
        bias: Bias | None = None,
        scale: float | None = None,
        documents: Tensor | None = None,
        dropout: float = 0.0,
    ):
        assert isinstance(cache, KVCache | None)
        assert cache is None or documents is None
        self.bias, self.scale, self.documents, self.dropout = bias, scale, documents, dropout
        batch, new = ids.shape
        steps = torch.arange(new, device=ids.device)
        self.cache = cache
        self.masks: dict[int | None, Tensor | None] = {}
        if cache is None:
            self.first, self.stop, self.level, self.positions = 0, new, True, steps[None]
            self.places = self.positions  # among the slots; positions are counted from where the text begins
            if documents is not None:
                begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
                self.positions = steps - torch.where(begins, steps, 0).cummax(1).values
            return
        shortest, longest = (int(n) for n in cache.lengths.aminmax())
        self.first, self.stop, self.level = longest, longest + new, shortest == longest
        self.positions = cache.lengths[:, None] + steps if not self.level else longest + steps[None]  # (B or 1, T)
        self.places = self.positions
        self.rows = torch.arange(batch, device=ids.device)[:, None]
        cache.reserve(self.stop)

    def remember(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, Hkv, T, Dh); returns all that may be looked at, (B, Hkv, S, Dh)."""
        if self.cache is None:
            return k, v
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        with torch.no_grad():  # gradients flow within a call, not through what is kept
            if self.level:
                keys[:, :, self.first : self.stop] = k
                values[:, :, self.first : self.stop] = v
            else:
                keys[self.rows, :, self.positions] = k.transpose(1, 2)
                values[self.rows, :, self.positions] = v.transpose(1, 2)
        if self.first == 0:
            return k, v
        return keys[:, :, : self.stop], values[:, :, : self.stop]

    def mask(self, window: int | None) -> Tensor | None:
        """What each new token sees, (B or 1, 1, T, S) bool; None if plain causal, or a last token that sees all.

        With a bias, what is added to the scores: (B or 1, H, T, S), -inf where nothing is seen.
        """
        if window not in self.masks:
            self.masks[window] = self._mask(window)
        return self.masks[window]

    def _mask(self, window: int | None) -> Tensor | None:
        new = self.positions.shape[1]
        fits = window is None or self.stop <= window
        if self.bias is None and self.documents is None and fits and (self.first == 0 or (self.level and new == 1)):
            return None
        slots = torch.arange(self.stop, device=self.positions.device)
        behind = self.places[:, None, :, None] - slots
        seen = (behind >= 0) if window is None else (behind >= 0) & (behind < window)
        if self.documents is not None:
            seen = seen & (self.documents[:, None, :, None] == self.documents[:, None, None])
        return seen if self.bias is None else self.bias(behind).masked_fill(~seen, -torch.inf)

    def done(self, lengths: Tensor | None = None) -> None:
        """All layers have read the new tokens, of which `lengths` (B,) count; all if it is None."""
        if self.cache is not None:
            self.cache.lengths = self.cache.lengths + (self.positions.shape[1] if lengths is None else lengths)


def attend(q: Tensor, k: Tensor, v: Tensor, reading: Reading, layer: int, window: int | None = None) -> Tensor:
    """Causal attention of the new tokens over all read so far.

    q is (B, H, T, Dh), k and v (B, Hkv, T, Dh) with Hkv a divisor of H; returns (B, T, H * Dh).
    With a `window`, a token sees itself and the window - 1 before it.
    """
    k, v = reading.remember(layer, k, v)
    mask = reading.mask(window)
    causal = mask is None and reading.first == 0 and q.shape[2] > 1
    out = attention(q, k, v, causal if mask is None else mask, reading.scale, reading.dropout)
    return out.transpose(1, 2).flatten(2)


def attend_all(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None, dropout: float = 0.0
) -> Tensor:
    """Attention without order: q (B, H, T, Dh) over k and v (B, H, S, Dh); returns (B, T, H * Dh).

    `mask` is bool, what may be seen, or what is added to the scores; it is spread to (B, H, T, S). Scores are
    multiplied by `scale`, by default 1 / sqrt(Dh). `dropout` is the part of the attention that is dropped.
    """
    out = attention(q, k, v, False if mask is None else mask, scale, dropout)
    return out.transpose(1, 2).flatten(2)


def counted(lengths: Tensor | None, width: int) -> Tensor | None:
    """Which of `width` ids of each row count, (B, 1, 1, width) bool; None if all do."""
    if lengths is None:
        return None
    return (torch.arange(width, device=lengths.device) < lengths[:, None])[:, None, None]


class Conv1D(nn.Module):
    """A linear layer whose weight is (in, out), as GPT-2's checkpoints store it; the model fills it."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, out))
        self.bias = nn.Parameter(torch.empty(out))

    packed: Packed | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and self.packed.fits([self.weight], x):
            return self.packed(x) + self.bias
        return product(x, self.weight.T, self.bias)


BLOCK = 2**20  # weights of an int8 matrix made float at a time: 4 MB, which a cache holds


class Int8Linear(nn.Module):
    """x @ (weight * weight_scale).T + bias, with an int8 `weight` (out, in) and a float32 `weight_scale` (out,).

    Activations stay floats, so the only error is the rounding of weights: at most half a step, 1/254 of the largest
    weight of the row. A forward pass makes BLOCK weights float at a time; nothing of float size is kept.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: nn.Parameter | None = None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        rows = max(1, BLOCK // self.weight.shape[1])
        out = x.new_empty(*x.shape[:-1], self.weight.shape[0])
        for start in range(0, self.weight.shape[0], rows):
            out[..., start : start + rows] = F.linear(x, self.weight[start : start + rows].to(x.dtype))
        out = out * self.weight_scale.to(x.dtype)
        return out if self.bias is None else out + self.bias


class Int8Embedding(nn.Module):
    """Rows of (weight * weight_scale), with an int8 `weight` (V, D) and a float32 `weight_scale` (V,)."""

    def __init__(self, weight: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        scale = self.weight_scale[ids][..., None]
        return self.weight[ids].to(scale.dtype) * scale


@torch.no_grad()
def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to 255 steps up to its largest weight: int8 (out, in), float32 scale (out,)."""
    scale = (weight.abs().amax(1).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def pack(model: nn.Module) -> None:
    """Lay out the weights of linear layers for fast reading, beside what they are: for use, not for training.

    What a module names `beside` lies side by side, for `together`. It takes as much memory again, half as much where
    half precision will do, and is left undone for models of more than LARGEST weights.
    """
    groups: list[Sequence[Linear | Conv1D]] = []
    for module in model.modules():
        names: Sequence[str] = getattr(module, "beside", ())
        group = [layer for name in names if type(layer := getattr(module, name)) is Linear]
        groups += [group] if group and len(group) == len(names) else []
    placed = {layer for group in groups for layer in group}
    groups += [[m] for m in model.modules() if isinstance(m, Linear | Conv1D) and m not in placed]
    groups = [group for group in groups if can_pack([layer.weight for layer in group])]
    if sum(layer.weight.numel() for group in groups for layer in group) > LARGEST:
        return
    for group in groups:
        made_of = [mark(layer.weight) for layer in group]
        if group[0].packed is None or group[0].packed.made_of != made_of:
            turned = isinstance(group[0], Conv1D)
            group[0].packed = Packed([layer.weight.T if turned else layer.weight for layer in group])


FLOAT_TABLES = (nn.Linear, nn.Embedding, Conv1D)


def quantize_int8(model: nn.Module, skip: Collection[str] = ()) -> nn.Module:
    """Store all linear layers and embeddings of `model` in 8 bits, in place; weights that were tied stay tied.

    `skip` names modules to leave as they are, and with them those that share their weights. Returns the model.
    """
    tables = [(name, module) for name, module in model.named_modules() if isinstance(module, FLOAT_TABLES)]
    kept = {module.weight for name, module in tables if name in skip}
    done: dict[Tensor, tuple[Tensor, Tensor]] = {}
    for name, module in tables:
        if module.weight in kept:
            continue
        if module.weight not in done:
            done[module.weight] = int8_rows(module.weight.T if isinstance(module, Conv1D) else module.weight)
        weight, scale = done[module.weight]
        embeds = isinstance(module, nn.Embedding)
        model.set_submodule(name, Int8Embedding(weight, scale) if embeds else Int8Linear(weight, scale, module.bias))
    return model


def left_float(model: nn.Module) -> list[str] | None:
    """The names of the modules that `quantize_int8` left alone; None if it was never applied."""
    if not any(isinstance(module, Int8Linear | Int8Embedding) for module in model.modules()):
        return None
    return sorted(name for name, module in model.named_modules() if isinstance(module, FLOAT_TABLES))
