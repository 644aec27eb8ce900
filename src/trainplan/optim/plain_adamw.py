"""AdamW as in the first Transformers library, for the parameters that a method leaves to it.

With t the number of the update, it differs from PyTorch's in where eps and the decay stand::

    W <- W - lr * sqrt(1 - b2^t) / (1 - b1^t) * M / (sqrt(V) + eps)
    W <- W - lr * weight_decay * W
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainplan.optim.fused import fused_adam, fusible


def normalise_(
    grad: Tensor, first: Tensor, second: Tensor, betas: tuple[float, float], eps: float
) -> None:
    """Turn a gradient into M / (sqrt(V) + eps), in place and in one pass, moments updated.

    It is Adam's update of a weight that the decay takes to 0 (1 - lr * decay = 0 with both at -1);
    as each number is read before it is written, the gradient may be that weight.
    """
    moments = [(first, second)]
    fused_adam([grad], [grad], moments, lr=-1.0, betas=betas, eps=eps, weight_decay=-1.0)


def update_moments(grad: Tensor, first: Tensor, second: Tensor, betas: tuple[float, float]) -> None:
    """M <- b1 M + (1 - b1) G and V <- b2 V + (1 - b2) G^2."""
    first.lerp_(grad, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])


def bias_correction(step: int, group: dict[str, Any]) -> float:
    """sqrt(1 - b2^t) / (1 - b1^t), or 1 if the group does not correct; t counts from 1."""
    if not group["correct_bias"]:
        return 1.0
    first, second = group["betas"]
    return float((1 - second**step) ** 0.5 / (1 - first**step))


def adamw_step(params: Sequence[Tensor], states: Sequence[dict[str, Any]], group: Any) -> None:
    """One update of parameters that have made equally many; ``states`` hold step and moments."""
    lr = float(group["lr"])
    size = lr * bias_correction(states[0]["step"], group)
    betas = (float(group["betas"][0]), float(group["betas"][1]))
    keep = 1 - lr * group["weight_decay"]
    moments = [(state["exp_avg"], state["exp_avg_sq"]) for state in states]
    grads = [p.grad for p in params if p.grad is not None]
    alike = zip(params, grads, moments, strict=True)
    if group["foreach"] is not False and all(fusible(p, g, *pair) for p, g, pair in alike):
        fused_adam(
            params,
            grads,
            moments,
            lr=size,
            betas=betas,
            eps=group["eps"],
            maximize=group["maximize"],
        )
        if keep != 1:
            torch._foreach_mul_(list(params), keep)
        return
    for p, grad, (first, second) in zip(params, grads, moments, strict=True):
        update_moments(-grad if group["maximize"] else grad, first, second, betas)
        p.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-size)
        if keep != 1:
            p.mul_(keep)


class PlainAdamW:
    """The parameters of a group that are left to AdamW, gathered and then updated together."""

    def __init__(self, group: dict[str, Any]) -> None:
        self._group = group
        self._alike: dict[tuple[Any, ...], list[tuple[Tensor, dict[str, Any]]]] = defaultdict(list)

    def add(self, p: Tensor, state: dict[str, Any]) -> None:
        """Take a parameter with its state, which is filled if it is empty."""
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
        state["step"] += 1
        self._alike[state["step"], p.device, p.dtype].append((p, state))

    def step(self) -> None:
        """Update them."""
        for pairs in self._alike.values():
            adamw_step([p for p, _ in pairs], [state for _, state in pairs], self._group)
