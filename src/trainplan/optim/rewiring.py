"""One re-wiring of a sparse layer: drop some of its weights, and grow as many others.

Dropping the smallest weights and growing random ones is SET (Mocanu et al., 2018, arXiv
1707.04780); growing those with the largest gradients is RigL (Evci et al., 2020, arXiv 1911.11134).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainplan.errors import PlanError, nearest

DROPS = ("magnitude", "set", "set-released", "taylor")
GROWTHS = ("random", "unfired", "gradient", "momentum")


def drop(
    mask: Tensor,
    weight: Tensor,
    fraction: float,
    rule: str = "magnitude",
    grad: Tensor | None = None,
) -> Tensor:
    """The mask without the weights that matter least.

    R = ceil(fraction x active) weights go. ``magnitude``: those of smallest |w|; whatever equals
    the largest of them goes too, and so do active weights that are exactly 0. ``set``: the
    ceil(R / 2) smallest positive and the ceil(R / 2) negative ones closest to 0. ``taylor``: the R
    of smallest (w dL/dw)^2. ``set-released`` is ``set`` as in published code, which keeps the
    ceil(R / 2) - 1 most negative weights however many there are.

    Args:
        mask: Active entries, bool.
        weight: Of the same shape; 0 where inactive.
        fraction: In [0, 1].
        rule: See above.
        grad: Gradient, for ``taylor``.

    Raises:
        PlanError: If the rule is unknown.

    >>> mask = torch.tensor([True, True, True, False])
    >>> drop(mask, torch.tensor([0.5, -0.1, 0.3, 0.0]), 0.3).tolist()
    [True, False, True, False]
    """
    if rule not in DROPS:
        raise PlanError("unknown", place="drop", value=rule, remedy=nearest(rule, DROPS))
    number = math.ceil(fraction * int(mask.sum()))
    if not number:
        return mask.clone()
    if rule == "magnitude":
        size = weight.abs().masked_fill(~mask, 0.0)
        inactive = mask.numel() - int(mask.sum())
        return mask & (size > size.flatten().kthvalue(inactive + number).values)
    if rule == "taylor":
        if grad is None:
            raise PlanError("needs the gradient", place="drop", value=rule)
        score = (weight * grad).square().masked_fill(~mask, math.inf).flatten()
        kept = mask.flatten().clone()
        kept[score.topk(number, largest=False).indices] = False
        return kept.view(mask.shape)
    half = math.ceil(number / 2)
    return mask & (
        (weight > _kth(weight[weight > 0], half)) | (weight < _negative_limit(weight, half, rule))
    )


def _kth(positive: Tensor, k: int) -> float:
    """The k-th smallest of some positive numbers, or the largest if there are fewer."""
    if not len(positive):
        return 0.0
    return float(positive.kthvalue(min(k, len(positive))).values)


def _negative_limit(weight: Tensor, half: int, rule: str) -> float:
    """What negative weights must be below to stay."""
    negative = weight[weight < 0]
    if rule == "set" or not len(negative):
        return -_kth(-negative, half)
    return float(negative.kthvalue(min(half, len(negative))).values)


@dataclass(frozen=True)
class Growth:
    """By what entries grow.

    Attributes:
        rule: ``random``; ``unfired``, random among entries that were never active while there are
            some; ``gradient``, the largest |dL/dw|; ``momentum``, the largest momentum.
        reuse: Whether entries that belong to earlier tasks are as good as free ones. Otherwise
            they are taken only when no free ones are left.
        bernoulli: For ``random``: whether each entry grows independently, so that only the mean
            number of new entries is right and the density drifts, as in published code.
    """

    rule: str = "random"
    reuse: bool = True
    bernoulli: bool = False

    def __post_init__(self) -> None:
        if self.rule not in GROWTHS:
            remedy = nearest(self.rule, GROWTHS)
            raise PlanError("unknown", place="grow", value=self.rule, remedy=remedy)
        if self.bernoulli and self.rule != "random":
            remedy = "Use it with grow='random'"
            raise PlanError(
                "only random growth draws", place="bernoulli", value=True, remedy=remedy
            )

    @property
    def chance(self) -> bool:
        """Whether it draws random numbers."""
        return self.rule in ("random", "unfired")


def grow(
    kept: Tensor,
    number: int,
    growth: Growth,
    *,
    signal: Tensor | None = None,
    used: Tensor | None = None,
    fired: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mask with ``number`` more active entries, or all of them if fewer are inactive.

    Args:
        kept: Active entries after dropping; those just dropped may grow again.
        number: How many grow.
        growth: By what.
        signal: Gradient or momentum, for the rules that need it.
        used: Entries that belong to earlier tasks.
        fired: Entries that were ever active.
        generator: Of the CPU, for rules with chance.

    >>> kept = torch.tensor([True, False, False, False])
    >>> grow(kept, 1, Growth("gradient"), signal=torch.tensor([9.0, 1.0, -3.0, 2.0])).tolist()
    [True, False, True, False]
    """
    number = min(number, kept.numel() - int(kept.sum()))
    if not number:
        return kept.clone()
    if growth.chance:
        score = torch.rand(kept.shape, generator=generator).to(kept.device)
    elif signal is None:
        raise PlanError("needs a gradient or a momentum", place="grow", value=growth.rule)
    else:
        score = signal.abs().float()
    if growth.bernoulli:
        able = ~kept if used is None or growth.reuse else ~kept & ~used
        return kept | ((score < number / able.sum()) & able)
    if growth.rule == "unfired" and fired is not None:
        score = score + (~fired).float()
    if used is not None and not growth.reuse:
        score = score.masked_fill(used, -0.5)
    best = score.masked_fill(kept, -1.0).flatten().topk(number).indices
    grown = kept.flatten().clone()
    grown[best] = True
    return grown.view(kept.shape)
