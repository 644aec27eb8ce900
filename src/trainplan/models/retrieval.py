"""How well two kinds of vectors find each other: similarities, a loss, and recall.

The loss is the sum of the two directions' cross-entropies, not their mean: Bain et al., 2021,
"Frozen in Time", arXiv 2104.00650.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainplan.errors import PlanError
from trainplan.schedules.values import rate


def cosine_similarities(a: Tensor, b: Tensor, floor: float = 1e-8) -> Tensor:
    """(n, m) cosines of the angles between rows; norms count as at least the floor.

    Args:
        a: (n, D).
        b: (m, D).
        floor: The smallest norm.

    >>> cosine_similarities(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0, 0]])).tolist()
    [[0.6000000238418579, 0.0]]
    """
    unit_a, unit_b = (x / x.norm(dim=1, keepdim=True).clamp(min=floor) for x in (a, b))
    cosines: Tensor = unit_a @ unit_b.T
    return cosines


def retrieval_loss(
    similarities: Tensor, temperature: float = 0.05, same: Tensor | None = None
) -> Tensor:
    """Cross-entropy of finding the column of a row, plus that of finding the row of a column.

    Args:
        similarities: (n, n), of pairs that belong together on the diagonal.
        temperature: By which similarities are divided.
        same: (n, n) true where a pair off the diagonal belongs together as well, such as for equal
            captions; such pairs are left out.

    >>> round(retrieval_loss(torch.eye(2), temperature=1.0).item(), 4)
    0.6265
    """
    if similarities.ndim != 2 or similarities.shape[0] != similarities.shape[1]:
        remedy = "Give (n, n), with a column for each row"
        shape = tuple(similarities.shape)
        raise PlanError("not square", place="similarities", value=shape, remedy=remedy)
    logits = similarities / rate(temperature, "temperature")
    right = torch.arange(len(logits), device=logits.device)
    if same is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same.to(logits.device) & ~own, -torch.inf)
    return functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)


def recall_at(similarities: Tensor, right: Tensor, k: int = 1) -> float:
    """Share of rows whose right column is among the k most similar ones.

    Args:
        similarities: (n, m).
        right: (n,) the right column of each row.
        k: How many columns are looked at.

    >>> recall_at(torch.tensor([[0.9, 0.1], [0.8, 0.3]]), torch.tensor([0, 1]))
    0.5
    """
    own = similarities.gather(1, right[:, None])
    # Of ties, the right column counts as the last; a similarity that is no number is ahead.
    ahead = (~(similarities < own)).sum(dim=1) - 1
    return (ahead < k).double().mean().item()
