"""The scaling law with learning-rate annealing (Tissue, Wang & Wang 2024, arXiv 2408.11029)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainplan._extras import require
from trainplan.laws.law import Law, power_base
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import View


def areas(rates: Floats, lam: float = 0.999, warmup: int = 0) -> tuple[Floats, Floats]:
    """Forward area and annealing area of a schedule.

    ``S1[t]`` is the sum of the rates up to ``t``; with ``m[t] = lam m[t-1] + (rates[t-1] -
    rates[t])``, ``S2[t]`` is the sum of ``m`` up to ``t``. Differences at steps up to ``warmup``
    are left out.

    Args:
        rates: Shape (T,).
        lam: Decay of the momentum per step, in (0, 1).
        warmup: Last step whose difference is left out; 0 keeps all.

    Returns:
        S1 and S2, shape (T,), in units of rate x steps.

    >>> s1, s2 = areas(np.array([1.0, 1.0, 0.5, 0.5]), lam=0.5)
    >>> s1.tolist(), s2.tolist()
    ([1.0, 2.0, 2.5, 3.0], [0.0, 0.0, 0.5, 0.75])
    """
    lfilter = require("scipy.signal", extra="laws").lfilter
    drops = np.zeros(rates.size)
    drops[1:] = rates[:-1] - rates[1:]
    drops[: warmup + 1] = 0.0
    return np.cumsum(rates), np.cumsum(lfilter([1.0], [1.0, -lam], drops))


@dataclass(frozen=True)
class Annealing(Law):
    """``L = L0 + A S1^-alpha - C S2``, with the areas of `areas`.

    ``lam`` is fixed, not fitted. The law must not be minimised over free schedules: steps at rate
    zero lower its prediction for ever.

    >>> law = Annealing(L0=2.6, A=0.45, alpha=0.55, C=0.41)
    >>> rates = np.full(2000, 3e-4)
    >>> round(float(law.predict(rates, at=[1999])[0]), 4)
    3.196
    """

    L0: float
    A: float
    alpha: float
    C: float
    lam: float = 0.999

    kind: ClassVar[str] = "annealing"
    units: ClassVar[Mapping[str, str]] = {
        "L0": "nats",
        "A": "nats (rate steps)^alpha",
        "alpha": "1",
        "C": "nats / (rate steps)",
    }
    guesses: ClassVar[Mapping[str, float]] = {"L0": 0.92, "A": 1.0, "alpha": 0.5, "C": 0.13}

    def on(self, view: View) -> Floats:  # noqa: D102
        return self.slopes(view)[0]

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        loss, base = power_base(view.area, self.L0, self.A, self.alpha)
        if view.at.size == 1:  # the sum is geometric: no need to go through all steps
            passed = np.maximum(view.at[0] - view.when + 1.0, 0.0)
            shares = (1.0 - self.lam**passed) / (1.0 - self.lam)
            annealed = np.array([view.drops @ np.where(view.start <= view.at[0], shares, 0.0)])
        else:
            annealed = areas(view.rates, self.lam, view.warmup)[1][view.at]
        return loss - self.C * annealed, np.column_stack([base, -annealed])

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:  # noqa: D102
        v = dict(values)
        return v | {"A": v["A"] * unit ** v["alpha"], "C": v["C"] / unit}
