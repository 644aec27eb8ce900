"""Phases with their rates, the cap on lengths, and the gate between low-rank experts."""

import torch

from trainplan.data import Phase, PhaseCurriculum, percentile_length_filter
from trainplan.models import ExpertGate, choose_expert, lora_mixture, lora_parameters


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def gate_of(inputs, **options):
    weight = doubles(inputs["gate_weight_expert_dim"])
    gate = ExpertGate(weight.shape[1], weight.shape[0], **options).double()
    gate.weight.data = weight
    return gate


@torch.no_grad()
def mixture(inputs):
    x = doubles(inputs["embeddings_batch_token_dim"])
    down, up = doubles(inputs["A_expert_rank_dim"]), doubles(inputs["B_expert_out_rank"])
    gate, scale = gate_of(inputs), inputs["alpha"] / inputs["rank"]
    scores, weights = gate.scores(x), gate(x)
    return {
        "pooled_scores": scores,
        "gate_probabilities": weights,
        "expert": scores.argmax(dim=1),
        "update_training": lora_mixture(x, down, up, weights, scale),
        "update_inference": lora_mixture(x, down, up, choose_expert(scores), scale),
    }


@torch.no_grad()
def padding(inputs):
    x, mask = doubles(inputs["embeddings_batch_token_dim"]), torch.tensor(inputs["attention_mask"])
    found = {}
    for name, masked in (("authors", False), ("masked", True)):
        scores = gate_of(inputs, mask_padding=masked).scores(x, mask)
        found |= {f"pooled_scores_{name}": scores, f"expert_{name}": scores.argmax(dim=1)}
    return found


def lengths(inputs):
    cap, kept = percentile_length_filter(inputs["lengths"], inputs["p"])
    return {"cap": cap, "kept": kept}


def schedule(inputs):
    curriculum = PhaseCurriculum(
        [
            Phase(
                phase["level"],
                phase["peak_lr"],
                phase["batch"] * inputs["grad_accumulation"],
                warmup=inputs["warmup"],
            )
            for phase in inputs["phases"]
        ],
        inputs["samples"],
    )
    return {
        "steps_per_phase": curriculum.lengths,
        "phase_start": curriculum.starts,
        "phase_of_step": [curriculum.phase_at(step) for step in inputs["steps"]],
        "lr": curriculum.lr_at(inputs["steps"]),
    }


def parameters(inputs):
    d, kv, ff = inputs["d"], inputs["kv"], inputs["ff"]
    layers = [(d, d + 2 * kv), (d, d), (ff, d)] * inputs["layers"]
    each = lora_parameters(layers, inputs["rank"])
    gate = ExpertGate(d, inputs["experts"]).weight.numel()
    every = inputs["experts"] * each
    return {"per_expert": each, "all_experts": every, "gate": gate, "total": every + gate}


ADAPTERS = {
    "gate on the sum of token": mixture,
    "same gate with": padding,
    "95th-percentile cap": lengths,
    "four phases": schedule,
    "trainable parameters": parameters,
}
