"""Estimate the weights after another order of the batches, from one recorded run.

At every step t the gradient of the batch that the new order has there is expanded around the
reference run's point of the same step, and the optimizer takes its step with it:

    d_t = ghat_t - theta_t,   g~ = g_j(theta_t) + H_j(theta_t) d_t,   j = order[t].

Yang et al., 2025, arXiv 2505.22042. The paper's full text was not available to us; how the moments
enter is our design. The estimate is as good as the expansion: exact for quadratic losses, good at
small rates over few steps, worthless beyond. Where it breaks down, ``terms=1`` and ``terms=2``
disagree; one real retraining tells for sure.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainplan.errors import PlanError
from trainplan.laws.order.checks import check_noise, check_options, check_settings
from trainplan.laws.order.cost import OrderCost, order_cost
from trainplan.laws.order.curvature import BatchLoss, Expansion
from trainplan.laws.order.layout import Layout, bare
from trainplan.laws.order.moments import FrozenStep, RecursedStep, Step
from trainplan.laws.order.progress import progress_over
from trainplan.laws.order.recording import OrderRun, load, save
from trainplan.laws.order.search import Found, genetic_search
from trainplan.laws.order.table import GradientTable
from trainplan.laws.order.training import Batches, LossFunction, full_order
from trainplan.laws.order.walk import Estimate, Walk

_TOLERANCE = 0.05


class OrderEstimator:
    """Estimates where other orders of the same batches would have led.

    Args:
        run: The folder of an `OrderRecorder`, or the `OrderRun` read from it.
        model: Built as for the recorded run, in the same mode (train or eval). Its trained values
            do not matter and are not changed.
        optimizer: Of this model, built as for the recorded run. Its settings are the run's.
        loss_fn: ``loss_fn(model, batch)`` gives the scalar loss of the recorded run.
        batches: ``batches[j]`` is batch ``j``; each is used once per pass.
        curvature: ``hvp``: exact Hessian-vector products, at two to three gradients per step: as
            dear as retraining. ``secant``: from a table of T N gradients computed once, then almost
            free, and much coarser. ``fisher``: the Gauss-Newton product; needs ``split``.
        terms: 0 ignores the displacement (the control), 1 is FUT, 2 is FUT++.
        moments: ``recursed`` or ``frozen``, see `trainplan.laws.order.moments`.
        projection: Store the table's gradients as this many numbers each. Their reconstruction is
            off by sqrt(D / k) times its norm, which Adam does not survive: a last resort.
        projection_seed: Of the random matrix.
        h_max: Secant slopes are cut to this.
        table_folder: Where the table goes; by default into the run's folder.
        max_bytes: The largest table allowed; by default what the disk has free.
        split: For ``fisher``: ``outputs(model, batch)`` and ``loss(outputs, batch)``.
        noise_seed: Of `batch_noise`, as in the recorded run; needed with active dropout.
        max_norm: Gradient clipping of the recorded run; with recursed moments.
        verify: Repeat the first and the last recorded step, and refuse if they come out different.
        show: Whether to draw progress bars; by default if somebody is watching.

    Raises:
        PlanError: If the parts do not fit together or not the recorded run.

    Example:
        A quadratic loss, for which the estimate is exact:

        >>> import copy, tempfile
        >>> from trainplan.laws.order import OrderRecorder, train_in_order
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> loss = lambda model, target: (model(torch.ones(1)) - target).square().sum()
        >>> batches = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([-3.0])]
        >>> retrained = copy.deepcopy(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with OrderRecorder(folder, model, optimizer):
        ...         train_in_order(model, optimizer, loss, batches)
        ...     estimator = OrderEstimator(folder, model, optimizer, loss, batches)
        ...     estimate = estimator.estimate([2, 0, 1])
        >>> fresh = torch.optim.Adam(retrained.parameters(), lr=0.1)
        >>> train_in_order(retrained, fresh, loss, batches, [2, 0, 1])
        >>> torch.allclose(estimate.parameters["weight"], retrained.weight)
        True
    """

    def __init__(
        self,
        run: OrderRun | str | os.PathLike[str],
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction,
        batches: Batches,
        *,
        curvature: Literal["hvp", "secant", "fisher"] = "hvp",
        terms: Literal[0, 1, 2] = 1,
        moments: Literal["recursed", "frozen"] = "recursed",
        projection: int | None = None,
        projection_seed: int = 0,
        h_max: float = 1e3,
        table_folder: str | os.PathLike[str] | None = None,
        max_bytes: float | None = None,
        split: tuple[LossFunction, Callable[[Tensor, Any], Tensor]] | None = None,
        noise_seed: int | None = None,
        max_norm: float | None = None,
        verify: bool = True,
        show: bool | None = None,
    ) -> None:
        self.run = run if isinstance(run, OrderRun) else OrderRun(run)
        optimizer = bare(optimizer)
        self.layout = Layout.of(model, optimizer)
        self.run.check_model(model, self.layout)
        check_options(curvature, terms, moments, projection, split, max_norm)
        check_noise(model, noise_seed)
        self.reference = full_order(self.run.order, len(batches), self.run.steps)
        self.batches, self.terms, self.moments = batches, terms, moments
        self.curvature, self.projection = curvature, projection
        self._model, self._optimizer = model, optimizer
        self._max_norm, self._max_bytes, self._show = max_norm, max_bytes, show
        self._loss = BatchLoss(
            model,
            self.layout,
            loss_fn,
            batches,
            noise_seed,
            split if curvature == "fisher" else None,
        )
        self.new_step()  # refuses an optimizer that frozen moments do not know
        self.table: GradientTable | None = None
        if curvature == "secant":
            place = self.run.folder / "table" if table_folder is None else Path(table_folder)
            self.table = GradientTable(
                place, self.run, self._loss, len(batches), projection, projection_seed, h_max
            )
        self._scratch: nn.Module | None = None
        if verify:
            self._verify()

    @property
    def _device(self) -> torch.device:
        return self._model.get_parameter(self.layout.names[0]).device

    def cost(self) -> OrderCost:
        """What estimates will need; print it before the first one."""
        state = self.run.moments(0) if not self.run.has_moments(1) else self.run.moments(1)
        values = sum(v.numel() for s in state.values() for v in s.values() if _wide(v))
        first = self.run.parameters(0)
        return order_cost(
            self.layout.size,
            self.run.steps,
            len(self.batches),
            curvature=self.curvature,
            terms=self.terms,
            projection=self.projection,
            value_bytes=first.element_size(),
            state_values=round(values / self.layout.size),
            keep_moments=self.run.keep_moments,
        )

    def prepare(self) -> None:
        """Compute the table of gradients, if there is one; `estimate` does it when it has to."""
        if self.table is not None:
            self.table.build(max_bytes=self._max_bytes, show=self._show)

    def estimate(
        self,
        order: Sequence[int],
        *,
        trajectory: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 100,
    ) -> Estimate:
        """The weights after training in this order.

        The reference order gives the recorded weights to the bit, and so does every step before an
        order first departs from it.

        Args:
            order: A permutation of the batches, for all passes or for each.
            trajectory: Whether to keep the estimate of every step, T D values.
            checkpoint: A file written every so many steps and on an interruption, from which the
                same estimate goes on.
            every: How many steps.

        Raises:
            PlanError: If a pass does not use each batch once, or the file is another estimate's.
        """
        wanted = full_order(order, len(self.batches), self.run.steps)
        self.prepare()
        path = None if checkpoint is None else Path(checkpoint)
        walk = Walk(self, wanted, trajectory)
        settings = self._digest(wanted, trajectory)
        if path is not None and path.exists():
            walk.load_state_dict(check_settings(load(path), settings, path))
        try:
            for t in progress_over(range(walk.t, self.run.steps), "Estimate", self._show):
                if walk.stopped_at is not None:
                    break
                walk.advance(t)
                if path is not None and (t + 1) % every == 0:
                    save(path, walk.state_dict() | {"settings": settings})
        except KeyboardInterrupt:
            if path is not None and walk.whole:
                save(path, walk.state_dict() | {"settings": settings})
            raise
        if path is not None:
            save(path, walk.state_dict() | {"settings": settings})
        return walk.result()

    def score(self, order: Sequence[int], eval_fn: Callable[[nn.Module], float]) -> float:
        """``eval_fn`` of a copy of the model with the estimated weights; NaN if it was stopped.

        Args:
            order: See `estimate`.
            eval_fn: Of a model, such as its loss on held-out data.
        """
        found = self.estimate(order)
        return math.nan if found.stopped_at is not None else float(eval_fn(self.model(found)))

    def model(self, estimate: Estimate) -> nn.Module:
        """A copy of the model with estimated weights; the same copy every time."""
        if self._scratch is None:
            self._scratch = copy.deepcopy(self._model)
        with torch.no_grad():
            for name, value in estimate.parameters.items():
                self._scratch.get_parameter(name).copy_(value)
        return self._scratch

    def search(
        self,
        eval_fn: Callable[[nn.Module], float],
        *,
        budget: int = 200,
        population: int = 20,
        mutation: float = 0.5,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Found:
        """The order with the lowest estimated score; see `genetic_search`.

        The winner of many estimates is partly the luckiest error: train with it before believing
        its score.
        """
        self.prepare()
        first_pass = self.reference[: len(self.batches)]
        return genetic_search(
            lambda order: self.score(order, eval_fn),
            first_pass,
            budget=budget,
            population=population,
            mutation=mutation,
            seed=seed,
            checkpoint=checkpoint,
            show=self._show,
        )

    def expansion(self, t: int, j: int, theta: Tensor, d: Tensor | None) -> Expansion:
        """The gradient of batch ``j`` around the reference point ``t``; ``d=None`` is 0."""
        terms = 0 if d is None else self.terms
        at = theta if d is None else d
        if self.table is None:
            return self._loss.expansion(theta, j, at, terms)
        found = self.table.expansion(t, j, at.cpu(), terms)
        return Expansion(*(None if v is None else v.to(theta.device) for v in found))  # type: ignore[arg-type]

    def new_step(self) -> Step:
        """A rule for steps of its own, such as a copy of the optimizer."""
        if self.moments == "frozen":
            return FrozenStep(self._optimizer, self.layout, self.run, self.terms)
        return RecursedStep(self._optimizer, self.layout, self.run, self._max_norm)

    def _verify(self) -> None:
        step = RecursedStep(self._optimizer, self.layout, self.run, self._max_norm)
        for t in sorted({0, self.run.steps - 1}):
            if not self.run.has_moments(t):
                continue
            here, there = (self.run.parameters(s).to(self._device) for s in (t, t + 1))
            step.start(t, here)
            g = self._loss.gradient(here, self.reference[t])
            step.take(t, here, Expansion(g))
            # Adam makes full steps of gradients that are round-off and nothing else.
            real = g.abs() > math.sqrt(torch.finfo(g.dtype).eps) * g.abs().max()
            moved = float((there - here)[real].norm())
            error = float((step.flat - there)[real].norm())
            if error > _TOLERANCE * moved + 1e-30:
                raise PlanError(
                    "repeating a recorded step gives other weights",
                    place=f"step {t}",
                    value=f"an error of {error / max(moved, 1e-30):.2g} times the step",
                    remedy="Give the recorded run's loss, batches, order, mode, noise_seed and "
                    "max_norm",
                )

    def _digest(self, order: list[int], trajectory: bool) -> str:
        extra = None if self.table is None else [self.table.settings, self.table.h_max]
        first, last = self.run.parameters(0), self.run.parameters(self.run.steps)
        sums = [float(v.double().sum()) for v in (first, last)]
        options = [self.curvature, self.terms, self.moments, self._max_norm, extra, trajectory]
        return hashlib.sha256(repr([order, options, sums]).encode()).hexdigest()[:16]


def _wide(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0
