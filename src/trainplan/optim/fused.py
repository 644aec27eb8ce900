"""PyTorch's fused updates, one pass over memory each, and where they may be used.

They read tensors as they lie in memory and take for granted that weights, gradients and state lie
alike. PyTorch does not check that on the CPU: a gradient of another layout is applied to the wrong
weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

_DEVICES = ("cpu", "cuda", "mps", "xpu")
_EXACT = (torch.float32, torch.float64)
_NEVER_CORRECTED = 1e30  # as a number of updates: beta to this power is 0


def fusible(*tensors: Tensor) -> bool:
    """Whether tensors of equal shapes lie in memory alike, without gaps, and have a fused update.

    >>> weight, grad = torch.zeros(3, 4), torch.zeros(4, 3).T
    >>> fusible(weight, weight.clone()), fusible(weight, grad)
    (True, False)
    """
    first = tensors[0]
    strides = first.stride()
    extent = 1 + sum((n - 1) * s for n, s in zip(first.shape, strides, strict=True))
    return (
        extent == first.numel()
        and first.device.type in _DEVICES
        and all(t.stride() == strides and t.dtype == first.dtype for t in tensors)
    )


def fused_adam(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """W <- (1 - lr * decay) W - lr * M / (sqrt(V) + eps) in one pass, after that of moments."""
    adamw(
        list(params),
        list(grads),
        [first for first, _ in moments],
        [second for _, second in moments],
        [],
        [torch.full((), _NEVER_CORRECTED, device=p.device) for p in params],
        foreach=False,
        fused=True,
        amsgrad=False,
        beta1=betas[0],
        beta2=betas[1],
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        maximize=maximize,
    )


def momentum_step(
    param: Tensor, grad: Tensor, buffer: Tensor, *, lr: float, momentum: float
) -> None:
    """M <- momentum * M + (1 - momentum) * G, then W <- W - lr * M, in one pass where it can be.

    Not in half precision, where PyTorch's fused update gets momentum wrong on the CPU (2.13). The
    rate may be negative.
    """
    if param.dtype not in _EXACT or not fusible(param, grad, buffer):
        param.add_(buffer.lerp_(grad, 1 - momentum), alpha=-lr)
        return
    sgd(
        [param],
        [grad],
        [buffer],
        has_sparse_grad=False,
        foreach=False,
        fused=True,
        weight_decay=0.0,
        momentum=momentum,
        lr=lr,
        dampening=momentum,
        nesterov=False,
        maximize=False,
    )
