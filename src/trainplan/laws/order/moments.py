"""One step of the estimate: how the optimizer's moments enter.

``recursed``: the gradient is estimated, and the real optimizer takes its step with it, its moments
its own. ``frozen``: the moments before the step are the reference run's, and the whole update is
expanded as a function of the gradient. The paper's equations can be read both ways; the first is
exact wherever the gradient is, the second is not, even for quadratic losses.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from trainplan.errors import PlanError
from trainplan.laws.order.curvature import Expansion
from trainplan.laws.order.layout import Layout
from trainplan.laws.order.recording import OrderRun


class Step(Protocol):
    """Moves the estimate ``flat`` from position ``t`` to ``t + 1``."""

    flat: Tensor

    def start(self, t: int, flat: Tensor) -> None:
        """Stand at the reference run's point and state of step ``t``."""

    def take(self, t: int, theta: Tensor, expansion: Expansion) -> None:
        """Take step ``t`` with the gradient expanded around ``theta``."""

    def state_dict(self) -> dict[str, Any]:
        """The estimate and its moments."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class RecursedStep:
    """The real optimizer, on a copy of the parameters, with estimated gradients.

    Args:
        optimizer: Of the model; it is copied and left alone. Any that steps without a closure.
        layout: Of the parameters.
        run: Whose settings each step takes.
        max_norm: The gradient's norm is clipped to this, as in the reference run.
    """

    def __init__(
        self, optimizer: Optimizer, layout: Layout, run: OrderRun, max_norm: float | None = None
    ) -> None:
        self._optimizer = copy.deepcopy(optimizer)
        self._run, self._max_norm = run, max_norm
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        device = parameters[0].device
        self.flat = layout.flatten(dict(zip(layout.names, parameters, strict=True))).to(device)
        self._gradient = torch.zeros_like(self.flat)
        slots = layout.views(self.flat).values(), layout.views(self._gradient).values()
        for p, value, gradient in zip(parameters, *slots, strict=True):
            p.data, p.grad = value, gradient

    def start(self, t: int, flat: Tensor) -> None:
        """Take over weights and state of the reference run."""
        self.flat.copy_(flat)
        self._load(self._run.moments(t))

    def take(self, t: int, theta: Tensor, expansion: Expansion) -> None:
        """Step with g + H d (+ 1/2 D3L[d, d]); bias correction and rate belong to ``t``."""
        del theta
        for group, options in zip(self._optimizer.param_groups, self._run.options(t), strict=True):
            group.update(options)
        self._gradient.copy_(expansion.total)
        if self._max_norm is not None:
            norm = self._gradient.norm()
            self._gradient.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1.0))
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The estimate and the optimizer's state."""
        return {"flat": self.flat.clone(), "state": self._optimizer.state_dict()["state"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.flat.copy_(state["flat"])
        self._load(state["state"])

    def _load(self, state: dict[int, Any]) -> None:
        groups = self._optimizer.state_dict()["param_groups"]
        # The optimizer would go on with the very tensors, which belong to the run.
        self._optimizer.load_state_dict({"state": copy.deepcopy(state), "param_groups": groups})


class Update(NamedTuple):
    """An update as a function of the gradient, with its first and second derivative, ``[D]``."""

    value: Tensor
    slope: Tensor
    bend: Tensor


def adam_update(
    g: Tensor, m: Tensor, v: Tensor, beta1: float, beta2: float, eps: float, step: int
) -> Update:
    """Adam's mhat / (sqrt(vhat) + eps) with fixed moments before the step, and its derivatives.

    With m' = beta1 m + (1 - beta1) g, s = sqrt(vhat) and c_i = 1 - beta_i^step,

        slope = (1 - beta1) / (c1 (s + eps)) - m' g (1 - beta2) / (c1 c2 s (s + eps)^2).

    Where s = 0 the update has no derivative, and 0 is taken.

    Args:
        g: The gradient ``[D]``.
        m: First moment before the step.
        v: Second moment before the step.
        beta1: Its rate.
        beta2: Its rate.
        eps: Outside the root.
        step: 1 for the first.
    """
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    a, k = 1 - beta1, (1 - beta2) / c2
    m = beta1 * m + a * g
    s = ((beta2 * v + (1 - beta2) * g * g) / c2).sqrt()
    r = s + eps
    dead = s == 0
    safe = torch.where(dead, 1.0, s)
    ds = k * g / safe
    dds = (k - ds * ds) / safe
    lean = a * r - m * ds
    slope = lean / (c1 * r * r)
    bend = -(m * dds * r + 2 * ds * lean) / (c1 * r**3)
    return Update(m / (c1 * r), torch.where(dead, 0.0, slope), torch.where(dead, 0.0, bend))


def sgd_update(g: Tensor, buffer: Tensor | None, options: dict[str, Any]) -> Update:
    """SGD's direction with a fixed momentum buffer before the step; it is linear in the gradient.

    Args:
        g: The gradient ``[D]``, weight decay included.
        buffer: The buffer before the step; None before the first.
        options: ``momentum``, ``dampening`` and ``nesterov``.
    """
    momentum, share = options["momentum"], 1.0
    value = g
    if momentum:
        share = 1.0 if buffer is None else 1 - options["dampening"]
        moved = g if buffer is None else momentum * buffer + share * g
        value = g + momentum * moved if options["nesterov"] else moved
        share = 1 + momentum * share if options["nesterov"] else share
    return Update(value, torch.full_like(g, share), torch.zeros_like(g))


class FrozenStep:
    """The update of the reference run's moments, expanded in the gradient.

    Args:
        optimizer: ``Adam``, ``AdamW`` or ``SGD`` of torch.
        layout: Of the parameters.
        run: Recorded with ``keep_moments=True``.
        terms: 0, 1 or 2.

    Raises:
        PlanError: For another optimizer, AMSGrad, or a run without the moments.
    """

    def __init__(self, optimizer: Optimizer, layout: Layout, run: OrderRun, terms: int) -> None:
        wrong = "" if type(optimizer) in (Adam, AdamW, SGD) else "the optimizer"
        if not run.keep_moments:
            wrong = "the run, which did not keep the moments,"
        elif not wrong and any(g.get("amsgrad") for g in optimizer.param_groups):
            wrong = "AMSGrad"
        if wrong:
            raise PlanError(
                f"{wrong} does not work with frozen moments",
                place="moments",
                value=type(optimizer).__name__,
                remedy="Use moments='recursed', or Adam, AdamW or SGD with keep_moments=True",
            )
        self._layout, self._run, self._terms = layout, run, terms
        self._sgd = isinstance(optimizer, SGD)
        self._decoupled = type(optimizer) is AdamW
        self._groups = [len(group["params"]) for group in optimizer.param_groups]
        device = optimizer.param_groups[0]["params"][0].device
        self.flat = run.parameters(0).to(device, copy=True)

    def start(self, t: int, flat: Tensor) -> None:
        """Take over the weights; the moments are always the reference run's."""
        del t
        self.flat.copy_(flat)

    def take(self, t: int, theta: Tensor, expansion: Expansion) -> None:
        """Subtract rate times (update + slope H d (+ 1/2 bend (H d)^2 + 1/2 slope D3L[d, d]))."""
        vectors = [self.flat, theta, *(v for v in expansion if v is not None)]
        pieces = zip(*(torch.split(v, self._layout.sizes) for v in vectors), strict=True)
        state, options = self._run.moments(t), self._run.options(t)
        number = 0
        for group, settings in zip(self._groups, options, strict=True):
            for _ in range(group):
                flat, at, *changes = next(pieces)
                kept = {k: _on(v, flat) for k, v in state.get(number, {}).items()}
                self._move(flat, at, changes, kept, settings)
                number += 1

    def _move(
        self,
        flat: Tensor,
        at: Tensor,
        changes: list[Tensor],
        kept: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        g, *rest = changes
        if options["maximize"]:
            g, rest = -g, [-change for change in rest]
        decay = options["weight_decay"]
        # Older torch has no key in AdamW's groups, newer torch one in Adam's as well.
        decoupled = options.get("decoupled_weight_decay", self._decoupled)
        if decay and not decoupled:
            g = g + decay * at
            if rest:
                rest[0] = rest[0] + decay * (flat - at)
        update = self._update(g, kept, options)
        total = update.value
        if rest:
            total = total + update.slope * rest[0]
        if len(rest) > 1:
            total = total + (update.bend * rest[0] ** 2 + update.slope * rest[1]) / 2
        if decay and decoupled:
            flat.mul_(1 - options["lr"] * decay)
        flat.sub_(options["lr"] * total)

    def _update(self, g: Tensor, kept: dict[str, Any], options: dict[str, Any]) -> Update:
        if self._sgd:
            return sgd_update(g, kept.get("momentum_buffer"), options)
        zero = torch.zeros_like(g)
        m, v = kept.get("exp_avg", zero), kept.get("exp_avg_sq", zero)
        step = int(kept.get("step", 0)) + 1
        beta1, beta2 = options["betas"]
        return adam_update(g, m, v, beta1, beta2, options["eps"], step)

    def state_dict(self) -> dict[str, Any]:
        """The estimate."""
        return {"flat": self.flat.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved estimate."""
        self.flat.copy_(state["flat"])


def _on(value: Any, like: Tensor) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        return value.reshape(-1).to(like.device)
    return value
