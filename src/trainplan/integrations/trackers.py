"""Experiment trackers: what a plan did, beside the loss that it did it to.

    tracker = tp.trackers.to(writer)      # TensorBoard, Weights & Biases, MLflow, trackio, ...
    ...
    optimizer.step()
    tracker.log(run)                      # after the step: the values that it used

Each knob becomes one series, ``plan/lr``; a knob of several numbers one for each,
``plan/betas/0``; and what a controller has learned, one for each number of its state,
``plan/state/lr/bad``. They stand at the number of updates before the one that used them, 0 for the
first. Trainers with loggers of their own (Lightning, Transformers) get the same series through
their ``PlanCallback``, in the rows of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainplan.errors import PlanError
from trainplan.schedules.controllers import Controller

PREFIX = "plan/"
"""What the series' names begin with."""

Write = Callable[[Mapping[str, float], int], Any]
"""``write(values, step)``: how one row reaches a tracker."""


class Planned(Protocol):
    """What can be logged: a run, such as `trainplan.torch.attach` returns."""

    @property
    def plan(self) -> Any:
        """The plan."""
        ...

    @property
    def clock(self) -> Any:
        """What has been completed; ``clock.steps`` counts updates."""
        ...

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of the last update."""
        ...


@dataclass(frozen=True)
class Tracker:
    """A place to log to; made by `to`.

    Attributes:
        write: Takes a row of numbers by name, and its step.
        every: Log only every so many steps.
        prefix: What the series' names begin with.
    """

    write: Write
    every: int = 1
    prefix: str = PREFIX

    def log(self, run: Planned, step: int | None = None) -> None:
        """Log the values that the last update used, and the controllers' states.

        Call it after ``optimizer.step()``, before ``run.observe``.

        Args:
            run: The run.
            step: The step to log at; by default the number of updates before the last one.
        """
        step = max(run.clock.steps - 1, 0) if step is None else step
        if step % self.every == 0:
            self.write(scalars(run.values, run.plan.controllers, prefix=self.prefix), step)

    def log_values(self, values: Mapping[str, Any], step: int) -> None:
        """Log values by knob, where there is no run: with Optax or Keras."""
        if step % self.every == 0:
            self.write(scalars(values, prefix=self.prefix), step)


def to(target: Any, *, every: int = 1, prefix: str = PREFIX) -> Tracker:
    """Log to a tracker that is already open.

    Args:
        target: One of

            - a TensorBoard ``SummaryWriter`` (of PyTorch or tensorboardX),
            - a Weights & Biases run, or the module ``wandb`` after ``wandb.init``,
            - the module ``mlflow`` inside ``mlflow.start_run``,
            - a trackio run, or the module ``trackio`` after ``trackio.init``,
            - a Lightning logger,
            - a function ``(values, step)``, for any other.
        every: Log only every so many steps, at least 1.
        prefix: What the series' names begin with.

    Raises:
        PlanError: If the target is none of these.

    >>> rows = []
    >>> tracker = to(lambda values, step: rows.append((step, values)), every=2)
    >>> for t in range(3):
    ...     tracker.log_values({"lr": 0.1, "betas": (0.9, 0.95)}, step=t)
    >>> rows[1]
    (2, {'plan/lr': 0.1, 'plan/betas/0': 0.9, 'plan/betas/1': 0.95})
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise PlanError("must be a whole number, at least 1", place="every", value=every)
    return Tracker(_writer(target), every, prefix)


def scalars(
    values: Mapping[str, Any],
    controllers: Mapping[str, Controller] | None = None,
    *,
    prefix: str = PREFIX,
) -> dict[str, float]:
    """Values of knobs and states of controllers as one flat row of numbers.

    Args:
        values: By knob, as ``run.values`` or ``plan.at(t)`` hold them.
        controllers: By knob, as ``plan.controllers`` holds them.
        prefix: What the names begin with.

    Returns:
        Python numbers by name. Text in a state (a best loss that is not known yet) is left out.

    >>> from trainplan.schedules import ReduceOnPlateau
    >>> scalars({"lr": 0.1}, {"lr": ReduceOnPlateau(0.1)})
    {'plan/lr': 0.1, 'plan/state/lr/value': 0.1, 'plan/state/lr/bad': 0, 'plan/state/lr/cooling': 0}
    """
    row = dict(_flat(values, prefix))
    for name, controller in (controllers or {}).items():
        # Not below the knob's own name: MLflow's files cannot be folders at the same time.
        row.update(_flat(controller.state_dict(), f"{prefix}state/{name}/"))
    return row


def _flat(items: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in items.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, (list, tuple)):
            yield from _flat({str(i): item for i, item in enumerate(value)}, f"{prefix}{key}/")
        elif isinstance(value, int):
            yield f"{prefix}{key}", int(value)
        elif hasattr(value, "__float__"):
            yield f"{prefix}{key}", float(value)


def _writer(target: Any) -> Write:
    if hasattr(target, "add_scalar"):  # TensorBoard
        return lambda values, step: _add_scalars(target, values, step)
    if hasattr(target, "log_metrics"):  # mlflow, Lightning's loggers
        return lambda values, step: target.log_metrics(dict(values), step=step)
    if hasattr(target, "log"):  # wandb, trackio
        return lambda values, step: target.log(dict(values), step=step)
    if callable(target):
        return target  # type: ignore[no-any-return]
    raise PlanError(
        "not a tracker that is known",
        place="target",
        value=target,
        remedy="Give a SummaryWriter, a wandb or trackio run, the module mlflow, a Lightning "
        "logger, or a function (values, step)",
    )


def _add_scalars(writer: Any, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)
