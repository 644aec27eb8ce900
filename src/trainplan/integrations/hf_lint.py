"""Find what people get wrong in ``TrainingArguments`` beside a plan."""

from __future__ import annotations

import warnings
from typing import Any

from trainplan.errors import PlanError
from trainplan.integrations.counts import counts_updates, time_after
from trainplan.lint import Finding
from trainplan.plan import Plan


def check(plan: Plan, args: Any, *, driven: set[str] | None = None) -> list[Finding]:
    """What is likely wrong with ``TrainingArguments`` beside a plan.

    Args:
        plan: The plan.
        args: The arguments.
        driven: Knobs that are known to be set during training.

    >>> import transformers, trainplan as tp
    >>> args = transformers.TrainingArguments("out", use_cpu=True, lr_scheduler_type="cosine")
    >>> for finding in check(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)), args):
    ...     print(finding.place, finding.remedy)
    lr_scheduler_type Use lr_scheduler_type='constant'
    """
    findings: list[Finding] = []
    kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if "lr" in plan and kind != "constant":
        findings.append(
            Finding(
                "warning",
                "lr_scheduler_type",
                f"{kind!r} also drives the learning rate: the plan's is used, but checkpoints hold "
                "the other",
                "Use lr_scheduler_type='constant'",
            )
        )
    if "lr" in plan and args.warmup_steps:
        findings.append(
            Finding(
                "warning",
                "warmup_steps",
                f"{args.warmup_steps} has no effect: the plan's learning rate is used",
                "Write the warm-up into the plan",
            )
        )
    if plan.unit == "tokens" and "tokens_per_step" not in plan.rates and _counts_nothing(args):
        findings.append(
            Finding(
                "error",
                "include_num_input_tokens_seen",
                "the plan is in tokens, and nobody counts them",
                "Use include_num_input_tokens_seen='all', or give the plan tokens_per_step",
            )
        )
    if plan.unit == "samples" and "samples_per_step" not in plan.rates:
        findings.append(
            Finding(
                "error",
                "samples_per_step",
                "the plan is in samples, and Trainer does not count them",
                "Give the plan samples_per_step",
            )
        )
    if plan.controllers and _splits_a_row(args):
        findings.append(
            Finding(
                "warning",
                "save_steps",
                f"checkpoints after {args.save_steps} updates fall between log rows (every "
                f"{args.logging_steps}): a resumed controller hears the mean of fewer losses",
                "Make save_steps a multiple of logging_steps",
            )
        )
    findings += [
        Finding(
            "warning",
            name,
            f"this knob is also an argument of {type(args).__name__}, which is read once: the plan "
            "does not change it during training",
            "Use trainplan.trl.attach if it is one of TRL's, or read callback.values",
        )
        for name in plan
        if name not in {"weight_decay", *(driven or ())} and hasattr(args, name)
    ]
    return findings


def report(findings: list[Finding]) -> None:
    """Raise the first error, and warn of everything else.

    Raises:
        PlanError: For a finding of level ``error``.
    """
    for finding in findings:
        if finding.level == "error":
            raise PlanError(finding.message, place=finding.place, remedy=finding.remedy)
        warnings.warn(str(finding), stacklevel=3)


def check_length(plan: Plan, state: Any) -> list[Finding]:
    """What is odd about the length of the run."""
    if state.global_step and state.global_step >= state.max_steps:
        return [
            Finding(
                "warning",
                "max_steps",
                f"{state.max_steps} updates have been made already, and Trainer makes one more",
                "Raise max_steps, or do not resume",
            )
        ]
    length = time_after(plan, state.max_steps) if counts_updates(plan) else None
    if plan.horizon is None or length is None or length == plan.horizon:
        return []
    what = (
        "holds its last values"
        if length > plan.horizon
        else "is left before its end, maybe before its decay"
    )
    return [
        Finding(
            "warning",
            "horizon",
            f"the run lasts {length:g} {plan.unit}, the plan {plan.horizon:g}: it {what}",
            "Give Plan and TrainingArguments the same length, unless that is meant",
        )
    ]


def _counts_nothing(args: Any) -> bool:
    return args.include_num_input_tokens_seen in ("no", False)


def _splits_a_row(args: Any) -> bool:
    often = args.logging_steps >= 1 and by_steps(args.logging_strategy)
    return often and by_steps(args.save_strategy) and bool(args.save_steps % args.logging_steps)


def by_steps(strategy: Any) -> bool:
    """Whether an interval (an enumeration, or its name) is one of steps."""
    return str(getattr(strategy, "value", strategy)) == "steps"
