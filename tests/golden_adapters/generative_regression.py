"""The vocabulary, numbers in tokens, the two passes, amounts read off, the loss and the metric."""

import numpy as np
import torch

from trainplan.data import (
    QuantileVocabulary,
    mix_decoder_inputs,
    quantile_amounts,
    teacher_forcing,
    xauc,
)
from trainplan.models import amount_loss, windowed_amounts


def vocabulary(inputs):
    raw = quantile_amounts(
        inputs["values"],
        inputs["q_start"],
        inputs["q_end"],
        inputs["q_decay_rate"],
        inputs["epsilon"],
    )
    found = QuantileVocabulary(raw)
    return {
        "vocab_raw": raw,
        "vocab_unique_desc": found.amounts.tolist(),
        "max_remainder_on_inputs": int(found.counts(inputs["values"])[1].max()),
    }


def encoded(inputs):
    found = QuantileVocabulary(inputs["vocab"])
    counts, rests = found.counts(inputs["values"])
    return {
        "tokens": [np.repeat(found.amounts, row).tolist() for row in counts],
        "remainder": rests.tolist(),
        "decoded_sum": (counts @ found.amounts).tolist(),
    }


def ratio(inputs):
    kind = {"exp": "exponential", "sigmoid": "inverse_sigmoid"}.get(inputs["kind"], inputs["kind"])
    schedule = teacher_forcing(kind, inputs["decay"], inputs["initial"])
    return {"ratio": schedule(inputs["steps"]).tolist()}


def doubles(inputs, name):
    return torch.tensor(inputs[name], dtype=torch.float64)


def amounts(inputs):
    found = windowed_amounts(
        doubles(inputs, "logits"),
        doubles(inputs, "token_values"),
        inputs["window"],
        doubles(inputs, "step_mask"),
    )
    return {"per_step": found.tolist(), "total_seconds": (found.sum(-1) / 1000).tolist()}


def mixed(inputs):
    first = doubles(inputs, "first_pass_logits")[None]
    true = torch.tensor([inputs["ground_truth_inputs"]])
    u, table = doubles(inputs, "u")[None], doubles(inputs, "embedding")
    own = mix_decoder_inputs(
        torch.zeros_like(first), torch.ones_like(true), inputs["teacher_ratio"], u
    )
    return {
        "own_flags": (own[0] == 0).tolist(),
        "hard_tokens": mix_decoder_inputs(first, true, inputs["teacher_ratio"], u)[0].tolist(),
        "mixup_rows": mix_decoder_inputs(first, true, inputs["teacher_ratio"], u, table)[
            0
        ].tolist(),
    }


def loss(inputs):
    targets = torch.tensor(inputs["targets"])
    found = amount_loss(
        doubles(inputs, "logits"),
        targets.masked_fill(doubles(inputs, "step_mask") == 0, 0),
        doubles(inputs, "seconds"),
        doubles(inputs, "token_values") / 1000,
        window=inputs["window"],
        token_weight=inputs["cls_weight"],
        amount_weight=inputs["huber_weight"],
    )
    return {"ce": found.tokens.item(), "huber": found.amounts.item(), "total": found.total.item()}


def metric(inputs):
    error = np.abs(np.subtract(inputs["labels"], inputs["preds"])).mean()
    return {"xauc": xauc(inputs["labels"], inputs["preds"]), "mae": float(error)}


ADAPTERS = {
    "dynamic-quantile vocabulary": vocabulary,
    "greedy largest-first": encoded,
    "probability that a decoder input": ratio,
    "expected amount per step": amounts,
    "second-pass decoder inputs": mixed,
    "total = ": loss,
    "XAUC": metric,
}
