"""Ranks of projections: given as numbers, or as shares of a matrix's shorter side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainplan.errors import PlanError
from trainplan.schedules.values import count


def low_rank(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether a parameter is projected: a matrix or kernel of a group with a rank."""
    return group["rank"] is not None and p.ndim >= 2 and p.numel() > 0


def shorter_side(p: Tensor) -> int:
    """The lesser of a matrix's sides; a kernel is a matrix with a row for each output."""
    return min(p.shape[0], p.numel() // p.shape[0])


def rank_for(rank: int | float, p: Tensor) -> int:
    """A rank as given, or that share of the shorter side; at least 1."""
    return max(1, round(rank * shorter_side(p)) if isinstance(rank, float) else int(rank))


def check_rank(rank: Any, place: str) -> None:
    """Refuse what is neither a whole number from 1 nor a share in (0, 1].

    Raises:
        PlanError: With what it may be.
    """
    if not isinstance(rank, float):
        count(rank, place)
    elif not 0 < rank <= 1:
        remedy = "Give a whole number, or a share of the shorter side"
        raise PlanError("a share must lie in (0, 1]", place=place, value=rank, remedy=remedy)
