"""One estimate under way, step by step, and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainplan.laws.order.curvature import Expansion
from trainplan.laws.order.layout import Layout
from trainplan.laws.order.moments import Step
from trainplan.laws.order.recording import OrderRun

LARGEST_DRIFT = 10.0


@dataclass(frozen=True)
class Estimate:
    """The estimated end of a run in another order.

    Attributes:
        parameters: The weights by name, for ``model.load_state_dict(..., strict=False)``; all NaN
            if the estimate left the radius of the expansion.
        drift: ``||ghat_t - theta_t|| / ||theta_t - theta_0||`` for t = 0, 1, ..., T: how far the
            estimate strays from the recorded path, over that path's length. Around 1 is usual for
            another order; whether the expansion holds there depends on the loss. Beyond 10 the
            estimate is stopped.
        stopped_at: The step after which the drift was too large; None if it never was.
        trajectory: The estimated weights ``[T + 1, D]``, if asked for.
    """

    parameters: dict[str, Tensor]
    drift: list[float]
    stopped_at: int | None = None
    trajectory: Tensor | None = None


class Owner(Protocol):
    """What a walk needs of an estimator."""

    run: OrderRun
    layout: Layout
    reference: list[int]

    def new_step(self) -> Step:
        """A rule for steps, fresh."""

    def expansion(self, t: int, j: int, theta: Tensor, d: Tensor | None) -> Expansion:
        """The gradient of batch ``j`` around point ``t``."""


class Walk:
    """An estimate under way."""

    def __init__(self, owner: Owner, order: list[int], trajectory: bool) -> None:
        self._owner, self._order, self._run = owner, order, owner.run
        self._first = owner.run.parameters(0)
        self._step = owner.new_step()
        self._first = self._first.to(self._step.flat.device)
        self.stopped_at: int | None = None
        self.whole = True
        kept = owner.run.keep_moments
        same = zip(order, owner.reference, strict=True)
        shared = next((t for t, (a, b) in enumerate(same) if a != b), len(order))
        self.t = shared if kept else 0
        self.drift = [0.0] * (self.t + 1)
        self._step.start(self.t, self._run.parameters(self.t))
        self._shared = shared
        self._points = None
        if trajectory:
            self._points = [self._run.parameters(t).clone() for t in range(self.t + 1)]

    def advance(self, t: int) -> None:
        """Take step ``t``."""
        theta = self._run.parameters(t).to(self._step.flat.device)
        d = self._step.flat - theta if t > self._shared else None
        found = self._owner.expansion(t, self._order[t], theta, d)
        self.whole = False  # an interruption from here on leaves half a step
        self._step.take(t, theta, found)
        after = self._run.parameters(t + 1).to(theta.device)
        if t < self._shared:
            self._step.flat.copy_(after)  # not off by round-off either
        self._watch(t + 1, after)
        if self._points is not None:
            self._points.append(self._step.flat.cpu().clone())
        self.t = t + 1
        self.whole = True

    def _watch(self, t: int, theta: Tensor) -> None:
        away = float((self._step.flat - theta).norm())
        path = float((theta - self._first).norm())
        self.drift.append(away / path if path else (math.inf if away else 0.0))
        if not self.drift[-1] <= LARGEST_DRIFT:
            self.stopped_at = t

    def result(self) -> Estimate:
        """What came out."""
        flat = self._step.flat.clone()
        if self.stopped_at is not None:
            flat.fill_(math.nan)
        points = None
        if self._points is not None:
            rest = [torch.full_like(self._points[0], math.nan)] * (self._run.steps - self.t)
            points = torch.stack([*self._points, *rest])
        return Estimate(self._owner.layout.views(flat), self.drift, self.stopped_at, points)

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "t": self.t,
            "drift": self.drift,
            "stopped_at": self.stopped_at,
            "points": self._points,
            "step": self._step.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.t, self.stopped_at = state["t"], state["stopped_at"]
        self.drift, self._points = list(state["drift"]), state["points"]
        self._step.load_state_dict(state["step"])
