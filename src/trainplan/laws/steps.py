"""The control: a power law in steps, which knows nothing of the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainplan.laws.law import Law, power_base
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import View


@dataclass(frozen=True)
class PowerInSteps(Law):
    """``L(t) = L0 + A (t + 1)^-alpha``: what there is without looking at the rate.

    >>> law = PowerInSteps(L0=2.0, A=10.0, alpha=0.5)
    >>> law.predict([0.1] * 100, at=[24, 99]).tolist()
    [4.0, 3.0]
    """

    L0: float
    A: float
    alpha: float

    kind: ClassVar[str] = "power"
    units: ClassVar[Mapping[str, str]] = {"L0": "nats", "A": "nats steps^alpha", "alpha": "1"}
    guesses: ClassVar[Mapping[str, float]] = {"L0": 0.92, "A": 10.0, "alpha": 0.5}

    def on(self, view: View) -> Floats:  # noqa: D102
        return self.slopes(view)[0]

    def slopes(self, view: View) -> tuple[Floats, Floats]:  # noqa: D102
        return power_base(view.at.astype(np.float64) + 1.0, self.L0, self.A, self.alpha)

    @classmethod
    def scaled(cls, values: Mapping[str, Any], unit: float) -> dict[str, Any]:  # noqa: D102
        return dict(values)
