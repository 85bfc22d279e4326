"""Rotary positions: each pair of channels of q and k is turned by an angle that grows with the position.

Su et al. 2021 (arXiv 2104.09864). A scaling slows the turning, so that positions beyond the trained length give
angles that training has seen; `SCALINGS` names the kinds and the keys each takes in config.json.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qualm.errors import InputError

LENGTH = "original_max_position_embeddings"
SCALINGS: Mapping[str, tuple[set[str], set[str]]] = {  # rope_type: keys it must have, keys it may have
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", LENGTH}, set()),
    "yarn": ({"factor", LENGTH}, {"attention_factor", "beta_fast", "beta_slow"}),
}


class Rotary:
    """The angles of a model: `theta` is the base, `scaling` one of SCALINGS, `trained` the length trained for."""

    def __init__(self, dim: int, theta: float, scaling: Mapping[str, Any] | None, trained: int):
        self.dim, self.theta, self.trained = dim, theta, trained
        self.scaling = scaling or {"rope_type": "default"}
        self.frequencies = frequencies(dim, theta, scaling)
        self.loudness = loudness(self.scaling)

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (B or 1, 1, T, Dh/2), of positions (B or 1, T).

        "dynamic" raises the base as soon as the longest row outgrows the trained length. What a cache then holds was
        turned at a lower base: up to the trained length all is exact, beyond it only a text that is read at once.
        """
        turning = self.frequencies
        if self.scaling["rope_type"] == "dynamic" and (length := int(positions.max()) + 1) > self.trained:
            factor = self.scaling["factor"]
            grown = (factor * length / self.trained - (factor - 1)) ** (self.dim / (self.dim - 2))
            turning = frequencies(self.dim, self.theta * grown, None)
        angles = positions[:, None, :, None].float() * turning.to(positions.device)
        return (angles.cos() * self.loudness).to(dtype), (angles.sin() * self.loudness).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i against channel i + Dh/2 by the angle of its position; x is (B, H, T, Dh)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def frequencies(dim: int, theta: float, scaling: Mapping[str, Any] | None) -> Tensor:
    """Radians a position for each pair of channels, (dim / 2,) float32: theta^(-2i/dim), then slowed.

    "linear" (Chen et al. 2023, arXiv 2306.15595) slows all by `factor`. "llama3" (Dubey et al. 2024, arXiv 2407.21783)
    and "yarn" (Peng et al. 2023, arXiv 2309.00071) slow those that turn little over the trained length, keep those
    that turn often, and blend between: "llama3" by the number of turns, "yarn" by the number of the channel.
    """
    exponent = torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim
    plain = 1.0 / (theta**exponent)
    if scaling is None or scaling["rope_type"] == "dynamic":
        return plain
    slowed = plain / float(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return slowed
    if scaling["rope_type"] == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        turns = scaling[LENGTH] * plain / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    else:
        fast, slow = scaling.get("beta_fast", 32.0), scaling.get("beta_slow", 1.0)
        first = max(math.floor(_channel(fast, dim, theta, scaling[LENGTH])), 0)
        last = min(math.ceil(_channel(slow, dim, theta, scaling[LENGTH])), dim - 1)
        width = last - first if last != first else 0.001
        kept = 1 - ((torch.arange(dim // 2, device="cpu").float() - first) / width).clamp(0, 1)
    return kept * plain + (1 - kept) * slowed


def _channel(turns: float, dim: int, theta: float, length: float) -> float:
    """Which pair of channels makes so many turns over the length."""
    return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))


def loudness(scaling: Mapping[str, Any]) -> float:
    """What q and k are multiplied by besides: YaRN sharpens attention, which long texts spread thin."""
    if scaling["rope_type"] != "yarn":
        return 1.0
    return float(scaling.get("attention_factor", max(1.0, 0.1 * math.log(scaling["factor"]) + 1.0)))


def read_rope(raw: Mapping[str, Any], where: str) -> tuple[float | None, dict[str, Any] | None]:
    """Base and scaling from `rope_theta`, `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5).

    Raises InputError naming the kind or the keys that are not understood.
    """
    given = [raw.get(key) or {} for key in ("rope_scaling", "rope_parameters")]
    if not all(isinstance(value, Mapping) for value in given):
        raise InputError("rope_scaling or rope_parameters is not an object", where=where, then="mend the file")
    found = {**given[0], **given[1]}
    theta = found.pop("rope_theta", raw.get("rope_theta"))
    kind = str(found.pop("rope_type", found.get("type", "default")))
    for key in ("type", "finetuned"):  # the second says how the weights were made
        found.pop(key, None)
    if found.pop("partial_rotary_factor", 1.0) != 1.0:
        raise InputError("partial_rotary_factor is not implemented", where=where, then="use a checkpoint without it")
    if kind == "default":
        return theta, None
    if kind not in SCALINGS:
        raise InputError(
            f"rope_type {kind!r} is not implemented (only default, {', '.join(SCALINGS)})",
            where=where,
            then="use a checkpoint without it",
        )
    needed, allowed = SCALINGS[kind]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in found.values())
    if not needed <= set(found) <= needed | allowed or not numbers or _upside_down(kind, found):
        raise InputError(
            f"rope_type {kind!r} takes positive numbers for {', '.join(sorted(needed | allowed))}, not {found!r}",
            where=where,
            then="mend the file",
        )
    return theta, {"rope_type": kind, **{key: float(value) for key, value in found.items()}}


def _upside_down(kind: str, found: Mapping[str, Any]) -> bool:
    """Whether what is to turn fast is said to turn no faster than what is to turn slowly."""
    if kind == "llama3":
        return found["high_freq_factor"] == found["low_freq_factor"]
    return kind == "yarn" and found.get("beta_fast", 32) <= found.get("beta_slow", 1)
