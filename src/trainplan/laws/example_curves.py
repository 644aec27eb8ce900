"""Loss curves that trainplan brings along, so that laws can be tried without any of one's own."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from trainplan.laws.curves import Curve, rates_of
from trainplan.plan import Plan

if TYPE_CHECKING:
    from trainplan.laws.predictor import Predictor


def example(*names: str, seeds: bool = False) -> list[Curve]:
    """Measured curves of nine schedules with one peak rate.

    A byte-level transformer of 0.1 million parameters on Python's standard library (the lab's
    ``text`` workload) under a constant rate, cosine, linear and WSD over 1500 and 3000 steps, WSD
    with a longer linear decay, and a step down; three seeds each. ``benchmarks/example_curves.py``
    measured them and says how they were thinned. They say how schedules differ on that small model
    and nothing about another one.

    Args:
        *names: Which schedules; all by default.
        seeds: Give a curve per seed instead of the mean over them.

    Returns:
        Validation loss in nats per byte; step t is the state after t + 1 updates.

    Raises:
        CurveError: If a name is unknown; the message has those there are.

    >>> [curve.name for curve in example("constant", "cosine-1500")]
    ['constant', 'cosine-1500']
    >>> example()[0].peak
    0.004
    """
    from trainplan.laws.loading import matching

    curves = _curves()
    chosen = matching(list(curves), names) if names else list(curves)
    return [curve for name in chosen for curve in _made(curves[name], seeds)]


def _made(packed: dict[str, Any], seeds: bool) -> list[Curve]:
    name, plan = packed["name"], Plan.from_dict(packed["plan"])
    steps = np.array(packed["step"]) - 1
    rates = rates_of(plan, int(steps[-1]) + 1)
    losses = {seed: np.array(values) for seed, values in packed["loss"].items()}
    if seeds:
        return [Curve(f"{name}/{seed}", steps, loss, rates) for seed, loss in losses.items()]
    return [Curve(name, steps, np.mean(list(losses.values()), axis=0), rates)]


@cache
def _curves() -> dict[str, dict[str, Any]]:
    text = resources.files("trainplan.laws").joinpath("example.json").read_text(encoding="utf-8")
    return {curve["name"]: curve for curve in json.loads(text)["curves"]}


@cache
def example_law() -> Predictor:
    """The mixed law, fitted to all curves of `example`."""
    from trainplan.laws.predictor import fit

    return fit("auto", example())


__all__ = ["example", "example_law"]
