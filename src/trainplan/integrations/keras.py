"""Keras 3: a plan's learning rate as a Keras schedule.

    optimizer = keras.optimizers.AdamW(learning_rate=tp.keras.LearningRate(plan))

It is saved in the model file as plain values, and found again by ``keras.saving.load_model`` once
``trainplan.keras`` has been imported. The clock is the optimizer's, which Keras saves and restores.

Keras reads weight decay and betas once, when the optimizer is built, so that a plan cannot change
them while it trains.
"""

from __future__ import annotations

from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.integrations.counts import by_count
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule

keras = require("keras", extra="keras")
_LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule

_BACKENDS = ("jax", "torch")


@keras.saving.register_keras_serializable(package="trainplan")
class LearningRate(_LearningRateSchedule):  # type: ignore[misc, valid-type]
    """The knob ``lr`` of a plan; its other knobs are not driven.

    Args:
        plan: The plan, or its `Plan.to_dict` (which a saved model holds). One in tokens, samples
            or epochs needs the rate that converts it to updates, such as ``tokens_per_step``.
        gradient_accumulation_steps: The optimizer's argument of this name, if it has one: Keras
            then passes the number of batches to a schedule, not that of updates.

    Raises:
        PlanError: If ``lr`` is not a schedule, or Keras runs on another backend than JAX and
            PyTorch.

    >>> import trainplan as tp
    >>> lr = LearningRate(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)))
    >>> float(lr(5))
    0.25
    >>> lr.get_config()
    {'plan': {'horizon': 10, 'lr': {'linear': {'peak': 0.5}}}}
    """

    def __init__(
        self, plan: Plan | dict[str, Any], gradient_accumulation_steps: int | None = None
    ) -> None:
        self.plan = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
        lr = self.plan.ready.get("lr")
        if not isinstance(lr, Schedule):
            raise PlanError(
                "Keras takes one schedule here",
                place="lr",
                value=lr,
                remedy="A controller needs a float learning rate that a Keras callback assigns",
            )
        if keras.backend.backend() not in _BACKENDS:
            raise PlanError(
                "Keras must run on JAX or PyTorch",
                place="KERAS_BACKEND",
                value=keras.backend.backend(),
                remedy="Set KERAS_BACKEND=jax (or torch) before Keras is imported",
            )
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._rate = by_count(self.plan, lr, "lr")

    def __call__(self, step: Any) -> Any:
        """The learning rate after ``step`` updates (or batches, if they are accumulated).

        Args:
            step: A count, scalar tensor or Keras variable of integers; traced ones too.

        Returns:
            A float32 tensor of the backend, shape ().
        """
        count = keras.ops.convert_to_tensor(step)
        if self.gradient_accumulation_steps:
            count = count // self.gradient_accumulation_steps
        return keras.ops.cast(self._rate(count), "float32")

    def get_config(self) -> dict[str, Any]:
        """What rebuilds it, as plain values."""
        kept = self.plan.to_dict()
        for name in self.plan:
            if name != "lr":
                del kept[name]
        config: dict[str, Any] = {"plan": kept}
        if self.gradient_accumulation_steps:
            config["gradient_accumulation_steps"] = self.gradient_accumulation_steps
        return config
