"""Small reference networks that the lab and the studies train."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainplan._extras import require

if TYPE_CHECKING:
    from trainplan.models.decoder import Decoder
    from trainplan.models.encoder import Encoder, masked_token_loss
    from trainplan.models.mixing import MixedOperation, max_w_coefficients, mix

_HOME = {
    "Decoder": "trainplan.models.decoder",
    "Encoder": "trainplan.models.encoder",
    "masked_token_loss": "trainplan.models.encoder",
    "MixedOperation": "trainplan.models.mixing",
    "max_w_coefficients": "trainplan.models.mixing",
    "mix": "trainplan.models.mixing",
}

__all__ = [
    "Decoder",
    "Encoder",
    "MixedOperation",
    "masked_token_loss",
    "max_w_coefficients",
    "mix",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainplan.models' has no attribute {name!r}")
    require("torch", extra="torch")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
