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
    from trainplan.laws.annealing import Annealing
    from trainplan.laws.choosing import Choice, Difference, optimize, rank
    from trainplan.laws.concave import Concave
    from trainplan.laws.convex import Convex, best_scale, bound_terms
    from trainplan.laws.curves import Curve
    from trainplan.laws.evidence import OutsideEvidenceError
    from trainplan.laws.example_curves import example, example_law
    from trainplan.laws.fitting import Fit, fit_law
    from trainplan.laws.functional import Functional
    from trainplan.laws.law import Law
    from trainplan.laws.loading import load
    from trainplan.laws.multi_power import MultiPower
    from trainplan.laws.order import OrderEstimator, OrderRecorder
    from trainplan.laws.power import RateLaw, batch_exponent, best_gamma, fit_rate_law
    from trainplan.laws.predictor import Prediction, Predictor, fit
    from trainplan.laws.readers.raw import CurveError
    from trainplan.laws.scaling import ScalingLaw, fit_scaling_law, optimal_batch, trunk_cost
    from trainplan.laws.steps import PowerInSteps

_HOME = {
    "Annealing": "annealing",
    "Choice": "choosing",
    "Concave": "concave",
    "Convex": "convex",
    "Curve": "curves",
    "CurveError": "readers.raw",
    "Difference": "choosing",
    "Fit": "fitting",
    "Functional": "functional",
    "Law": "law",
    "MultiPower": "multi_power",
    "OrderEstimator": "order",
    "OrderRecorder": "order",
    "OutsideEvidenceError": "evidence",
    "PowerInSteps": "steps",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "RateLaw": "power",
    "ScalingLaw": "scaling",
    "batch_exponent": "power",
    "best_gamma": "power",
    "best_scale": "convex",
    "bound_terms": "convex",
    "example": "example_curves",
    "example_law": "example_curves",
    "fit": "predictor",
    "fit_law": "fitting",
    "fit_rate_law": "power",
    "fit_scaling_law": "scaling",
    "load": "loading",
    "optimal_batch": "scaling",
    "optimize": "choosing",
    "rank": "choosing",
    "trunk_cost": "scaling",
}

__all__ = [
    "Annealing",
    "Choice",
    "Concave",
    "Convex",
    "Curve",
    "CurveError",
    "Difference",
    "Fit",
    "Functional",
    "Law",
    "MultiPower",
    "OrderEstimator",
    "OrderRecorder",
    "OutsideEvidenceError",
    "PowerInSteps",
    "Prediction",
    "Predictor",
    "RateLaw",
    "ScalingLaw",
    "batch_exponent",
    "best_gamma",
    "best_scale",
    "bound_terms",
    "example",
    "example_law",
    "fit",
    "fit_law",
    "fit_rate_law",
    "fit_scaling_law",
    "load",
    "optimal_batch",
    "optimize",
    "rank",
    "trunk_cost",
]


def __getattr__(name: str) -> Any:
    if name == "order":  # a room of its own, which needs torch
        return importlib.import_module("trainplan.laws.order")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
