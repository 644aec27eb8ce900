"""Accelerate: apply a plan in a loop of one's own, on any number of processes.

    run = tp.accelerate.attach(plan, optimizer, accelerator)

A scheduler that went through ``accelerator.prepare`` is stepped once for every process, and one
that did not, once for every accumulated batch. The plan counts neither calls nor processes but
updates, by the hooks of the optimizer inside Accelerate's wrapper: the same for any
``num_processes``, ``split_batches`` and ``gradient_accumulation_steps``, and not for updates that
mixed precision skips. So the plan itself must not be prepared, and needs no ``step()``.
"""

from __future__ import annotations

from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.integrations.resuming import recall, remember
from trainplan.integrations.torch import Run, claim, torch
from trainplan.plan import Plan

accelerate = require("accelerate", extra="hf")


class AcceleratedRun(Run):
    """A plan at work on all processes; made by `attach`.

    Every process has one, and they must stay alike: otherwise controllers would set another
    learning rate on each, and the copies of the model would drift apart.
    """

    def __init__(self, plan: Plan, optimizer: Any, names: list[str], accelerator: Any) -> None:
        self.accelerator = accelerator
        super().__init__(plan, optimizer, names)

    def count(self, *, tokens: int = 0, samples: int = 0) -> None:
        """Count data of this process that the coming update is made of; the sum counts.

        Call it on every process, once for each micro-batch.
        """
        tokens, samples = (int(n) for n in self._over_processes([tokens, samples], "sum"))
        super().count(tokens=tokens, samples=samples)

    def observe(self, **signals: float) -> None:
        """Tell the controllers what the run reports: the mean over all processes.

        Call it on every process, with the same names, once for each update or evaluation.
        """
        means = self._over_processes(list(signals.values()), "mean")
        super().observe(**dict(zip(signals, means, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """The clock, the controllers' states, and the plan to compare with."""
        return {**super().state_dict(), "plan": remember(self.plan, self.plan)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If the plan has another past than the one of the state.
        """
        super().load_state_dict(state)
        recall(state["plan"], self.plan, self.t)

    def _over_processes(self, numbers: list[Any], how: str) -> list[float]:
        if self.accelerator.num_processes == 1:
            return [float(x) for x in numbers]
        exact = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        tensor = torch.tensor(
            numbers, dtype=torch.int64 if how == "sum" else exact, device=self.accelerator.device
        )
        total = self.accelerator.reduce(tensor, reduction="sum").tolist()
        return [x if how == "sum" else x / self.accelerator.num_processes for x in total]


def attach(plan: Plan, optimizer: Any, accelerator: Any, *, others: str = "ignore") -> Run:
    """Let a plan drive an optimizer under Accelerate.

    As `trainplan.torch.attach`, with three differences: the optimizer may be a prepared one; what
    controllers hear and what is counted is brought together over the processes; and
    ``accelerator.save_state`` and ``load_state`` take the clock and the controllers with them.

    Accelerate loads such states with pickle: load only checkpoints that you trust. Call
    ``accelerator.wait_for_everyone()`` between saving and loading.

    Args:
        plan: The plan.
        optimizer: The optimizer, before or after ``accelerator.prepare``.
        accelerator: The ``accelerate.Accelerator``.
        others: What to do with knobs that the optimizer does not have, as in ``torch.attach``.

    Raises:
        PlanError: If a prepared scheduler drives the optimizer's learning rate too, or as
            ``torch.attach`` does.

    >>> import accelerate, torch, trainplan as tp
    >>> accelerator = accelerate.Accelerator(cpu=True)
    >>> weight = torch.nn.Parameter(torch.ones(()))
    >>> optimizer = accelerator.prepare(torch.optim.SGD([weight]))
    >>> plan = tp.Plan(horizon=10, lr=tp.schedules.linear(0.5))
    >>> run = tp.accelerate.attach(plan, optimizer, accelerator)
    >>> for _ in range(2):
    ...     accelerator.backward(weight)
    ...     optimizer.step()
    >>> run.t, run.values
    (2, {'lr': 0.45})
    """
    inner = bare(optimizer)
    if "lr" in plan:
        _refuse_schedulers(accelerator, inner)
    run = AcceleratedRun(plan, inner, claim(plan, inner, others=others), accelerator)
    accelerator.register_for_checkpointing(run)
    return run


def _refuse_schedulers(accelerator: Any, optimizer: Any) -> None:
    for scheduler in accelerator._schedulers:
        driven = scheduler.optimizers if hasattr(scheduler, "optimizers") else [scheduler.optimizer]
        if any(bare(other) is optimizer for other in driven):
            raise PlanError(
                "a prepared scheduler drives it too",
                place="lr",
                value=type(getattr(scheduler, "scheduler", scheduler)).__name__,
                remedy="Do not prepare a scheduler beside a plan",
            )


def bare(optimizer: Any) -> Any:
    """The PyTorch optimizer inside Accelerate's wrapper, whose step hooks do not fire."""
    while isinstance(optimizer, accelerate.optimizer.AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer
