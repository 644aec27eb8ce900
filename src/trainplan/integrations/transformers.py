"""Hugging Face Transformers: apply a plan inside ``Trainer``.

    Trainer(..., callbacks=[tp.transformers.PlanCallback(plan)])

The callback sets every knob of the optimizer before the forward pass of each update, makes the
logged ``learning_rate`` the one that was used, lets controllers hear what is logged (evaluations
included), and keeps the clock, the controllers' state and the plan's past in the checkpoint.

The clock is ``state.global_step``. It also counts updates that fp16 overflow has skipped.
"""

from __future__ import annotations

import copy
from typing import Any

from trainplan import lint
from trainplan._extras import require
from trainplan.errors import PlanError, nearest
from trainplan.integrations.counts import counts_updates, time_after
from trainplan.integrations.hf_data import order_data as order_data  # noqa: PLC0414  (exported)
from trainplan.integrations.hf_groups import number, settle_common, settle_decay
from trainplan.integrations.hf_lint import check, check_length, report
from trainplan.integrations.hf_own_tokens import (
    mix_own_tokens as mix_own_tokens,  # noqa: PLC0414  (exported)
)
from trainplan.integrations.hf_phases import (
    train_or_load as train_or_load,  # noqa: PLC0414  (exported)
)
from trainplan.integrations.resuming import recall, remember
from trainplan.integrations.torch import PlanScheduler, Run, claim
from trainplan.integrations.trackers import scalars
from trainplan.knobs import Value
from trainplan.lint import Finding
from trainplan.plan import Plan

transformers = require("transformers", extra="hf")
require("accelerate", extra="hf")
_TrainerCallback = transformers.TrainerCallback

_KEY = "trainplan"
"""Where the state stands in ``trainer_state.json``, under ``stateful_callbacks``."""


class PlanCallback(_TrainerCallback):  # type: ignore[misc, valid-type]
    """Let a plan drive a ``Trainer``.

    Use ``TrainingArguments(lr_scheduler_type="constant")``: another scheduler does no harm to the
    training, but checkpoints then hold its numbers. A group without weight decay, as ``Trainer``
    makes one for biases and norms, keeps none, also under a plan with ``weight_decay``.

    When a run is resumed with a larger ``max_steps`` than before, the plan is extended there if
    its past allows it (``plan.extend``), and else refused. A plan whose past is not that of the
    checkpoint is refused too.

    Controllers hear every number of every log row by its name there: ``loss`` (the mean since the
    last row), ``grad_norm``, ``eval_loss``, rewards.

    Args:
        plan: The plan.
        others: What to do with knobs that the optimizer does not have: ``"ignore"`` (read them
            from ``callback.values``) or ``"error"``.

    Attributes:
        plan: The plan at work; after an extension, the extended one.
        values: The values of all knobs used by the last update, or by the current one.
        run: The `trainplan.integrations.torch.Run` at work, while training.

    >>> import trainplan as tp
    >>> plan = tp.Plan(horizon=100, lr=tp.schedules.wsd(1e-3, warmup=10, decay=20))
    >>> PlanCallback(plan).plan.horizon
    100
    """

    def __init__(self, plan: Plan, *, others: str = "ignore") -> None:
        self.given = plan
        self.plan = plan
        self.others = others
        self.values: dict[str, Value] = {}
        self.run: Run | None = None
        self._fresh = {name: copy.deepcopy(c.state_dict()) for name, c in plan.controllers.items()}
        self._driven: tuple[str, ...] = ()
        self._wrote: list[tuple[Any, ...]] = []
        self._memory: dict[str, Any] = {}
        self._tokens = 0

    # What hosts with knobs of their own add

    def elsewhere(self) -> set[str]:
        """The knobs that are set elsewhere than in the optimizer."""
        return set()

    def set_elsewhere(self, values: dict[str, Value]) -> None:
        """Set the knobs named by `elsewhere`, and put what they were set to into ``values``."""

    def check(self, args: Any) -> list[Finding]:
        """What is likely wrong with these arguments beside this plan."""
        return check(self.given, args, driven=self.elsewhere() | set(self._driven))

    # Trainer's events, in their order

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take hold of the optimizer, and find where the run is."""
        optimizer, scheduler = bare(kwargs["optimizer"]), kwargs["lr_scheduler"]
        self._refuse_second_plan(state)
        if self.run is not None:
            self.run.detach()  # the last train() was interrupted
        self._driven = tuple(claim(self.given, optimizer, least=0))
        self._refuse_strangers(optimizer)
        _refuse_second_scheduler(scheduler, optimizer, args, driven="lr" in self._driven)
        report(self.check(args))
        memory = state.stateful_callbacks.get(_KEY)
        self._tokens = int(state.num_input_tokens_seen)
        self.plan = self._continue(memory, state)
        report(check_length(self.plan, state))
        self._memory = remember(self.given, self.plan)
        if state.global_step:
            settle_common(optimizer, self._driven)
        if "weight_decay" in self._driven:
            settle_decay(optimizer, kwargs["model"])
        self.run = Run(self.plan, optimizer, self._driven)
        states = {"clock": self.run.clock.state_dict(), "controllers": self._fresh}
        self.run.load_state_dict(memory["run"] if memory else states)
        self._apply(state, scheduler)
        self._save(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the values of the coming update."""
        self._refuse_second_writer(kwargs["lr_scheduler"])
        self._apply(state, kwargs["lr_scheduler"])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See that nobody else has written since."""
        self._refuse_second_writer(None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the update."""
        # Not at the beginning of one: some versions have counted its tokens by then.
        self._tokens = int(state.num_input_tokens_seen)
        self._tell_time(state)
        self._save(state)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Add the plan's values to the row, and let controllers hear it."""
        if self.run is None or not logs:
            return
        signals = {k: float(v) for k, v in logs.items() if _is_signal(k, v)}
        if "loss" in logs:
            row = scalars(self.values, self.plan.controllers)
            logs.update(row)
            state.log_history[-1].update(row)
        self._tell_time(state)
        if self.plan.controllers:
            self.run.observe(**signals)
            self._wrote = self._written()
            self._save(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the optimizer."""
        if self.run is not None:
            self.run.detach()
            self.run = None

    # How

    def _refuse_second_plan(self, state: Any) -> None:
        owner = getattr(state, "_plan_callback", self)
        if owner is not self:
            raise PlanError(
                "the trainer has a plan already",
                place="callbacks",
                remedy="Put all knobs into one plan",
            )
        state._plan_callback = self

    def _refuse_strangers(self, optimizer: Any) -> None:
        strangers = sorted(set(self.given) - set(self._driven) - self.elsewhere())
        if strangers and self.others == "error":
            raise PlanError(
                f"{type(optimizer).__name__} has no hyperparameter {strangers[0]!r}",
                place=strangers[0],
                remedy=nearest(strangers[0], optimizer.defaults),
            )

    def _continue(self, memory: dict[str, Any] | None, state: Any) -> Plan:
        """The plan for the rest of the run: as given, or extended."""
        if memory is None:
            return self.given
        if not counts_updates(self.given):
            return recall(memory, self.given, state.num_input_tokens_seen)
        at = time_after(self.given, state.global_step)
        plan = recall(memory, self.given, at)
        longest = time_after(plan, state.max_steps)
        grown = state.max_steps > memory["max_steps"]
        if not grown or plan.horizon is None or longest <= plan.horizon:
            return plan
        longer = plan.extend(at=at, horizon=longest)
        report([finding for finding in lint.check(longer) if finding.level == "warning"])
        return longer

    def _tell_time(self, state: Any) -> None:
        if self.run is not None:
            self.run.clock.steps = int(state.global_step)
            self.run.clock.tokens = self._tokens

    def _apply(self, state: Any, scheduler: Any) -> None:
        if self.run is None:
            return
        self._tell_time(state)
        self.run.apply()
        self.values = dict(self.run.values)
        self.set_elsewhere(self.values)
        self._wrote = self._written()
        if "lr" in self._driven and hasattr(scheduler, "_last_lr"):
            # What Trainer logs as the learning rate.
            scheduler._last_lr = [float(group["lr"]) for group in self.run.optimizer.param_groups]

    def _written(self) -> list[tuple[Any, ...]]:
        groups = self.run.optimizer.param_groups if self.run is not None else []
        return [tuple(number(group[name]) for name in self._driven) for group in groups]

    def _refuse_second_writer(self, scheduler: Any) -> None:
        """Nothing but Trainer's own scheduler may have written a driven knob since `_apply`."""
        hosts = list(getattr(scheduler, "_last_lr", ()))
        for i, (mine, now) in enumerate(zip(self._wrote, self._written(), strict=False)):
            for name, wrote, found in zip(self._driven, mine, now, strict=True):
                by_host = name == "lr" and i < len(hosts) and found == number(hosts[i])
                if found != wrote and not by_host:
                    raise PlanError(
                        f"something beside the plan has changed {name} from {wrote} in group {i}",
                        place=name,
                        value=found,
                        remedy="Remove the other callback or scheduler, or leave the knob out of "
                        "the plan",
                    )

    def _save(self, state: Any) -> None:
        # The Trainer restores the callbacks that export a state by building new ones from old
        # arguments; an entry of our own is kept as it is.
        if self.run is not None:
            state.stateful_callbacks[_KEY] = {
                "run": self.run.state_dict(),
                "max_steps": int(state.max_steps),
                **self._memory,
            }


def attach(plan: Plan, trainer: Any, *, others: str = "ignore") -> PlanCallback:
    """Let a plan drive a ``Trainer`` that exists already.

    As `PlanCallback` does; and it stands before the trackers' callbacks, so that they see the
    plan's other values (``plan/weight_decay``) too.
    """
    callback = PlanCallback(plan, others=others)
    enrol(callback, trainer)
    return callback


def enrol(callback: PlanCallback, trainer: Any) -> None:
    """Put a callback before all others of a trainer."""
    trainer.callback_handler.callbacks.insert(0, callback)


def plan_scheduler(plan: Plan, optimizer: Any) -> Any:
    """A plan's learning rate for ``Trainer(..., optimizers=(optimizer, scheduler))``.

    Give the optimizer itself as the first of the two: with None there, ``Trainer`` makes another
    one, and the scheduler, which would drive the wrong one, raises at its first step. Weight decay
    and betas are not driven: use `PlanCallback` for a plan that has them.

    Raises:
        PlanError: If the plan has other knobs of the optimizer, or is not in steps.

    >>> import torch, trainplan as tp
    >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(()))])
    >>> scheduler = plan_scheduler(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)), optimizer)
    >>> scheduler.get_last_lr()
    [0.5]
    """
    idle = [name for name in claim(plan, optimizer) if name != "lr"]
    if idle:
        raise PlanError(
            "a scheduler drives the learning rate only",
            place=idle[0],
            value=plan.knobs[idle[0]],
            remedy="Use callbacks=[tp.transformers.PlanCallback(plan)]",
        )
    return TrainerScheduler(plan, optimizer)


class TrainerScheduler(PlanScheduler):
    """A plan's learning rate that refuses a checkpoint with another past; see `plan_scheduler`."""

    def __init__(self, plan: Plan, optimizer: Any) -> None:
        if plan.unit != "steps" or "lr" not in plan:
            raise PlanError(
                "a scheduler needs a plan in steps with a knob lr", value=plan.unit, place="unit"
            )
        self._plan = plan
        super().__init__(optimizer, plan.ready["lr"])  # type: ignore[arg-type]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step.

        Raises:
            PlanError: If the optimizer has made none.
        """
        if self._step_count > 0 and not getattr(self.optimizer, "_opt_called", False):
            raise PlanError(
                "the scheduler drives an optimizer that makes no steps",
                place="optimizers",
                remedy="Give Trainer optimizers=(optimizer, scheduler), both of them",
            )
        super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The step count, and the plan, to compare with."""
        return {**super().state_dict(), "plan": remember(self._plan, self._plan)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the step count, and the rates that this plan has there."""
        if "plan" in state_dict:
            recall(state_dict["plan"], self._plan, state_dict["last_epoch"])
        super().load_state_dict(state_dict)


def bare(optimizer: Any) -> Any:
    """The PyTorch optimizer inside Accelerate's wrapper, whose step hooks do not fire."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _is_signal(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and name not in ("learning_rate", "epoch", "step")


def _refuse_second_scheduler(scheduler: Any, optimizer: Any, args: Any, *, driven: bool) -> None:
    """Only Trainer's own schedulers may stand beside a plan with a learning rate."""
    if driven and not _is_trainers_own(scheduler, args):
        raise PlanError(
            f"{type(scheduler).__name__} drives the learning rate too",
            place="lr",
            value=scheduler,
            remedy="Give Trainer optimizers=(optimizer, None), or leave lr out of the plan",
        )
    drives = getattr(scheduler, "optimizer", None)
    if drives is not None and bare(drives) is not optimizer:
        raise PlanError(
            "the scheduler drives another optimizer than the one that trains",
            place="optimizers",
            remedy="Give Trainer optimizers=(optimizer, scheduler), both of them",
        )


def _is_trainers_own(scheduler: Any, args: Any) -> bool:
    functions = [getattr(f, "func", f) for f in getattr(scheduler, "lr_lambdas", ())]
    if functions:
        return all(f.__module__ == transformers.optimization.__name__ for f in functions)
    # The two that are not functions of the step, and so listen to the evaluation.
    listens = str(args.lr_scheduler_type.value) in ("reduce_lr_on_plateau", "greedy")
    return listens and not isinstance(scheduler, PlanScheduler)
