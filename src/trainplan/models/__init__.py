"""Small reference networks that the lab and the studies train."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainplan.models.decoder import Decoder
    from trainplan.models.mixing import MixedOperation, max_w_coefficients, mix

_HOME = {
    "Decoder": "trainplan.models.decoder",
    "MixedOperation": "trainplan.models.mixing",
    "max_w_coefficients": "trainplan.models.mixing",
    "mix": "trainplan.models.mixing",
}

__all__ = ["Decoder", "MixedOperation", "max_w_coefficients", "mix"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainplan.models' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
