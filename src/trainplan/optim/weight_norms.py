"""Norms of weights: measuring them, and scaling weights to given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest


def frobenius(weights: Sequence[Tensor]) -> Tensor:
    """The norm of each tensor, at least in float32: one number for each."""
    norms = [
        torch.linalg.vector_norm(w.detach(), dtype=torch.promote_types(w.dtype, torch.float32))
        for w in weights
    ]
    return torch.stack([norm.to(norms[0]) for norm in norms]) if norms else torch.empty(0)


@torch.no_grad()
def project(weights: Sequence[Tensor], norms: Sequence[float] | Tensor) -> Tensor:
    """Scale tensors in place to Frobenius norms; zero and non-finite ones are left alone.

    Returns:
        The norms asked for, where and in the type that the next call needs them.

    >>> w = torch.tensor([[3.0, 4.0]])
    >>> norms = project([w], [1.0])
    >>> w
    tensor([[0.6000, 0.8000]])
    """
    now = frobenius(weights)
    wanted = torch.as_tensor(norms).to(now.dtype).to(now.device)
    factors = wanted / now
    factors = torch.where(torch.isfinite(factors) & (factors > 0), factors, 1.0)
    for w, factor in zip(weights, factors, strict=True):
        w.mul_(factor.to(w.device))
    return wanted


@torch.no_grad()
def project_gain(gain: Tensor, offset: Tensor | None = None) -> None:
    """Scale n gains and offsets in place to the joint norm sqrt(n), that of gains 1, offsets 0.

    For a positively homogeneous activation behind the norm, such as ReLU.
    """
    square = gain.square().sum() + (0.0 if offset is None else offset.square().sum())
    factor = (gain.numel() / square).sqrt()
    factor = torch.where(torch.isfinite(factor) & (factor > 0), factor, 1.0)
    for part in (gain,) if offset is None else (gain, offset):
        part.mul_(factor)


def chosen(
    model: nn.Module, weights: Iterable[str] | Callable[[str, Tensor], bool]
) -> dict[str, Tensor]:
    """Parameters by name.

    Raises:
        PlanError: If a name is unknown, or none is left.
    """
    known: dict[str, Tensor] = dict(model.named_parameters())
    if callable(weights):
        names = [name for name, p in known.items() if weights(name, p)]
    else:
        names = list(dict.fromkeys([weights] if isinstance(weights, str) else weights))
    for name in names:
        if name not in known:
            remedy = nearest(name, known)
            raise PlanError("no such parameter", place="weights", value=name, remedy=remedy)
    if not names:
        remedy = "Name parameters, as in model.named_parameters()"
        raise PlanError("there is nothing to hold", place="weights", remedy=remedy)
    return {name: known[name] for name in names}
