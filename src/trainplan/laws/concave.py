"""Our own law: the functional law with a noise floor that is a concave function of the rate.

On measured curves the gain from lowering the rate is not proportional to how far it is lowered:
the last tenth is worth more than the first. The published laws are linear there, and fitted to one
cosine they make up for it with a wrong memory or a wrong extrapolation. A power ``p`` of the rate,
fitted with the rest, removes most of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainplan.laws.kernel import response
from trainplan.laws.law import Law, Prior, power_base
from trainplan.laws.readers.raw import Floats
from trainplan.laws.sums import power_slopes
from trainplan.laws.views import View


@dataclass(frozen=True)
class Concave(Law):
    """``L(t) = L0 + A (T(t) + T0)^-s - B R(t)`` with

    ``R(t) = sum_{k <= t} (x[k-1]^p - x[k]^p) (c3 + T(k)^-s) / (c3 + 1) (1 - (1 + c4 (T(t) -
    T(k)))^-gamma)``,

    where ``x`` is the rate relative to ``peak`` and ``T`` its sum in thousands of steps. ``B`` is
    what a fall from the peak to zero after a thousand steps is worth in the end; ``p = 1`` and
    ``T0 = 0`` give the functional law (Li et al. 2025, arXiv 2509.19189).

    >>> law = Concave(2.6, 1.0, 0.45, 0.2, 1.0, 50.0, 0.5, 0.7, 0.1, peak=3e-4)
    >>> rates = np.repeat([3e-4, 3e-5], 4000)
    >>> [round(float(x), 4) for x in law.predict(rates, at=[3999, 7999])]
    [3.13, 3.0121]
    """  # noqa: D415  (the equation needs two lines)

    L0: float
    A: float
    s: float
    B: float
    c3: float
    c4: float
    gamma: float
    p: float
    T0: float
    peak: float

    kind: ClassVar[str] = "concave"
    units: ClassVar[Mapping[str, str]] = {
        "L0": "nats",
        "A": "nats (1000 steps at peak)^s",
        "s": "1",
        "B": "nats",
        "c3": "(1000 steps at peak)^-s",
        "c4": "1 / (1000 steps at peak)",
        "gamma": "1",
        "p": "1",
        "T0": "1000 steps at peak",
    }
    guesses: ClassVar[Mapping[str, float]] = {
        "L0": 0.9, "A": 1.0, "s": 0.45, "B": 0.2, "c3": 1.0, "c4": 35.0, "gamma": 0.5,
        "p": 0.8, "T0": 0.1,
    }  # fmt: skip
    priors: ClassVar[Mapping[str, Prior]] = {
        "c3": Prior(1.0, 2.0),
        "c4": Prior(35.0, 1.0),
        "gamma": Prior(0.5, 0.4),
        "p": Prior(0.9, 0.3),
        "T0": Prior(0.1, 1.5),
    }

    def _parts(self, view: View) -> tuple[Floats, Floats, Floats, Floats]:
        """Progress at the points and at the changes, their strengths, and ``T(k)^-s``."""
        unit = 1000.0 * self.peak
        progress, changed = view.area / unit, view.area_after / unit
        fall = (view.before / self.peak) ** self.p - (view.after / self.peak) ** self.p
        with np.errstate(divide="ignore"):
            early = changed**-self.s
        return progress, changed, fall, early

    def on(self, view: View) -> Floats:  # noqa: D102
        progress, _, fall, early = self._parts(view)
        loss, _ = power_base(progress + self.T0, self.L0, self.A, self.s)
        weights = fall * (self.c3 + early) / (self.c3 + 1.0)
        speed = np.full(view.start.size, self.c4 / (1000.0 * self.peak))
        return loss - self.B * response(view, weights, speed, view.area_after, self.gamma)

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        progress, changed, fall, early = self._parts(view)
        later = progress + self.T0
        loss, base = power_base(later, self.L0, self.A, self.s)
        weights = fall * (self.c3 + early) / (self.c3 + 1.0)
        speed = np.full(view.start.size, self.c4 / (1000.0 * self.peak))
        sums = power_slopes(view, weights, speed, view.area_after, self.gamma)
        weight = (self.c3 + early) / (self.c3 + 1.0)
        by_p = weight * (
            _power_log(view.before / self.peak, self.p) - _power_log(view.after / self.peak, self.p)
        )
        by_c3 = fall * (1.0 - early) / (self.c3 + 1.0) ** 2
        by_s = -fall * early * np.log(changed) / (self.c3 + 1.0)
        right = sums.share @ np.stack([by_s, by_c3, by_p], axis=1)
        base[:, 2] -= self.B * right[:, 0]
        columns = [
            base,
            -sums.total,
            -self.B * right[:, 1],
            -self.B * sums.by_log_speed.sum(axis=1) / self.c4,
            -self.B * sums.by_beta,
            -self.B * right[:, 2],
            -self.s * self.A * later ** (-self.s - 1.0),
        ]
        return loss - self.B * sums.total, np.column_stack(columns)

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:  # noqa: D102
        return dict(values) | {"peak": unit / 1000.0}


def _power_log(x: Floats, p: float) -> Floats:
    """``x^p log x``, which is 0 at 0."""
    safe = np.where(x > 0, x, 1.0)
    return np.asarray(safe**p * np.log(safe))
