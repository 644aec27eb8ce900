"""How a step is taken, and what becomes of the weights afterwards.

    averager = tp.optim.CheckpointAverager("sma", n=6)
    averager.push(model.state_dict())                  # at fixed intervals
    model.load_state_dict(averager.result())

Names load when they are first touched; this room needs PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainplan.optim.apollo import APOLLO, APOLLOMini
    from trainplan.optim.apollo_settings import split_params
    from trainplan.optim.averaging import CheckpointAverager, averaging_weights
    from trainplan.optim.coso import CoSOAdamW
    from trainplan.optim.coso_settings import quarter_cosine
    from trainplan.optim.dynamic_sparse import DynamicSparse
    from trainplan.optim.effective_rate import (
        EffectiveLRMonitor,
        ImplicitScheduleRecorder,
        effective_lr,
    )
    from trainplan.optim.frequent_directions import FrequentDirections
    from trainplan.optim.historical_subspace import HistoricalSubspace
    from trainplan.optim.layer_tracing import find_scale_invariant
    from trainplan.optim.norm_insertion import normalize_and_project
    from trainplan.optim.norm_projection import NormProjector
    from trainplan.optim.oscillation import (
        OscillationMonitor,
        oscillation_threshold,
        sharpness,
        strong_feature_multiplier,
    )
    from trainplan.optim.sgd_sai import SGDSaI
    from trainplan.optim.sparse_density import draw_masks, layer_densities
    from trainplan.optim.tensor_scales import gradient_snr, scaled_groups
    from trainplan.optim.tract import drive_lambda, tract_layer

_HOME = {
    "APOLLO": "apollo",
    "APOLLOMini": "apollo",
    "CheckpointAverager": "averaging",
    "CoSOAdamW": "coso",
    "DynamicSparse": "dynamic_sparse",
    "EffectiveLRMonitor": "effective_rate",
    "FrequentDirections": "frequent_directions",
    "HistoricalSubspace": "historical_subspace",
    "ImplicitScheduleRecorder": "effective_rate",
    "NormProjector": "norm_projection",
    "OscillationMonitor": "oscillation",
    "SGDSaI": "sgd_sai",
    "averaging_weights": "averaging",
    "draw_masks": "sparse_density",
    "drive_lambda": "tract",
    "effective_lr": "effective_rate",
    "find_scale_invariant": "layer_tracing",
    "gradient_snr": "tensor_scales",
    "layer_densities": "sparse_density",
    "normalize_and_project": "norm_insertion",
    "oscillation_threshold": "oscillation",
    "quarter_cosine": "coso_settings",
    "scaled_groups": "tensor_scales",
    "sharpness": "oscillation",
    "split_params": "apollo_settings",
    "strong_feature_multiplier": "oscillation",
    "tract_layer": "tract",
}

__all__ = [
    "APOLLO",
    "APOLLOMini",
    "CheckpointAverager",
    "CoSOAdamW",
    "DynamicSparse",
    "EffectiveLRMonitor",
    "FrequentDirections",
    "HistoricalSubspace",
    "ImplicitScheduleRecorder",
    "NormProjector",
    "OscillationMonitor",
    "SGDSaI",
    "averaging_weights",
    "draw_masks",
    "drive_lambda",
    "effective_lr",
    "find_scale_invariant",
    "gradient_snr",
    "layer_densities",
    "normalize_and_project",
    "oscillation_threshold",
    "quarter_cosine",
    "scaled_groups",
    "sharpness",
    "split_params",
    "strong_feature_multiplier",
    "tract_layer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
