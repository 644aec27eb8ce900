"""What the lab trains: a *workload* builds, from a seed, a *task* with a model and its data.

To have your own model compared, write one function that returns an object with the attributes
of :class:`Task`, and name it on the command line::

    # my_project/workload.py
    def build(seed, width=64):
        return MyTask(seed, width)

    trainplan compare --workload my_project.workload:build --with width=128 --peak 1e-3

``batch(step)`` must be a pure function of the seed and the step. Then every arm with one seed sees
the same data in the same order, and there is no position in the data to lose when a run stops.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from trainplan._extras import require
from trainplan.errors import MissingExtraError, PlanError, nearest

if TYPE_CHECKING:
    import torch

    from trainplan.plan import Plan

BUILT_IN = {
    "text": "trainplan.lab.text:Text",
    "digits": "trainplan.lab.digits:Digits",
}


@runtime_checkable
class Task(Protocol):
    """One model with its optimizer and its data, built from one seed.

    A task may also have:

    - ``knobs`` (a collection of names) and ``apply(values)``: knobs of the plan that are not the
      optimizer's, such as ``batch_size`` or ``mask_rate``. ``apply`` is called with all values
      of the step before ``batch(step)``.
    - ``max_grad_norm``: clip the gradient to this length before each step.
    - ``state_dict()`` and ``load_state_dict(state)``: anything else that training changes, as
      tensors and plain numbers; saved and restored with the model and the optimizer.

    Randomness (dropout, augmentation) may use PyTorch's global generator, which the lab seeds from
    (seed, step) before every step.

    Attributes:
        model: The module to train; its ``state_dict`` is what a checkpoint holds.
        optimizer: Steps over the model's parameters; the plan sets its knobs.
        tokens_per_batch: Tokens (or examples, where there are no tokens) in one batch; at least 1.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def tokens_per_batch(self) -> int:
        """Tokens that one step trains on."""
        ...

    def batch(self, step: int) -> Any:
        """The training data of the update with ``step`` completed updates before it."""
        ...

    def loss(self, batch: Any) -> torch.Tensor:
        """The scalar to minimize on ``batch``."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out data, ``loss`` among them; must not change the task."""
        ...


class Workload(Protocol):
    """Builds tasks. A workload may also have ``digest()``, ``default_peak`` and ``describe()``."""

    def build(self, seed: int) -> Task:
        """A new task whose weights and data order depend on ``seed`` alone."""
        ...


@dataclass(frozen=True)
class WorkloadSpec:
    """Where a workload is found and with which options: all of it that fits into a file.

    Attributes:
        path: ``text``, ``digits`` or ``package.module:name``; the name is a class with a method
            ``build(seed)``, or a function ``build(seed)`` itself.
        options: Keyword arguments of the class or of the function; plain JSON values.
    """

    path: str = "text"
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Workload:
        """Import and make the workload.

        Raises:
            PlanError: If it cannot be imported or does not take the options.
        """
        target = self._target()
        try:
            if inspect.isclass(target):
                return cast("Workload", target(**self.options))
            inspect.signature(target).bind(0, **self.options)
        except (TypeError, ValueError) as error:
            raise PlanError(str(error), place=f"workload {self.path!r}") from error
        return _FunctionWorkload(target, self.options)

    def _target(self) -> Callable[..., Any]:
        place = f"workload {self.path!r}"
        path = BUILT_IN.get(self.path, self.path)
        module_name, colon, name = path.partition(":")
        if not colon or not module_name or not name:
            remedy = f"{nearest(path, BUILT_IN)}. Your own is written package.module:name"
            raise PlanError("no such workload", place=place, remedy=remedy)
        try:
            module = importlib.import_module(module_name)
        except MissingExtraError:
            raise
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name is not None
            if missing and module_name.startswith(error.name):  # type: ignore[attr-defined]
                problem, remedy = str(error), "Run from the folder it lies in, or install it"
            else:
                problem = f"importing it fails with {type(error).__name__}: {error}"
                remedy = f"Try  python -c 'import {module_name}'"
            raise PlanError(problem, place=place, remedy=remedy) from error
        target = getattr(module, name, None)
        if not callable(target):
            known = [key for key, value in vars(module).items() if callable(value)]
            raise PlanError(
                f"{module_name} has no function or class {name!r}",
                place=place,
                remedy=nearest(name, known),
            )
        return cast("Callable[..., Any]", target)

    def digest(self) -> str:
        """SHA-256 of everything that defines the workload: its code, options and data.

        The code is the file that the workload is defined in, and the data is what the workload's
        own ``digest()`` covers, if it has one.
        """
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode())
        source_file = inspect.getsourcefile(self._target())
        if source_file is not None:
            with open(source_file, "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
        own = getattr(self.load(), "digest", None)
        if own is not None:
            digest.update(str(own()).encode())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"path": self.path, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkloadSpec:
        """The inverse of :meth:`to_dict`."""
        return cls(data["path"], dict(data["options"]))


@dataclass(frozen=True)
class _FunctionWorkload:
    function: Callable[..., Task]
    options: Mapping[str, Any]

    def build(self, seed: int) -> Task:
        return self.function(seed, **self.options)


def require_installed(module: str, *, extra: str) -> None:
    """Fail early, without the time that importing takes, if a module is not there.

    Raises:
        MissingExtraError: Naming the pip command.
    """
    if importlib.util.find_spec(module) is None:
        require(module, extra=extra)


def check_task(task: Task, place: str) -> Task:
    """Return ``task`` if it has everything a task needs.

    Raises:
        PlanError: Naming what it lacks.
    """
    needed = ("model", "optimizer", "batch", "loss", "evaluate", "tokens_per_batch")
    lacking = [name for name in needed if not hasattr(task, name)]
    if lacking:
        raise PlanError(
            f"the task that it builds lacks {', '.join(lacking)}",
            place=place,
            remedy="See trainplan.lab.Task for what a task has",
        )
    return task


def check_data(plan: Plan) -> None:
    """Refuse to ignore what a plan says of the data: workloads bring and order their own.

    Raises:
        PlanError: If the plan has ``data``.
    """
    if plan.data is not None:
        raise PlanError(
            "workloads order their own data",
            place="data",
            value=plan.data.plain(),
            remedy="Leave it out, or compare orders in a workload of your own that builds them "
            "with trainplan.data",
        )


def check_knobs(names: Collection[str], task: Task) -> tuple[str, ...]:
    """The knobs among ``names`` that the task itself takes; the rest are the optimizer's.

    Raises:
        PlanError: If neither the optimizer nor the task takes one of them.
    """
    of_task = frozenset(getattr(task, "knobs", ()))
    of_optimizer = frozenset(task.optimizer.defaults) | frozenset(task.optimizer.param_groups[0])
    of_optimizer -= {"params"}
    for name in names:
        if name not in of_task and name not in of_optimizer:
            takes = sorted(of_task | of_optimizer)
            raise PlanError(
                f"neither {type(task.optimizer).__name__} nor the workload takes this knob",
                place=name,
                remedy=f"{nearest(name, takes)} (a workload takes the knobs that it lists in "
                "`knobs` and receives in `apply`)",
            )
    return tuple(name for name in names if name in of_task)
