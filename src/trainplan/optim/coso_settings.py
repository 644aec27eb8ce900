"""What CoSO may be told, and its learning rate within a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainplan.errors import PlanError
from trainplan.optim.grouped import check_betas, check_choices, check_not_negative
from trainplan.optim.ranks import check_rank, rank_for, shorter_side
from trainplan.schedules import Duration, Sampled, Schedule, Shifted, constant, cosine
from trainplan.schedules.values import count, finite

_CHOICES = {
    "side": ("output", "input"),
    "align": ("none", "signs", "transport"),
    "svd": ("full", "lowrank"),
}


def quarter_cosine(peak: float, epochs: int, delay: int = 0) -> Schedule:
    """The rate within a task, which begins anew with each: peak * cos(99 pi e / (200 (E - 1))).

    e is the number of completed epochs, so that the rate is the same within an epoch; the last of
    E epochs has 0.0157 of the peak. For a single epoch it is the peak, where the formula divides
    by zero.

    Args:
        peak: Of the first epoch.
        epochs: E; the unit of the schedule.
        delay: How many epochs the peak is held before the formula begins. The published code,
            which meant 0, has 1: its last of 20 epochs has a tenth of the peak.

    >>> lr = quarter_cosine(3e-4, epochs=20).resolve(20)
    >>> round(lr(0.5), 6), round(lr(19) / 3e-4, 4)
    (0.0003, 0.0157)
    """
    if count(epochs, "quarter_cosine: epochs") == 1:
        return constant(peak)
    late = count(delay, "quarter_cosine: delay", least=0)
    smooth = cosine(peak, end=-peak, duration=200 * (epochs - 1) / 99)
    return Sampled(Shifted(smooth, Duration(late)), every=Duration(1))


def size(value: int | float, p: Tensor) -> int:
    """A rank as given, or that share of a parameter's shorter side; from 1 to that side."""
    return min(rank_for(value, p), shorter_side(p))


def check_group(group: Mapping[str, Any], place: str) -> None:
    """Refuse what cannot be meant.

    Raises:
        PlanError: Naming the setting, its value and what it may be.
    """
    check_choices(group, _CHOICES, place)
    _check_ranks(group["rank"], group["sketch_rank"], place)
    count(group["update_proj_gap"], f"{place}: update_proj_gap")
    if group["sketch_gap"] is not None:
        count(group["sketch_gap"], f"{place}: sketch_gap")
    check_not_negative(group, ("lr", "weight_decay", "eps"), place)
    check_betas(group, place)
    for name in ("decay", "threshold"):
        if not 0 <= finite(group[name], f"{place}: {name}") <= 1:
            raise PlanError("must lie in [0, 1]", place=f"{place}: {name}", value=group[name])


def _check_ranks(rank: Any, sketch_rank: Any, place: str) -> None:
    """Both whole numbers or shares of the shorter side, the sketch at least as large."""
    if rank is not None:
        check_rank(rank, f"{place}: rank")
    check_rank(sketch_rank, f"{place}: sketch_rank")
    if rank is not None and type(rank) is type(sketch_rank) and sketch_rank < rank:
        raise PlanError(
            f"the sketch is smaller than the subspace of rank {rank}",
            place=f"{place}: sketch_rank",
            value=sketch_rank,
            remedy="The authors take 2 to 7 times the rank",
        )
