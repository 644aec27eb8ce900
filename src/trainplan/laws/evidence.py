"""What a set of curves can tell about a schedule, and what it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from trainplan.errors import PlanError, short_repr
from trainplan.laws.curves import Curve, warmup_of
from trainplan.laws.readers.raw import Floats
from trainplan.schedules.values import is_number

FARTHEST = 4.0
"""A horizon may be so many times as long as the longest curve."""
_SAME_PEAK = 0.02
_CHANGE = 0.05


class OutsideEvidenceError(PlanError):
    """The curves that a law was fitted to say nothing about this schedule."""


@dataclass(frozen=True)
class Evidence:
    """What the fitted curves have seen.

    Attributes:
        peak: Their peak rate.
        steps: Steps of the longest.
        warmup: Steps of warm-up of the first curve.
        lowest: The lowest rate after warm-up, relative to the peak.
        rises: Whether some curve's rate rises again after warm-up.
        curves: Their names.
        every: Usual distance between measured points.
    """

    peak: float
    steps: int
    warmup: int
    lowest: float
    rises: bool
    curves: tuple[str, ...]
    every: int

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Evidence:
        """Sum up some curves."""
        seen = [c.rates[c.warmup : c.last + 1] / c.peak for c in curves]
        gaps = np.concatenate([np.diff(c.steps) for c in curves])
        return cls(
            peak=max(c.peak for c in curves),
            steps=max(c.last for c in curves) + 1,
            warmup=curves[0].warmup,
            lowest=float(min(x.min() for x in seen)),
            rises=any(_rise(x) > _CHANGE for x in seen),
            curves=tuple(c.name for c in curves),
            every=int(np.median(gaps)),
        )

    def outside(self, rates: Floats) -> list[str]:
        """Why a schedule is outside what the curves can tell; empty if it is not."""
        reasons = []
        peak, warmup = float(rates.max()), warmup_of(rates)
        after = rates[warmup:] / self.peak
        if abs(peak / self.peak - 1.0) > _SAME_PEAK:
            reasons.append(
                f"its peak rate is {peak:g} and that of the curves {self.peak:g}: what a rate does "
                "does not carry over to another peak. Measure one curve with the new peak"
            )
        if rates.size > FARTHEST * self.steps:
            reasons.append(
                f"its {rates.size} steps are more than {FARTHEST:g} times the {self.steps} of the "
                f"longest curve. Measure a curve of at least {rates.size / FARTHEST:.0f} steps"
            )
        if self.lowest > 1.0 - _CHANGE and after.min() < 1.0 - 2 * _CHANGE:
            reasons.append(
                "its rate falls, and no curve was measured under a falling rate. Measure one with "
                "a decay, such as a cosine"
            )
        if not self.rises and _rise(after) > 2 * _CHANGE:
            reasons.append(
                "its rate rises again after warm-up, and that of no curve does. Measure one that "
                "warms up again"
            )
        return reasons

    def check(self, rates: Floats, name: str = "") -> None:
        """Refuse a schedule that is outside.

        Raises:
            OutsideEvidenceError: With all reasons.
        """
        reasons = self.outside(rates)
        if reasons:
            raise OutsideEvidenceError(
                "the curves cannot tell: " + "; ".join(reasons), place=name or "schedule"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "curves": list(self.curves)}

    @classmethod
    def from_dict(cls, plain: Any) -> Evidence:
        """Read what `to_dict` wrote."""
        names = {field.name for field in fields(cls)}
        if not isinstance(plain, Mapping) or set(plain) != names:
            raise PlanError("not what a fit has seen", place="evidence", value=short_repr(plain))
        for name in ("peak", "steps", "warmup", "lowest", "every"):
            if not is_number(plain[name]) or not plain[name] >= 0:
                raise PlanError("not a number", place=f"evidence: {name}", value=plain[name])
        return cls(**{**plain, "curves": tuple(plain["curves"])})


def _rise(relative: Floats) -> float:
    """The largest rise from a low to a later high."""
    return float((relative - np.minimum.accumulate(relative)).max(initial=0.0))
