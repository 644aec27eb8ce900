"""One multiplier of the learning rate for each tensor, from its first gradient or from its size.

Xu, Xiang, Cai and Wen, 2024, arXiv 2412.11768; `trainplan.optim.SGDSaI` is SGD with them, and
`scaled_groups` makes them groups of parameters for any other optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from trainplan.errors import PlanError, nearest
from trainplan.optim.grouped import check_gradient

SCALES = ("gsnr", "sqrt_numel")


def gradient_snr(grad: Tensor, eps: float = 1e-8, *, unbiased: bool = True) -> float:
    """|g| / (std(g) + eps) of a gradient, in float32 at least; std is 0 for a single number.

    Args:
        grad: Of any shape.
        eps: Added to the standard deviation.
        unbiased: Whether the variance is divided by d - 1, as in the published code, or by d.

    >>> round(gradient_snr(torch.tensor([1.0, -1.0, 1.0, -1.0]), unbiased=False), 4)
    2.0
    """
    wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
    spread = wide.std(correction=int(unbiased)).item() if wide.numel() > 1 else 0.0
    below = spread + eps
    norm = torch.linalg.vector_norm(wide).item()
    return norm / below if below else math.inf


def scaled_groups(
    params: Iterable[Tensor],
    lr: float,
    *,
    weight_decay: float = 0.0,
    scale: Literal["gsnr", "sqrt_numel"] = "gsnr",
    normalize: bool = False,
    eps: float = 1e-8,
    max_scale: float | None = 10.0,
) -> list[dict[str, Any]]:
    """Groups of parameters for any optimizer, with the rate times each tensor's multiplier.

    Call it after the first backward pass. A gradient that is missing or zero says nothing, and
    the root of the tensor's size is taken. Give the optimizer the same ``lr``: a plan then moves
    all groups in proportion to it.

    Args:
        params: Parameters, with gradients.
        lr: Learning rate before the multiplier, at least 0.
        weight_decay: Of an optimizer that decays by ``lr * weight_decay``, such as AdamW. A
            group's is divided by the multiplier, so that the decay is the same for all.
        scale: ``"gsnr"``, or ``"sqrt_numel"`` for the root of a tensor's size.
        normalize: Whether multipliers are divided by the largest, as in the paper.
        eps: Beside the standard deviation, at least 0.
        max_scale: Multipliers are at most this times the root of the size; ``None`` for no limit.

    Raises:
        PlanError: For an unknown scale, and for gradients that are sparse, complex or not finite.

    >>> model = torch.nn.Linear(64, 16)
    >>> groups = scaled_groups(model.parameters(), 1e-3, scale="sqrt_numel")
    >>> [group["lr"] for group in groups]
    [0.032, 0.004]
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    """
    if scale not in SCALES:
        remedy = nearest(scale, SCALES)
        raise PlanError("unknown", place="scale", value=scale, remedy=remedy)
    settings = {
        "scale": scale,
        "normalize": normalize,
        "eps": eps,
        "max_scale": max_scale,
        "mode": "default",
    }
    found: dict[float, list[Tensor]] = {}
    for p in params:
        measured = None if p.grad is None else scale_of(p, settings)
        found.setdefault(measured or p.numel() ** 0.5, []).append(p)
    largest = max(found, default=1.0) if normalize else 1.0
    return [
        {
            "params": tensors,
            "lr": lr * value / largest,
            "weight_decay": weight_decay * largest / value,
        }
        for value, tensors in found.items()
    ]


def scale_of(p: Tensor, group: Mapping[str, Any]) -> float | None:
    """The scale of a tensor, not normalised; ``None`` if its gradient says nothing yet."""
    grad, root = p.grad, p.numel() ** 0.5
    assert grad is not None  # noqa: S101 - the caller has looked
    check_gradient(grad, "SGD-SaI")
    authors = group["mode"] == "authors"
    if not authors and not grad.any():
        return None
    if group["scale"] == "sqrt_numel":
        return float(root)
    if not authors and p.numel() == 1:
        return 1.0
    value = gradient_snr(grad, group["eps"], unbiased=not group["normalize"])
    unlimited = authors or group["max_scale"] is None or math.isnan(value)
    found = value if unlimited else min(value, group["max_scale"] * root)
    if not math.isfinite(found):
        remedy = "Look for what made the first gradients infinite or NaN, or set eps and max_scale"
        raise PlanError("not finite", place="scale", value=found, remedy=remedy)
    return float(found)
