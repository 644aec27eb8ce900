"""Lightning: a plan as a callback, or as the answer of ``configure_optimizers``.

    trainer = lightning.Trainer(callbacks=[tp.lightning.PlanCallback(plan)])

The callback drives every knob of the plan; ``configure_optimizers(plan, optimizer)`` only the
learning rate, through Lightning's own scheduler machinery. Use one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.integrations import torch as plain_torch
from trainplan.integrations.resuming import recall, remember
from trainplan.integrations.trackers import scalars
from trainplan.knobs import Value
from trainplan.plan import Plan

lightning = require("lightning.pytorch", extra="lightning")
_Callback = lightning.Callback


def configure_optimizers(plan: Plan, optimizer: Any) -> dict[str, Any]:
    """What ``LightningModule.configure_optimizers`` returns for a plan of the learning rate.

    The scheduler is stepped once per update, also under accumulation, and its state is the step
    count alone: a longer plan takes effect at once when the run is resumed.

    Args:
        plan: A plan in steps whose ``lr`` is a schedule.
        optimizer: A ``torch.optim.Optimizer``.

    Raises:
        PlanError: If the plan has other knobs of the optimizer, which this form cannot drive.

    >>> import torch, trainplan as tp
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))])
    >>> plan = tp.Plan(horizon=10, lr=tp.schedules.linear(0.5))
    >>> configure_optimizers(plan, optimizer)["lr_scheduler"]["interval"]
    'step'
    """
    for name in plan:
        if name != "lr" and name in optimizer.defaults:
            raise PlanError(
                "a Lightning scheduler drives the learning rate only",
                place=name,
                value=plan.knobs[name],
                remedy="Use PlanCallback, or give this one to the optimizer and not to the plan",
            )
    scheduler = plain_torch.as_lr_scheduler(plan, optimizer)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class PlanCallback(_Callback):  # type: ignore[misc, valid-type]
    """Let a plan drive an optimizer of a Lightning run.

    Values are set before the forward pass of an update and again right before its step. The clock
    counts the steps of this optimizer: accumulation, skipped mixed-precision steps and manual
    optimization with several optimizers are counted right. Checkpoints hold the clock and the
    controllers' states under this callback's name, so ``fit(ckpt_path=...)`` goes on exactly,
    also with a plan that was extended or branched. A plan with another past is refused.

    Controllers hear ``loss`` once per update (its mean over accumulated batches and processes;
    from manual optimization, the loss that ``training_step`` returns, if any), and every logged
    metric at the end of each validation.

    Args:
        plan: The plan.
        optimizer: Which optimizer of the module, if there are several.
        others: What to do with knobs that the optimizer lacks: "ignore" or "error". Read them in
            the module from ``callback.values``.
        tokens: Counts the tokens of a batch; needed for a plan in tokens without a
            ``tokens_per_step``.
        samples: Counts the samples of a batch; likewise.
        log: Whether values and controllers' states go to the trainer's loggers, as ``plan/lr``
            and so on, every ``log_every_n_steps``.

    Raises:
        PlanError: When fitting begins, if the module also returns a scheduler for this optimizer
            and the plan has an ``lr``, or if the plan has another past than the checkpoint's.

    >>> import trainplan as tp
    >>> callback = PlanCallback(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)))
    >>> callback.state_key
    "PlanCallback{'optimizer': 0}"
    """

    def __init__(
        self,
        plan: Plan,
        *,
        optimizer: int = 0,
        others: str = "ignore",
        tokens: Callable[[Any], int] | None = None,
        samples: Callable[[Any], int] | None = None,
        log: bool = True,
    ) -> None:
        self.plan = plan
        self.run: plain_torch.Run | None = None
        self._index = optimizer
        self._others = others
        self._counters = {"tokens": tokens, "samples": samples}
        self._log = log
        self._logged = -1
        self._fresh = {name: copy.deepcopy(c.state_dict()) for name, c in plan.controllers.items()}
        self._loaded: dict[str, Any] | None = None
        self._start_window()

    @property
    def values(self) -> dict[str, Value]:
        """The values of all knobs, for the update that is being made."""
        return self.plan.at(0) if self.run is None else self.run.values

    @property
    def state_key(self) -> str:
        """The name of this callback's state in checkpoints."""
        key: str = self._generate_state_key(optimizer=self._index)
        return key

    # Beginning and end

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget what an earlier call of the trainer had loaded."""
        self._loaded = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the plan, before any state of the optimizer is loaded."""
        optimizer = self._optimizer(trainer)
        before = self.run
        if before is not None:
            before.detach()
        self.run = plain_torch.attach(self.plan, optimizer, others=self._others)
        self._refuse_schedulers(trainer, optimizer)
        if self._loaded is None and before is not None and trainer.global_step > 0:
            self._loaded = self._state(before)  # fit was called again: the run goes on
        self._restore(self.run)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the clock from the trainer if the checkpoint was made without this callback."""
        run = self._running()
        if self._loaded is None and trainer.global_step > 0:
            if len(trainer.optimizers) > 1 or self._counts_data():
                raise PlanError(
                    "the checkpoint holds no clock of this plan",
                    place="ckpt_path",
                    remedy="Resume from one that was saved with this callback",
                )
            run.clock.steps = int(trainer.global_step)
        self._logged = -1
        self._start_window()
        run.apply()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the optimizer go; the state stays readable."""
        if stage == "fit" and self.run is not None:
            self.run.detach()

    # Every batch

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the values that this batch's update uses, count its data, and log."""
        run = self._running()
        run.apply()
        for unit, count in self._counters.items():
            if count is not None:
                run.count(**{unit: int(_over_ranks(trainer, int(count(batch)), "sum"))})
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # where the loss is logged too
        every = trainer.log_every_n_steps
        if self._log and every and (step + 1) % every == 0 and step != self._logged:
            self._logged = step
            row = scalars(run.values, self.plan.controllers)
            for logger in trainer.loggers:
                logger.log_metrics(row, step=step)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an update, tell the controllers its loss."""
        run = self._running()
        if self.plan.controllers:
            self._hear(outputs, trainer.accumulate_grad_batches, pl_module.automatic_optimization)
        if run.clock.steps == self._steps:
            return
        losses = self._losses
        self._start_window()
        if losses:
            run.observe(loss=_over_ranks(trainer, sum(losses) / len(losses), "mean"))
        # Whoever looks between two batches (a monitor that stands before us) sees what comes.
        run.apply()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell the controllers what was logged."""
        if self.run is not None and self.plan.controllers and not trainer.sanity_checking:
            logged = {name: float(x) for name, x in trainer.callback_metrics.items()}
            logged.pop("loss", None)  # heard after each update
            self.run.observe(**logged)

    # State

    def state_dict(self) -> dict[str, Any]:
        """The clock and the controllers' states, as plain numbers and text."""
        return self._loaded or {} if self.run is None else self._state(self.run)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; Lightning calls it before or after the run begins."""
        self._loaded = state_dict or None
        if self.run is not None:
            self._restore(self.run)

    def _state(self, run: plain_torch.Run) -> dict[str, Any]:
        return {"run": run.state_dict(), "plan": remember(self.plan, self.plan)}

    def _restore(self, run: plain_torch.Run) -> None:
        if self._loaded is None:
            run.load_state_dict(
                {"clock": plain_torch.Clock().state_dict(), "controllers": self._fresh}
            )
        else:
            run.load_state_dict(self._loaded["run"])
            recall(self._loaded["plan"], self.plan, run.t)
        self._start_window()

    def _running(self) -> plain_torch.Run:
        if self.run is None:
            raise RuntimeError("PlanCallback is used outside Trainer.fit")
        return self.run

    def _start_window(self) -> None:
        self._steps = 0 if self.run is None else self.run.clock.steps
        self._losses: list[float] = []

    def _hear(self, outputs: Any, accumulated: int, automatic: bool) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            # Lightning has divided the loss for the sake of the gradient.
            self._losses.append(float(loss) * (accumulated if automatic else 1))

    def _optimizer(self, trainer: Any) -> Any:
        optimizers = trainer.optimizers
        if not 0 <= self._index < len(optimizers):
            raise PlanError(
                f"the module has {len(optimizers)} optimizer(s)",
                place="optimizer",
                value=self._index,
                remedy="Count from 0",
            )
        optimizer = optimizers[self._index]
        if hasattr(optimizer, "register_step_pre_hook"):
            return optimizer
        return optimizer.optimizer  # DeepSpeed's wrapper

    def _refuse_schedulers(self, trainer: Any, optimizer: Any) -> None:
        for config in trainer.lr_scheduler_configs:
            if "lr" in self.plan and config.scheduler.optimizer is optimizer:
                raise PlanError(
                    "both the plan and a scheduler of the module drive it",
                    place="lr",
                    value=type(config.scheduler).__name__,
                    remedy="Return only the optimizer from configure_optimizers",
                )

    def _counts_data(self) -> bool:
        unit = self.plan.unit
        return unit in ("tokens", "samples") and f"{unit}_per_step" not in self.plan.rates


def _over_ranks(trainer: Any, number: float, how: str) -> float:
    """A number of this process, added up or averaged over all: every process must go on alike."""
    if trainer.world_size == 1:
        return number
    torch, device = plain_torch.torch, trainer.strategy.root_device
    exact = torch.float32 if device.type == "mps" else torch.float64
    kind = torch.int64 if isinstance(number, int) else exact
    total = trainer.strategy.reduce(
        torch.tensor(number, dtype=kind, device=device), reduce_op="sum"
    ).item()
    return float(total) / (trainer.world_size if how == "mean" else 1)
