"""Everything that changes while a model trains, written once as a plan.

    import trainplan as tp

    lr = tp.schedules.wsd(peak=3e-4, warmup="2%", decay="20%", shape="1-sqrt")
    plan = tp.Plan(horizon=20_000, lr=lr, weight_decay=0.1)
    run = tp.torch.attach(plan, optimizer)

A *schedule* is a pure function of time. A *controller* is a schedule that listens. A *plan* is
every knob of one run. Rooms load when they are first touched, so importing the package costs
next to nothing and never imports PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainplan._version import __version__

if TYPE_CHECKING:
    from trainplan import continual, data, lab, laws, models, optim, papers, schedules
    from trainplan.errors import MissingExtraError, PlanError
    from trainplan.integrations import (
        accelerate,
        keras,
        lightning,
        optax,
        torch,
        trackers,
        transformers,
        trl,
    )
    from trainplan.lint import Finding, check
    from trainplan.plan import Plan
    from trainplan.schedules.controllers import Controller

_HOME = {
    "Controller": "trainplan.schedules.controllers",
    "Finding": "trainplan.lint",
    "MissingExtraError": "trainplan.errors",
    "Plan": "trainplan.plan",
    "PlanError": "trainplan.errors",
    "check": "trainplan.lint",
}
_ROOMS = {
    "accelerate": "trainplan.integrations.accelerate",
    "continual": "trainplan.continual",
    "data": "trainplan.data",
    "keras": "trainplan.integrations.keras",
    "lab": "trainplan.lab",
    "laws": "trainplan.laws",
    "lightning": "trainplan.integrations.lightning",
    "models": "trainplan.models",
    "optax": "trainplan.integrations.optax",
    "optim": "trainplan.optim",
    "papers": "trainplan.papers",
    "schedules": "trainplan.schedules",
    "torch": "trainplan.integrations.torch",
    "trackers": "trainplan.integrations.trackers",
    "transformers": "trainplan.integrations.transformers",
    "trl": "trainplan.integrations.trl",
}

__all__ = [
    "Controller",
    "Finding",
    "MissingExtraError",
    "Plan",
    "PlanError",
    "__version__",
    "accelerate",
    "check",
    "continual",
    "data",
    "keras",
    "lab",
    "laws",
    "lightning",
    "models",
    "optax",
    "optim",
    "papers",
    "schedules",
    "torch",
    "trackers",
    "transformers",
    "trl",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = importlib.import_module(_ROOMS[name])
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'trainplan' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
