"""The learning rate that acts: what the growth of a weight's norm leaves of the one that was set.

If a model's output does not depend on the scale of a matrix W, as with a norm behind it, then the
gradient is in proportion to 1/|W|. A step of rate lr turns W as one of rate lr/|W|^2 turns W/|W|;
for an optimizer whose steps do not depend on the gradient's size (Adam, sign, Muon) it is lr/|W|.
Derived for "Normalization and Effective Learning Rates", Lyle et al., 2024, arXiv 2407.01800.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.weight_norms import chosen, frobenius
from trainplan.schedules.values import finite


def rate_power(optimizer: torch.optim.Optimizer) -> int:
    """The power of the norm: 2 for SGD and its kin, 1 for optimizers that normalize the gradient.

    Third-party optimizers are told by their names, which begin with ``SGD`` where steps are in
    proportion to the gradient.

    >>> w = [nn.Parameter(torch.ones(2, 2))]
    >>> rate_power(torch.optim.SGD(w)), rate_power(torch.optim.Adam(w))
    (2, 1)
    """
    kinds = (torch.optim.SGD, torch.optim.ASGD)
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return 2 if isinstance(optimizer, kinds) or type(optimizer).__name__.startswith("SGD") else 1


def effective_lr(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    initial: Mapping[str, float] | None = None,
    power: float | None = None,
) -> dict[str, float]:
    """The effective learning rate of each matrix, for any model: lr (|W_0| / |W|)^power.

    It means what it says for matrices whose scale does not matter, as
    `trainplan.optim.find_scale_invariant` tells; for others it is the relative size of steps.

    Args:
        model: The model.
        optimizer: Whose groups' rates of now are read.
        initial: Norms |W_0| by name, as of a `NormProjector` or an `EffectiveLRMonitor`; 1 for
            those not in it, so that without it rates are per unit of norm.
        power: Of the norm; by default as `rate_power` says.

    Returns:
        Rates by the parameter's name; infinite where the norm is 0.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> rates = effective_lr(layer, torch.optim.SGD(layer.parameters(), lr=0.5))
    >>> {name: round(rate, 4) for name, rate in rates.items()}
    {'weight': 0.02}
    """
    exponent = rate_power(optimizer) if power is None else finite(power, "power")
    rates = {id(p): float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    weights = {name: p for name, p in model.named_parameters() if p.ndim > 1 and id(p) in rates}
    norms = frobenius(list(weights.values())).tolist()
    known = initial or {}
    return {
        name: effective_rate(rates[id(p)], norm, known.get(name, 1.0), exponent)
        for (name, p), norm in zip(weights.items(), norms, strict=True)
    }


def effective_rate(lr: float, norm: float, initial: float = 1.0, power: float = 1.0) -> float:
    """Lr (initial / norm)^power.

    >>> effective_rate(0.1, norm=2.0, power=2)
    0.025
    """
    if norm == 0:
        return float("inf") if lr and power > 0 else 0.0
    return float(lr * (initial / norm) ** power)


class _FromNow:
    """Norms of weights, and what they were when this was made."""

    def __init__(
        self, model: nn.Module, weights: Iterable[str] | Callable[[str, Tensor], bool] | None
    ) -> None:
        self.model = model
        self.weights = chosen(model, (lambda _, p: p.ndim > 1) if weights is None else weights)
        self.initial = self._norms()

    def _norms(self) -> dict[str, float]:
        norms: list[float] = frobenius(list(self.weights.values())).tolist()
        return dict(zip(self.weights, norms, strict=True))

    def _load_initial(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or set(state.get("initial", ())) != set(self.weights):
            remedy = "Choose the same weights as when it was saved"
            raise PlanError("not a state of these weights", place="state", remedy=remedy)
        self.initial = {name: finite(state["initial"][name], name) for name in self.weights}


class EffectiveLRMonitor(_FromNow):
    """Effective rates in units of the beginning: equal to ``lr`` as long as norms do not change.

    Make it before the first step. It reads, and changes nothing.

    Args:
        model: Any model.
        weights: Names of parameters, or a function of name and parameter; None for all matrices.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    >>> monitor = EffectiveLRMonitor(layer)
    >>> _ = layer.weight.data.mul_(2)
    >>> {name: round(rate, 4) for name, rate in monitor.read(optimizer).items()}
    {'weight': 0.125}
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Iterable[str] | Callable[[str, Tensor], bool] | None = None,
    ) -> None:
        super().__init__(model, weights)

    def read(
        self, optimizer: torch.optim.Optimizer, *, power: float | None = None
    ) -> dict[str, float]:
        """The rates of now by name; see `effective_lr`."""
        found = effective_lr(self.model, optimizer, initial=self.initial, power=power)
        return {name: found[name] for name in self.weights if name in found}

    def state_dict(self) -> dict[str, Any]:
        """The initial norms."""
        return {"initial": dict(self.initial)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the initial norms of a run that was interrupted."""
        self._load_initial(state)


class ImplicitScheduleRecorder(_FromNow):
    """Writes down the decay that growing norms cause, to give it to a run whose norms are held.

    A run without projection at the rate lr(t) is one with projection at lr(t) times `multipliers`,
    for each matrix its own: exactly for plain SGD, nearly with momentum or Adam. One common
    multiplier, of the joint norm, comes close.

    Args:
        model: Any model.
        weights: As for `EffectiveLRMonitor`.

    Attributes:
        norms: By name, the norm before each step.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> recorder = ImplicitScheduleRecorder(layer)
    >>> recorder.record()
    >>> _ = layer.weight.data.mul_(2)
    >>> recorder.record()
    >>> [round(m, 4) for m in recorder.multipliers("weight", power=2)]
    [1.0, 0.25]
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Iterable[str] | Callable[[str, Tensor], bool] | None = None,
    ) -> None:
        super().__init__(model, weights)
        self.norms: dict[str, list[float]] = {name: [] for name in self.weights}
        self._handle: Any = None

    def record(self) -> None:
        """Write down the norms of now, before a step."""
        for name, norm in self._norms().items():
            self.norms[name].append(norm)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Record before each step of an optimizer."""
        self.detach()
        self._handle = optimizer.register_step_pre_hook(lambda *_: self.record())

    def detach(self) -> None:
        """Stop recording."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def multipliers(self, name: str | None = None, *, power: float) -> list[float]:
        """What each step's rate was multiplied by.

        Args:
            name: Of one matrix; None for one multiplier of them all, by their joint norm.
            power: 2 for SGD, 1 for Adam and its kin; see `rate_power`.

        Raises:
            PlanError: If there is no such matrix.
        """
        exponent = finite(power, "power")
        if name is not None and name not in self.norms:
            remedy = nearest(name, self.norms)
            raise PlanError("no such weight", place="name", value=name, remedy=remedy)
        names = list(self.norms) if name is None else [name]
        first = sum(self.initial[n] ** 2 for n in names)
        joint = zip(*(self.norms[n] for n in names), strict=True)
        return [(first / sum(x * x for x in norms)) ** (exponent / 2) for norms in joint]

    def state_dict(self) -> dict[str, Any]:
        """The initial norms and all norms since."""
        return {
            "initial": dict(self.initial),
            "norms": {name: list(values) for name, values in self.norms.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._load_initial(state)
        self.norms = {name: [float(x) for x in state["norms"][name]] for name in self.weights}
