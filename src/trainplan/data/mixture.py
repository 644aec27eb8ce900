"""Mixtures of sources, in stages, and what branches of one trunk cost.

Wang et al., 2025, "OctoThinker: Mid-training Incentivizes Reinforcement Learning Scaling", arXiv
2506.20512: a long stage on one mixture at a constant rate, then several short stages that branch
from it, each with its own mixture while the rate decays (`trainplan.schedules.stable_then_decay`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights divided by their sum.

    >>> normalised({"web": 9, "qa": 1})
    {'web': 0.9, 'qa': 0.1}
    """
    values = {name: finite(weight, f"weights.{name}") for name, weight in weights.items()}
    for name, value in values.items():
        if value < 0:
            raise PlanError("a weight is below zero", place=f"weights.{name}", value=value)
    whole = sum(values.values())
    if not whole:
        raise PlanError("no source has a weight above zero", place="weights", value=dict(weights))
    return {name: value / whole for name, value in values.items()}


def mixture_tokens(weights: Mapping[str, float], tokens: float) -> dict[str, float]:
    """Tokens drawn from each source over a stage of so many tokens.

    >>> mixture_tokens({"web": 3, "code": 1}, 20e9)
    {'web': 15000000000.0, 'code': 5000000000.0}
    """
    whole = _amount(tokens, "tokens")
    return {name: weight * whole for name, weight in normalised(weights).items()}


@dataclass(frozen=True)
class Stage:
    """A stretch of training on one mixture.

    Attributes:
        length: How long, in the plan's unit.
        weights: Weight of each source; normalised when read.
    """

    length: float
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", _amount(self.length, "length"))
        object.__setattr__(self, "weights", MappingProxyType(normalised(self.weights)))


def mixture_at(stages: Sequence[Stage], t: float) -> dict[str, float]:
    """The mixture at time ``t``; a boundary belongs to the later stage, and the last one goes on.

    >>> stages = [Stage(200, {"web": 1}), Stage(20, {"web": 0.7, "cot": 0.3})]
    >>> mixture_at(stages, 199), mixture_at(stages, 200)
    ({'web': 1.0}, {'web': 0.7, 'cot': 0.3})
    """
    if not stages:
        raise PlanError("there are no stages", place="stages", value=[])
    end, now = 0.0, _amount(t, "t")
    for stage in stages:
        end += stage.length
        if now < end:
            return dict(stage.weights)
    return dict(stages[-1].weights)


def branch_cost(stable: float, decays: Sequence[float]) -> tuple[float, float]:
    """What branches cost with one trunk that all share, and what they cost alone.

    shared = stable + sum of decays; separate = sum of (stable + decay).

    Args:
        stable: Length of the trunk.
        decays: Length of each branch.

    >>> branch_cost(200e9, [20e9] * 3)
    (260000000000.0, 660000000000.0)
    """
    trunk = _amount(stable, "stable")
    lengths = [_amount(decay, f"decays[{k}]") for k, decay in enumerate(decays)]
    count(len(lengths), "the number of decays")
    return trunk + sum(lengths), trunk * len(lengths) + sum(lengths)


def _amount(value: float, place: str) -> float:
    amount = finite(value, place)
    if amount < 0:
        raise PlanError("cannot be below zero", place=place, value=value)
    return amount
