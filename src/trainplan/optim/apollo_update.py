"""The update of one matrix by APOLLO, given its projection: scales, limit of growth, direction.

There are two ways to the same numbers. The plain one makes every tensor of the formulas. The fast
one never makes the scaled gradient: its norm is that of the gradient's channels, weighted, and the
weights take the gradient times the scales directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainplan.optim.fused import fusible
from trainplan.optim.plain_adamw import bias_correction, normalise_, update_moments
from trainplan.optim.scratch import Scratch

_TINY = 1e-8  # the published code's, beside norms
_BLOCK = 2**18  # numbers in a temporary buffer: a megabyte of float32 stays in the cache
_SMALL = 2**13  # moments with fewer numbers take longer to dispatch than to compute


def apollo_step(
    p: Tensor,
    grad: Tensor,
    projection: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    scratch: Scratch,
) -> None:
    """One update of a matrix or kernel.

    Args:
        p: The parameter (m, ...).
        grad: Its gradient.
        projection: (shorter side, rank) for the matrix (m, rest), in the gradient's type.
        state: Moments (channels, rank), the last norm, and completed updates.
        group: The settings.
        scratch: Buffers of this update of all parameters.
    """
    flat = grad if grad.ndim == 2 else grad.flatten(1)
    lr = float(group["lr"])
    factor = lr * bias_correction(state["step"] + 1, group) * float(group["scale"]) ** 0.5
    keep = 1 - lr * float(group["weight_decay"])
    if not group["maximize"]:
        factor = -factor
    if group["foreach"] is False:
        scales = _plain_scales(flat, projection, state, group)
        direction = scales * flat
        direction.mul_(factor * _limit(direction.norm(), state, group))
        p.copy_((p + direction.view_as(p)) * keep)
        return
    scales = _scales(flat, projection, state, group, scratch)
    limit: Tensor | float = 1.0
    if group["norm_growth"] is not None:
        limit = _limit(_norm_of(flat, scales, scratch), state, group)
    if isinstance(limit, Tensor):
        scales = scales * limit
    else:
        factor *= limit
    if scales.ndim and p.ndim > 2:
        rows, columns = scales.shape
        scales = scales.view(rows, *([1] * (p.ndim - 1) if columns == 1 else p.shape[1:]))
    _add_product(p, grad, scales, factor * keep, keep)


def _plain_scales(
    grad: Tensor, projection: Tensor, state: dict[str, Any], group: dict[str, Any]
) -> Tensor:
    """What the gradient is to be multiplied by: (m, 1), (1, n) or one number."""
    first, second = state["exp_avg"], state["exp_avg_sq"]
    tall = grad.shape[0] >= grad.shape[1]
    projected = ((grad if tall else grad.T) @ projection).to(first.dtype)
    update_moments(projected, first, second, group["betas"])
    normalised = first / (second.sqrt() + group["eps"])
    below = _norm_of_scale(projected, state, group) + _TINY
    return _beside(_norm_of_scale(normalised, state, group) / below, tall)


def _scales(
    grad: Tensor,
    projection: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    scratch: Scratch,
) -> Tensor:
    """The same in buffers, and moments in one pass."""
    first, second = state["exp_avg"], state["exp_avg_sq"]
    if first.numel() < _SMALL or not fusible(first, second):
        return _plain_scales(grad, projection, state, group)
    tall = grad.shape[0] >= grad.shape[1]
    projected = scratch.take("projected", first.shape, grad.dtype, grad.device)
    torch.mm(grad if tall else grad.T, projection, out=projected)
    projected = projected.to(first.dtype)
    below = _norm_of_scale(projected, state, group)
    betas = (float(group["betas"][0]), float(group["betas"][1]))
    normalise_(projected, first, second, betas, group["eps"])
    return _beside(_norm_of_scale(projected, state, group).div_(below.add_(_TINY)), tall)


def _norm_of_scale(projected: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """The norm of the tensor, or of each channel, as ``scale_type`` says."""
    dim = None if group["scale_type"] == "tensor" else 1
    return _norm(projected, state["norm"].dtype, dim)


def _beside(scales: Tensor, tall: bool) -> Tensor:
    """One scale, or one for each channel, to be multiplied with a matrix."""
    return scales if scales.ndim == 0 else scales[:, None] if tall else scales[None, :]


def _limit(norm: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | float:
    """What the update has to be multiplied by for its norm to grow by no more than it may.

    The norm that results is kept. Where reading it would make the device wait, it is not read.
    """
    growth, last = group["norm_growth"], state["norm"]
    if growth is None:
        return 1.0
    if group["scale_front"]:
        norm = norm * float(group["scale"]) ** 0.5
    authors = group["mode"] == "authors"
    if state["step"] == 0:
        last.copy_(norm)
        return 1.0
    if norm.device.type == "cpu":
        before, now = last.item(), norm.item()
        held = before > 0 or authors  # nothing grows from zero: start anew
        number = growth / max(now / (before + _TINY), growth) if held else 1.0
        last.fill_(now * number)
        return float(number)
    limit: Tensor = growth / (norm.to(last.dtype) / (last + _TINY)).clamp_(min=growth)
    if not authors:
        limit = torch.where(last > 0, limit, torch.ones_like(limit))
    torch.mul(norm, limit, out=last)
    return limit


def _norm_of(grad: Tensor, scales: Tensor, scratch: Scratch) -> Tensor:
    """|scales * grad| without making the product."""
    if scales.ndim == 0:
        return _norm(grad, scales.dtype) * scales
    if scales.shape[1] == 1:
        rows = _norm(grad, scales.dtype, dim=1)
        return _norm(rows.mul_(scales[:, 0]), scales.dtype)
    squares = []
    for block in _blocks(grad):
        product = scratch.take("block", block.shape, scales.dtype, grad.device)
        flat = torch.mul(block, scales, out=product).view(-1)
        squares.append(torch.dot(flat, flat))
    return torch.stack(squares).sum().sqrt()


def _add_product(weight: Tensor, grad: Tensor, scales: Tensor, factor: float, keep: float) -> None:
    """Weight <- keep * weight + factor * scales * grad."""
    if weight.dtype == grad.dtype == scales.dtype:
        if keep != 1:
            weight.mul_(keep)
        weight.addcmul_(grad, scales, value=factor)
        return
    scales = scales * factor
    each = scales.ndim and scales.shape[0] > 1
    start = 0
    for of_weight, of_grad in zip(_blocks(weight), _blocks(grad), strict=True):
        end = start + len(of_grad)
        update = of_grad * (scales[start:end] if each else scales)  # in float32: one rounding
        of_weight.copy_(update.add_(of_weight, alpha=keep))
        start = end


def _blocks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Some rows at a time, so that what is computed from them stays in the cache."""
    height = max(1, _BLOCK * len(tensor) // tensor.numel())
    return torch.split(tensor, height)


def _norm(tensor: Tensor, dtype: torch.dtype, dim: int | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=dim, dtype=dtype)
    return norm
