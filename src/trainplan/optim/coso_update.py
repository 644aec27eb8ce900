"""The update of one matrix by CoSO: its subspace, when it is time to find it, and Adam there.

There are two ways to the same numbers. The plain one makes every tensor of the formulas. The fast
one makes the gradient without what is protected only when a subspace is found in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainplan.errors import PlanError
from trainplan.optim.coso_settings import size
from trainplan.optim.frequent_directions import FrequentDirections, left_singular
from trainplan.optim.fused import fusible
from trainplan.optim.historical_subspace import HistoricalSubspace
from trainplan.optim.plain_adamw import bias_correction, normalise_, update_moments
from trainplan.optim.scratch import Scratch

_ROUNDING = 10  # singular values below so many roundings of the gradient's norm are noise
_SMALL = 2**13  # moments with fewer numbers take longer to dispatch than to compute


def coso_step(
    p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], scratch: Scratch
) -> None:
    """One update of a matrix or kernel.

    Args:
        p: The parameter (m, ...).
        grad: Its gradient.
        state: Of the parameter; holds the projection, moments and sketch once there is a
            gradient to find them from.
        group: The settings.
        scratch: Buffers of this update of all parameters.
    """
    flat = oriented(grad, group)
    kind = torch.promote_types(p.dtype, torch.float32)
    if flat.dtype != kind:
        flat = scratch.take("gradient", flat.shape, kind, flat.device).copy_(flat)
    _find_subspace(p, flat, state, group)
    lr = float(group["lr"])
    keep = 1 - lr * float(group["weight_decay"])
    if "projection" not in state:  # a task begins with its first gradient to learn from
        p.mul_(keep)
        return
    state["step"] += 1
    factor = lr * bias_correction(state["step"], group)
    if not group["maximize"]:
        factor = -factor
    if group["foreach"] is False:
        avoiding = HistoricalSubspace(state.get("historical")).project(flat)
        projected = state["projection"].T @ avoiding
        update_moments(projected, state["exp_avg"], state["exp_avg_sq"], group["betas"])
        normal = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
        update = factor * (state["projection"] @ normal)
        p.copy_((p + _as(update, p, group)) * keep)
        return
    _fast_step(p, flat, factor * keep, keep, state, group, scratch)


def _fast_step(
    p: Tensor,
    flat: Tensor,
    factor: float,
    keep: float,
    state: dict[str, Any],
    group: dict[str, Any],
    scratch: Scratch,
) -> None:
    """The same without G': P is orthogonal to M, so that P^T G' = P^T G."""
    projection, first, second = state["projection"], state["exp_avg"], state["exp_avg_sq"]
    projected = scratch.take("projected", first.shape, first.dtype, first.device)
    torch.mm(projection.T, flat, out=projected)
    if first.numel() < _SMALL or not fusible(first, second):
        update_moments(projected, first, second, group["betas"])
        projected = first / second.sqrt().add_(group["eps"])
    else:
        betas = (float(group["betas"][0]), float(group["betas"][1]))
        normalise_(projected, first, second, betas, group["eps"])
    if p.dtype == first.dtype and p.is_contiguous():
        oriented(p, group).addmm_(projection, projected, beta=keep, alpha=factor)
        return
    update = scratch.take("gradient", flat.shape, first.dtype, first.device)
    torch.mm(projection, projected, out=update)
    update = _as(update, p, group)
    p.copy_(update.mul_(factor).add_(p, alpha=keep))  # rounded once


def _find_subspace(p: Tensor, flat: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Find the projection and add to the sketch, if it is time for either."""
    step = state.setdefault("step", 0)
    sketch_gap = group["sketch_gap"] or group["update_proj_gap"]
    renewed = "projection" not in state or step % group["update_proj_gap"] == 0
    sketched = "projection" not in state or step % sketch_gap == 0
    if not (renewed or sketched):
        return
    past = HistoricalSubspace(state.get("historical"))
    matrix = past.project(-flat if group["maximize"] else flat)
    norm = torch.linalg.vector_norm(flat)
    if not norm.isfinite():
        raise PlanError(
            "CoSO finds no directions in a gradient that is not finite",
            place="gradient",
            value=tuple(p.shape),
            remedy="Look for what made it infinite or NaN, or leave out such steps",
        )
    rank = size(group["rank"], p)
    sketch_rank = max(1, min(size(group["sketch_rank"], p), min(flat.shape) - 1))
    most = max(rank, sketch_rank + 1) if group["svd"] == "lowrank" else None
    vectors, values = left_singular(matrix, most)
    noise = _ROUNDING * torch.finfo(flat.dtype).eps * norm
    if values[0] <= noise:
        return  # nothing to learn from: what was found before stays
    if sketched:
        sketch = FrequentDirections(
            sketch_rank, group["decay"], state.get("sketch"), state.get("sketch_values")
        )
        sketch.add_svd(vectors, values)
        state["sketch"], state["sketch_values"] = sketch.directions, sketch.values
    if renewed:
        # Vectors of noise have any direction, also ones that are taken.
        found = past.project(vectors[:, :rank] * (values[:rank] > noise))
        _replace(found.contiguous(), flat.shape[1], state, group["align"])


def _replace(found: Tensor, columns: int, state: dict[str, Any], align: str) -> None:
    """Take a new projection (m, rank), and say what it means for the moments (rank, columns)."""
    old = state.get("projection")
    if old is None:
        shape = (found.shape[1], columns)
        state["exp_avg"] = torch.zeros(shape, dtype=found.dtype, device=found.device)
        state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
    elif align == "signs":
        found *= torch.where((found * old).sum(0) < 0, -1.0, 1.0).to(found.dtype)
    elif align == "transport":
        state["exp_avg"] = found.T @ old @ state["exp_avg"]
    state["projection"] = found


def oriented(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """A matrix, or kernel (out, in, ...) as (out, rest), with the protected side first."""
    flat = matrix if matrix.ndim == 2 else matrix.flatten(1)
    return flat if group["side"] == "output" else flat.T


def _as(update: Tensor, p: Tensor, group: dict[str, Any]) -> Tensor:
    """An update with the protected side first, in the shape of its parameter."""
    flat = update if group["side"] == "output" else update.T
    return flat.view_as(p) if p.ndim == 2 else flat.reshape(p.shape)
