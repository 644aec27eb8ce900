"""Small reference networks that the lab and the studies train."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainplan._extras import require

if TYPE_CHECKING:
    from trainplan.models.consistency import EmaTeacher, consistency_loss, replace_nan
    from trainplan.models.decoder import Decoder
    from trainplan.models.encoder import Encoder, masked_token_loss
    from trainplan.models.expert_gate import (
        ExpertGate,
        choose_expert,
        lora_mixture,
        lora_parameters,
    )
    from trainplan.models.gated_experts import GatedExperts
    from trainplan.models.interleaved_scan import InterleavedScan, SelectiveScan, interleave
    from trainplan.models.laplacian import laplacian_distances, laplacian_loss
    from trainplan.models.leaky_rnn import LeakyRNN, accuracies, summed_loss
    from trainplan.models.mixing import MixedOperation, max_w_coefficients, mix
    from trainplan.models.preference import answer_log_probability, preference_loss
    from trainplan.models.retrieval import cosine_similarities, recall_at, retrieval_loss
    from trainplan.models.space_time import SpaceTimeBlock, SpaceTimeTransformer
    from trainplan.models.sub_batch_norm import (
        SubBatchNorm1d,
        SubBatchNorm2d,
        SubBatchNorm3d,
        split_batch_norms,
    )
    from trainplan.models.timescales import (
        Timescale,
        autocovariance,
        fit_timescale,
        network_timescales,
    )
    from trainplan.models.token_regressor import (
        AmountLoss,
        TokenRegressor,
        amount_loss,
        windowed_amounts,
        written_amounts,
    )

_HOME = {
    "AmountLoss": "trainplan.models.token_regressor",
    "TokenRegressor": "trainplan.models.token_regressor",
    "amount_loss": "trainplan.models.token_regressor",
    "windowed_amounts": "trainplan.models.token_regressor",
    "written_amounts": "trainplan.models.token_regressor",
    "EmaTeacher": "trainplan.models.consistency",
    "consistency_loss": "trainplan.models.consistency",
    "replace_nan": "trainplan.models.consistency",
    "Decoder": "trainplan.models.decoder",
    "Encoder": "trainplan.models.encoder",
    "masked_token_loss": "trainplan.models.encoder",
    "ExpertGate": "trainplan.models.expert_gate",
    "choose_expert": "trainplan.models.expert_gate",
    "lora_mixture": "trainplan.models.expert_gate",
    "lora_parameters": "trainplan.models.expert_gate",
    "GatedExperts": "trainplan.models.gated_experts",
    "answer_log_probability": "trainplan.models.preference",
    "preference_loss": "trainplan.models.preference",
    "MixedOperation": "trainplan.models.mixing",
    "max_w_coefficients": "trainplan.models.mixing",
    "mix": "trainplan.models.mixing",
    "InterleavedScan": "trainplan.models.interleaved_scan",
    "SelectiveScan": "trainplan.models.interleaved_scan",
    "interleave": "trainplan.models.interleaved_scan",
    "laplacian_distances": "trainplan.models.laplacian",
    "laplacian_loss": "trainplan.models.laplacian",
    "LeakyRNN": "trainplan.models.leaky_rnn",
    "accuracies": "trainplan.models.leaky_rnn",
    "summed_loss": "trainplan.models.leaky_rnn",
    "cosine_similarities": "trainplan.models.retrieval",
    "recall_at": "trainplan.models.retrieval",
    "retrieval_loss": "trainplan.models.retrieval",
    "SpaceTimeBlock": "trainplan.models.space_time",
    "SpaceTimeTransformer": "trainplan.models.space_time",
    "SubBatchNorm1d": "trainplan.models.sub_batch_norm",
    "SubBatchNorm2d": "trainplan.models.sub_batch_norm",
    "SubBatchNorm3d": "trainplan.models.sub_batch_norm",
    "split_batch_norms": "trainplan.models.sub_batch_norm",
    "Timescale": "trainplan.models.timescales",
    "autocovariance": "trainplan.models.timescales",
    "fit_timescale": "trainplan.models.timescales",
    "network_timescales": "trainplan.models.timescales",
}

__all__ = [
    "AmountLoss",
    "Decoder",
    "EmaTeacher",
    "Encoder",
    "ExpertGate",
    "GatedExperts",
    "InterleavedScan",
    "LeakyRNN",
    "MixedOperation",
    "SelectiveScan",
    "SpaceTimeBlock",
    "SpaceTimeTransformer",
    "SubBatchNorm1d",
    "SubBatchNorm2d",
    "SubBatchNorm3d",
    "Timescale",
    "TokenRegressor",
    "accuracies",
    "amount_loss",
    "answer_log_probability",
    "autocovariance",
    "choose_expert",
    "consistency_loss",
    "cosine_similarities",
    "fit_timescale",
    "interleave",
    "laplacian_distances",
    "laplacian_loss",
    "lora_mixture",
    "lora_parameters",
    "masked_token_loss",
    "max_w_coefficients",
    "mix",
    "network_timescales",
    "preference_loss",
    "recall_at",
    "replace_nan",
    "retrieval_loss",
    "split_batch_norms",
    "summed_loss",
    "windowed_amounts",
    "written_amounts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainplan.models' has no attribute {name!r}")
    require("torch", extra="torch")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
