"""Predict the loss of a schedule before training it, and choose the schedule.

    curves = tp.laws.load("runs/constant", "runs/cosine")     # logs of a trainer
    law = tp.laws.fit("auto", curves)
    law.predict(plan)                                         # the curve, with a band

Names load when they are first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainplan.laws.curves import Curve
    from trainplan.laws.loading import load
    from trainplan.laws.power import RateLaw, best_gamma, fit_rate_law
    from trainplan.laws.readers.raw import CurveError
    from trainplan.laws.scaling import ScalingLaw, fit_scaling_law, optimal_batch, trunk_cost

_HOME = {
    "Curve": "curves",
    "CurveError": "readers.raw",
    "RateLaw": "power",
    "ScalingLaw": "scaling",
    "best_gamma": "power",
    "fit_rate_law": "power",
    "fit_scaling_law": "scaling",
    "load": "loading",
    "optimal_batch": "scaling",
    "trunk_cost": "scaling",
}

__all__ = [
    "Curve",
    "CurveError",
    "RateLaw",
    "ScalingLaw",
    "best_gamma",
    "fit_rate_law",
    "fit_scaling_law",
    "load",
    "optimal_batch",
    "trunk_cost",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
