"""The multi-power law (Luo et al. 2025, arXiv 2503.12811)."""

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
class MultiPower(Law):
    """``L(t) = L0 + A S(t)^-alpha - B R(t)`` with

    ``R(t) = sum_{k <= t} (eta[k-1] - eta[k]) (1 - (1 + C eta[k]^-gamma (S(t) - S(k-1)))^-beta)``,

    where ``eta`` are the rates and ``S`` their sum. A drop takes effect over an area that is
    smaller at small rates; rises count negatively. Where ``eta[k] = 0`` the bracket is 1 as soon
    as the area has grown.

    Constant and cosine curves do not determine ``C, beta, gamma``: the exact minimiser runs away
    and predicts badly. Hence the priors, around one value of the response at the peak.

    >>> law = MultiPower(2.65, 0.6, 0.45, 440.0, 2.1, 0.6, 0.65)
    >>> rates = np.repeat([3e-4, 9e-5], 30)
    >>> [round(float(x), 6) for x in law.predict(rates, at=[29, 59])]
    [7.647377, 7.04267]
    """  # noqa: D415  (the equation needs two lines)

    L0: float
    A: float
    alpha: float
    B: float
    C: float
    beta: float
    gamma: float

    kind: ClassVar[str] = "multi_power"
    units: ClassVar[Mapping[str, str]] = {
        "L0": "nats",
        "A": "nats (rate steps)^alpha",
        "alpha": "1",
        "B": "nats / rate",
        "C": "rate^(gamma-1) / steps",
        "beta": "1",
        "gamma": "1",
    }
    guesses: ClassVar[Mapping[str, float]] = {
        "L0": 0.9, "A": 1.0, "alpha": 0.45, "B": 0.13, "C": 100.0, "beta": 0.6, "gamma": 0.6,
    }  # fmt: skip
    priors: ClassVar[Mapping[str, Prior]] = {
        "C": Prior(100.0, 1.0),
        "beta": Prior(0.6, 0.3),
        "gamma": Prior(0.6, 0.3),
    }

    def on(self, view: View) -> Floats:  # noqa: D102
        loss, _ = power_base(view.area, self.L0, self.A, self.alpha)
        with np.errstate(over="ignore"):
            speed = self.C * np.exp(-self.gamma * view.log_rate)
        return loss - self.B * response(view, view.drops, speed, view.area_before, self.beta)

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        loss, base = power_base(view.area, self.L0, self.A, self.alpha)
        with np.errstate(over="ignore"):
            speed = self.C * np.exp(-self.gamma * view.log_rate)
        sums = power_slopes(view, view.drops, speed, view.area_before, self.beta)
        by_c = sums.by_log_speed.sum(axis=1) / self.C
        finite = np.where(np.isfinite(view.log_rate), view.log_rate, 0.0)
        by_gamma = -(sums.by_log_speed @ finite)
        columns = [base, -sums.total, -self.B * by_c, -self.B * sums.by_beta, -self.B * by_gamma]
        return loss - self.B * sums.total, np.column_stack(columns)

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:
        """Fits use ``B`` in nats for a drop from the peak, ``C`` as the speed at the peak."""
        v = dict(values)
        return v | {
            "A": v["A"] * unit ** v["alpha"],
            "B": 1000.0 * v["B"] / unit,
            "C": v["C"] * (unit / 1000.0) ** v["gamma"] / unit,
        }
