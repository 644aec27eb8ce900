"""TRL: apply a plan inside its trainers, to their own knobs too.

    callback = tp.trl.attach(plan, trainer)      # SFT, DPO, GRPO, RLOO

A plan of the optimizer's knobs alone works through `trainplan.transformers.PlanCallback`, as in
any ``Trainer``. For what TRL reads from its trainer at each step, the plan needs the trainer:

- ``max_completion_length`` (GRPO, RLOO): tokens that a rollout may have, rounded to a whole
  number. It acts with the next generation, so it is held while completions are reused
  (``steps_per_generation``, ``num_iterations``).
- ``reward_weights`` (GRPO, RLOO): one number for each reward function.
- ``beta`` (DPO, GRPO, RLOO): only if it is not 0 in the config, without which there is no
  reference model.
- ``epsilon_low``, ``epsilon_high`` (GRPO, RLOO): the clipping range.
- ``label_smoothing``, ``loss_weights`` (DPO).

Refused are ``temperature``, which TRL builds into the scoring of completions when the trainer is
made, so that a later change would sample from one distribution and score by another; and what its
sampler and data loader are built from (``num_generations``, ``steps_per_generation``, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.integrations import transformers as hf
from trainplan.integrations.hf_data import order_data as order_data  # noqa: PLC0414  (exported)
from trainplan.integrations.hf_lint import by_steps
from trainplan.integrations.preference_stages import (
    PreferenceStage as PreferenceStage,  # noqa: PLC0414  (exported)
)
from trainplan.integrations.preference_stages import (
    train_stages as train_stages,  # noqa: PLC0414  (exported)
)
from trainplan.integrations.torch import torch
from trainplan.knobs import Value
from trainplan.lint import Finding
from trainplan.plan import Plan

require("trl", extra="hf")

_FIXED = {
    "temperature": "TRL builds it into the scoring of completions when the trainer is made: they "
    "would be sampled from one distribution and scored by another",
    **dict.fromkeys(
        (
            "num_generations",
            "num_iterations",
            "steps_per_generation",
            "generation_batch_size",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
        ),
        "TRL builds its sampler and data loader from it when the trainer is made",
    ),
}


class PlanCallback(hf.PlanCallback):
    """Let a plan drive a TRL trainer; made by `attach`.

    Attributes:
        trainer: The trainer.
    """

    def __init__(self, plan: Plan, trainer: Any, *, others: str = "ignore") -> None:
        super().__init__(plan, others=others)
        self.trainer = trainer
        self._setters = {name: _KNOBS[name] for name in plan if name in _KNOBS}
        _check_knobs(plan, trainer, self._setters)

    def elsewhere(self) -> set[str]:
        """The knobs that TRL has and the optimizer has not."""
        return set(self._setters)

    def set_elsewhere(self, values: dict[str, Value]) -> None:
        """Set TRL's knobs for the coming update, and note what they were set to."""
        for name, set_value in self._setters.items():
            values[name] = set_value(self.trainer, values[name])

    def check(self, args: Any) -> list[Finding]:
        """What is likely wrong with these arguments beside this plan."""
        return super().check(args) + check(args)


def attach(plan: Plan, trainer: Any, *, others: str = "ignore") -> PlanCallback:
    """Let a plan drive a TRL trainer: the optimizer's knobs and TRL's own.

    Args:
        plan: The plan.
        trainer: An ``SFTTrainer``, ``DPOTrainer``, ``GRPOTrainer`` or ``RLOOTrainer``, before
            ``train()``.
        others: What to do with knobs that neither has: ``"ignore"`` (read them from
            ``callback.values``, in a reward function for example) or ``"error"``.

    Raises:
        PlanError: If a knob of TRL cannot be changed during training, or this trainer lacks it.
    """
    callback = PlanCallback(plan, trainer, others=others)
    hf.enrol(callback, trainer)
    return callback


def check(args: Any) -> list[Finding]:
    """What is likely wrong with a config of GRPO or RLOO that is resumed one day.

    Completions are made anew after every ``steps_per_generation * num_iterations`` micro-batches.
    A checkpoint does not hold the ones in use, nor where in the block it was saved: resumed inside
    a block, the run generates at other steps, from prompts that it has seen.

    >>> import trl
    >>> args = trl.GRPOConfig(
    ...     "out", use_cpu=True, bf16=False, num_generations=2, per_device_train_batch_size=2,
    ...     steps_per_generation=4, save_steps=6,
    ... )
    >>> [finding.remedy for finding in check(args)]
    ['Make save_steps a multiple of 4']
    """
    per_generation = getattr(args, "steps_per_generation", None)
    if per_generation is None or not by_steps(args.save_strategy):
        return []
    block = per_generation * getattr(args, "num_iterations", 1)
    accumulated = args.gradient_accumulation_steps
    if args.save_steps < 1 or (args.save_steps * accumulated) % block == 0:
        return []
    return [
        Finding(
            "warning",
            "save_steps",
            f"checkpoints after every {args.save_steps:g} updates fall into blocks of "
            f"{block / accumulated:g} updates that share completions: resumed there, other prompts "
            "are used than without the stop",
            f"Make save_steps a multiple of {_least_updates(block, accumulated)}",
        )
    ]


def _least_updates(block: int, accumulated: int) -> int:
    """The fewest updates that are made of whole blocks of micro-batches."""
    return block // math.gcd(block, accumulated)


def _check_knobs(plan: Plan, trainer: Any, setters: dict[str, Any]) -> None:
    kind = type(trainer).__name__
    for name in plan:
        if name in _FIXED and hasattr(trainer.args, name):
            raise PlanError(
                f"it cannot change while {kind} runs: {_FIXED[name]}",
                place=name,
                value=plan.knobs[name],
                remedy=f"Set it once, in {type(trainer.args).__name__}",
            )
    for name in setters:
        if not hasattr(trainer, name):
            raise PlanError(f"{kind} has no such knob", place=name, value=plan.knobs[name])
        knob = plan.knobs[name]
        size = len(getattr(trainer, name)) if name in ("reward_weights", "loss_weights") else 0
        if size != (len(knob) if isinstance(knob, tuple) else 0):
            what = f"{size} numbers" if size else "one number"
            raise PlanError(f"{kind} takes {what} here", place=name, value=knob)
    if "beta" in setters and not trainer.beta:
        raise PlanError(
            f"{kind} has no reference model, because beta is 0 in its config",
            place="beta",
            value=plan.knobs["beta"],
            remedy=f"Give {type(trainer.args).__name__} a beta above 0",
        )


def _set_attribute(name: str) -> Callable[[Any, Any], Value]:
    def set_value(trainer: Any, value: Any) -> Value:
        setattr(trainer, name, float(value))
        return float(value)

    return set_value


def _set_completion_length(trainer: Any, value: Any) -> Value:
    tokens: int = math.floor(value + 0.5)
    if tokens < 1:
        raise PlanError(
            "a completion needs a token", place="max_completion_length", value=float(value)
        )
    trainer.max_completion_length = tokens  # normalizes the loss
    if getattr(trainer, "use_vllm", False):
        trainer.vllm_generation.max_completion_length = tokens
    else:
        trainer.generation_config.max_new_tokens = tokens
    return tokens


def _set_reward_weights(trainer: Any, value: Any) -> Value:
    old = trainer.reward_weights
    trainer.reward_weights = torch.tensor(value, dtype=old.dtype, device=old.device)
    return tuple(value)


def _set_loss_weights(trainer: Any, value: Any) -> Value:
    trainer.loss_weights = [float(weight) for weight in value]
    return tuple(value)


_KNOBS: dict[str, Callable[[Any, Any], Value]] = {
    "max_completion_length": _set_completion_length,
    "reward_weights": _set_reward_weights,
    "loss_weights": _set_loss_weights,
    **{
        name: _set_attribute(name)
        for name in ("beta", "epsilon_low", "epsilon_high", "label_smoothing")
    },
}
