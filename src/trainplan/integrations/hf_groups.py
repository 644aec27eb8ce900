"""Which of Trainer's groups of parameters a knob is for, and in what proportion.

`trainplan.integrations.torch` compares a group's own value with the optimizer's default, before
anything was scheduled or loaded. A ``Trainer`` callback comes later, after a checkpoint has been
loaded, and finds defaults that nobody meant; here the scales are settled before that comparison.
"""

from __future__ import annotations

from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError

transformers = require("transformers", extra="hf")


def number(value: Any) -> Any:
    """A hyperparameter as a Python number, or a tuple of them."""
    if isinstance(value, (tuple, list)):
        return tuple(float(item) for item in value)
    return float(value)


def settle_common(optimizer: Any, names: tuple[str, ...]) -> None:
    """Scales of a run whose checkpoint was made without a plan.

    Its groups hold values of then, and the optimizer's defaults are those of now. Groups that
    are all alike have no scales of their own, however both may differ.
    """
    groups = optimizer.param_groups
    for name in names:
        bases = {number(group.get(f"initial_{name}", group[name])) for group in groups}
        if len(bases) == 1 and not isinstance(groups[0][name], tuple):
            for group in groups:
                group.setdefault(f"{name}_scale", 1.0)


def settle_decay(optimizer: Any, model: Any) -> None:
    """Which groups weight decay is for.

    Trainer gives the groups their own values and leaves the optimizer's default as PyTorch has
    it (0.01 for AdamW), so the ratio to the default says nothing. With its own default of 0, the
    two groups can be told apart by what is in them only.
    """
    groups = optimizer.param_groups
    bases = [float(group["weight_decay"]) for group in groups]
    default = float(optimizer.defaults.get("weight_decay") or 0.0)
    if any("weight_decay_scale" in group for group in groups):
        return
    if any(bases):
        largest = default if default and default in bases else max(bases)
        shares: list[float] | None = [base / largest for base in bases]
    else:
        shares = _partition(groups, model) or ([1.0] * len(groups) if not default else None)
    if shares is None:
        raise PlanError(
            "the groups of parameters with weight decay cannot be told from those without",
            place="weight_decay",
            remedy="Give TrainingArguments a weight_decay above zero, or put weight_decay_scale "
            "(1 or 0) into the groups of the optimizer",
        )
    for group, share in zip(groups, shares, strict=True):
        group["weight_decay_scale"] = share


def _partition(groups: list[dict[str, Any]], model: Any) -> list[float] | None:
    """1 for groups of parameters that Trainer decays, 0 for others; None if it is another split."""
    names = set(transformers.Trainer.get_decay_parameter_names(None, model))
    decayed = {id(p) for name, p in model.named_parameters() if name in names}
    shares = []
    for group in groups:
        members = {id(p) for p in group["params"]}
        if not (members <= decayed or members.isdisjoint(decayed)):
            return None
        shares.append(1.0 if members <= decayed else 0.0)
    return shares
