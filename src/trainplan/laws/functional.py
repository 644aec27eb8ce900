"""The functional scaling law, in its practical form (Li et al. 2025, arXiv 2509.19189)."""

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
class Functional(Law):
    """``L(t) = L0 + c1 T(t)^-s - c2 R(t)`` with

    ``R(t) = sum_{k <= t} (eta[k-1] - eta[k]) (c3 + T(k)^-s) (1 - (1 + c4 (T(t) - T(k)))^-gamma)``,

    where ``T`` is the sum of the rates: the intrinsic time of SGD on power-law kernel regression.
    ``s`` is shared by signal and noise; theory wants ``0 < gamma < 1``.

    >>> law = Functional(2.6, 0.6, 0.45, 40.0, 5.0, 900.0, 0.5)
    >>> rates = np.repeat([3e-4, 9e-5], 30)
    >>> [round(float(x), 6) for x in law.predict(rates, at=[29, 59])]
    [7.597377, 6.990225]
    """  # noqa: D415  (the equation needs two lines)

    L0: float
    c1: float
    s: float
    c2: float
    c3: float
    c4: float
    gamma: float

    kind: ClassVar[str] = "functional"
    units: ClassVar[Mapping[str, str]] = {
        "L0": "nats",
        "c1": "nats (rate steps)^s",
        "s": "1",
        "c2": "nats (rate steps)^s / rate",
        "c3": "(rate steps)^-s",
        "c4": "1 / (rate steps)",
        "gamma": "1",
    }
    guesses: ClassVar[Mapping[str, float]] = {
        "L0": 0.9, "c1": 1.0, "s": 0.45, "c2": 0.13, "c3": 1.0, "c4": 200.0, "gamma": 0.5,
    }  # fmt: skip
    priors: ClassVar[Mapping[str, Prior]] = {
        "c3": Prior(1.0, 2.0),
        "c4": Prior(200.0, 1.0),
        "gamma": Prior(0.5, 0.4),
    }

    def _strengths(self, view: View) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore"):
            early = view.area_after**-self.s
        return view.drops * (self.c3 + early), early

    def on(self, view: View) -> Floats:  # noqa: D102
        loss, _ = power_base(view.area, self.L0, self.c1, self.s)
        speed = np.full(view.start.size, self.c4)
        weights, _ = self._strengths(view)
        return loss - self.c2 * response(view, weights, speed, view.area_after, self.gamma)

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        loss, base = power_base(view.area, self.L0, self.c1, self.s)
        weights, early = self._strengths(view)
        speed = np.full(view.start.size, self.c4)
        sums = power_slopes(view, weights, speed, view.area_after, self.gamma)
        base[:, 2] -= self.c2 * (sums.share @ (-view.drops * early * np.log(view.area_after)))
        columns = [
            base,
            -sums.total,
            -self.c2 * (sums.share @ view.drops),
            -self.c2 * sums.by_log_speed.sum(axis=1) / self.c4,
            -self.c2 * sums.by_beta,
        ]
        return loss - self.c2 * sums.total, np.column_stack(columns)

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:
        """Fits use as ``c2`` the nats for a drop from the peak at area 1000 steps."""
        v = dict(values)
        power = unit ** v["s"]
        return v | {
            "c1": v["c1"] * power,
            "c2": 1000.0 * v["c2"] / (v["c3"] + 1.0) * power / unit,
            "c3": v["c3"] / power,
            "c4": v["c4"] / unit,
        }
