"""Learning one thing after another without forgetting the first.

    found = tp.continual.transfer(accuracies)          # [i, j]: task j after learning task i
    found.average_backward                             # below zero: something was forgotten

Names load when they are first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainplan.continual.retained import retention
    from trainplan.continual.transfers import Transfer, transfer

_HOME = {
    "Transfer": "transfers",
    "retention": "retained",
    "transfer": "transfers",
}

__all__ = ["Transfer", "retention", "transfer"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
