"""Dropout that costs little on a CPU (Srivastava et al. 2014, JMLR 15).

torch draws one float an element, in one thread, and with dropout its attention leaves the fused kernel, whose gradients
are slow besides. Here 16 random bits decide an element, so a share is met to 1/65536, and attention goes a block of
queries at a time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64  # queries whose scores are worked out together
HELD = 2**24  # probabilities that are kept for the gradients of one attention: 64 MB
STEPS = 2**16  # of the share


def kept(shape: torch.Size, share: float) -> tuple[Tensor, float]:
    """What is kept, bool, and what that is multiplied by so that its mean stays: on the CPU."""
    limit = min(round(share * STEPS), STEPS - 1)
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[: shape.numel()].view(shape)
    return drawn >= limit - STEPS // 2, STEPS / (STEPS - limit)


def dropout(x: Tensor, share: float, training: bool = True) -> Tensor:
    """x with a share of its elements 0 and the others larger by as much; x itself if it is not `training`."""
    if not training or not share:
        return x
    if x.device.type != "cpu" or share == 1:
        return F.dropout(x, share)
    keep, up = kept(x.shape, share)
    return x * keep.to(x.dtype).mul_(up)


class Dropout(nn.Module):
    """`dropout` of this share, in training mode."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.share, self.training)


class Dropping(torch.autograd.Function):
    """Attention some of whose probabilities are dropped, or none: what torch's scaled_dot_product_attention computes.

    q (B, H, T, Dh), scaled already, over k and v (B, H, S, Dh), on the CPU. `mask` is as in `attention`, (.., T, S).
    Probabilities and sums are float32, products are taken in the dtype of q, k and v.
    """

    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | bool, share: float
    ) -> Tensor:
        q, k, v, saved = q.contiguous(), k.contiguous(), v.contiguous(), []
        out, up = torch.empty_like(q), 1.0
        for first, last, stop in _blocks(q, k, mask is True):
            scores = (q[:, :, first:last] @ k[:, :, :stop].mT).float()
            _hide(scores, mask[..., first:last, :] if isinstance(mask, Tensor) else mask)
            p = scores.softmax(-1)
            keep, up = kept(p.shape, share) if share else (None, 1.0)
            out[:, :, first:last] = _dropped(p, keep).to(v.dtype) @ v[:, :, :stop]
            saved += [p, keep]
        ctx.save_for_backward(q, k, v, *saved)
        ctx.up, ctx.causal = up, mask is True
        ctx.mask = mask.shape if isinstance(mask, Tensor) and mask.requires_grad else None
        return out.mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        grad = gradients[0] * ctx.up
        at_q, at_k, at_v = torch.empty_like(q), *(torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
        at_mask = None if ctx.mask is None else grad.new_empty(ctx.mask, dtype=torch.float32)
        for i, (first, last, stop) in enumerate(_blocks(q, k, ctx.causal)):
            (p, keep), g = saved[2 * i : 2 * i + 2], grad[:, :, first:last]
            at_v[:, :, :stop] += _dropped(p, keep).to(g.dtype).mT @ g
            at_p = _dropped((g @ v[:, :, :stop].mT).float(), keep)
            at_scores = torch._softmax_backward_data(at_p, p, -1, p.dtype)
            if at_mask is not None:
                part = at_mask[..., first:last, :]
                part.copy_(at_scores.sum_to_size(part.shape))
            at_scores = at_scores.to(q.dtype)
            at_q[:, :, first:last] = at_scores @ k[:, :, :stop]
            at_k[:, :, :stop] += at_scores.mT @ q[:, :, first:last]
        return at_q, at_k.to(k.dtype), at_v.to(v.dtype), at_mask, None


def _dropped(p: Tensor, keep: Tensor | None) -> Tensor:
    """What is kept of p, all if `keep` is None: a product of float and bool is slow."""
    return p if keep is None else p * keep.to(p.dtype)


def _blocks(q: Tensor, k: Tensor, causal: bool) -> list[tuple[int, int, int]]:
    """(first query, last, how many keys they may see)."""
    new, seen = q.shape[2], k.shape[2]
    lasts = [min(first + BLOCK, new) for first in range(0, new, BLOCK)]
    return [(first, last, last if causal else seen) for first, last in zip(range(0, new, BLOCK), lasts, strict=True)]


def _hide(scores: Tensor, mask: Tensor | bool) -> None:
    """Apply the mask to scores (B, H, block, S), in place."""
    if mask is True:
        block = scores.shape[2]
        ahead = torch.ones(block, block, dtype=torch.bool).triu(1)
        scores[..., -block:].masked_fill_(ahead, -torch.inf)
    elif mask is not False and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    elif mask is not False:
        scores += mask


def _learns(q: Tensor, k: Tensor) -> bool:
    """Whether blocks pay though nothing is dropped: gradients are wanted, and the probabilities take little room."""
    plain = torch.is_grad_enabled() and q.requires_grad and q.dtype != torch.float64
    if not plain or q.shape[:-1].numel() * k.shape[2] > HELD:
        return False
    return not torch._C._are_functorch_transforms_active()


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | bool, scale: float | None, share: float) -> Tensor:
    """torch's scaled_dot_product_attention, q (B, H, T, Dh) over k and v (B, Hkv, S, Dh), with a share dropped.

    `mask` is as there, or True for what stands before, False for all.
    """
    grouped = q.shape[1] // k.shape[1]
    if q.device.type != "cpu" or share == 1 or not (share or _learns(q, k)):
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if isinstance(mask, Tensor) else None,
            dropout_p=share,
            is_causal=mask is True,
            scale=scale,
            enable_gqa=grouped > 1,
        )
    k, v = (part.repeat_interleave(grouped, 1) if grouped > 1 else part for part in (k, v))
    if isinstance(mask, Tensor):
        mask = mask.expand(*mask.shape[:-2], q.shape[2], k.shape[2])
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (part.to(torch.get_autocast_dtype("cpu")) for part in (q, k, v))
    return Dropping.apply(q, k, v, mask, share)
