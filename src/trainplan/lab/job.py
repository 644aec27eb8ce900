"""One segment to train, as data that can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SegmentJob:
    """Everything needed to train one segment, as data.

    Attributes:
        key: Of the segment.
        seed: Of the task.
        start: Completed updates before the first one.
        stop: Completed updates after the last one.
        directory: Where its files go.
        parent: Directory of the segment it continues, or ``None``.
        plan: The plan, as ``Plan.to_dict`` gives it.
        workload: As ``WorkloadSpec.to_dict`` gives it.
        eval_every: Evaluate after every so many updates.
        eval_at_stop: Evaluate at the end as well.
        record_grad_norms: Put the gradient's length (before clipping) into each row.
        keep_end: Save the last state, for segments that continue this one.
        checkpoint_seconds: Time between two checkpoints.
    """

    key: str
    seed: int
    start: int
    stop: int
    directory: str
    parent: str | None
    plan: Mapping[str, Any]
    workload: Mapping[str, Any]
    eval_every: int
    eval_at_stop: bool
    record_grad_norms: bool
    keep_end: bool
    checkpoint_seconds: float = 30.0
