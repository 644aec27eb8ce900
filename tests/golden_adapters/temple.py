"""Perturbations, the filters of videos and pairs, the stages, and the objective."""

import random

import torch

from trainplan.data import (
    PairFilter,
    ProgressivePreferenceSchedule,
    block_reverse,
    block_shuffle,
    block_size,
    blocks,
    frame_weights,
    keep_groups,
    keep_scenes,
    random_drop,
    sharpest_frame,
    similarity_groups,
)
from trainplan.models import preference_loss


def structure(inputs):
    rows = inputs["rows"]
    sizes = [block_size(n, r) for n, r in rows]
    numbers = [len(blocks(range(n), r)) for n, r in rows]
    kept = [len(random_drop(range(n), r, random.Random(0))) for n, r in rows]
    return {"block_size": sizes, "num_blocks": numbers, "kept": kept}


def seeded(inputs):
    seed, rows = inputs["seed"], inputs["rows"]
    return {
        "shuffle": [
            block_shuffle(range(n), r, random.Random(seed), allow_identity=True) for n, r in rows
        ],
        "drop": [random_drop(range(n), r, random.Random(seed)) for n, r in rows],
    }


def grouping(inputs):
    marks = similarity_groups(inputs["similarity"], inputs["threshold"]).tolist()
    return {
        "groups_as_sets": [
            [i for i, mark in enumerate(marks) if mark == group] for group in sorted(set(marks))
        ]
    }


def scenes(inputs):
    rows = inputs["num_clips_and_longest_frames"]
    kept = [keep_scenes([longest] * n, inputs["fps"]) for n, longest in rows]
    return {"filtered": [not keep for keep in kept]}


def pairs(inputs):
    rows, keep = inputs["lengths_chosen_rejected"], PairFilter().keep
    return {
        "keep": {
            kind: [keep(kind, "a" * chosen, "b" * rejected) for chosen, rejected in rows]
            for kind in ("drop", "reverse", "shuffle")
        }
    }


def stages(inputs):
    factors, sizes = inputs["r"], inputs["pairs_per_stage"]
    schedule = ProgressivePreferenceSchedule(
        dict(zip(factors, sizes, strict=True)), factors, batch_size=inputs["batch"]
    )
    return {
        "steps_per_stage": schedule.lengths,
        "first_step_of_stage": schedule.starts,
        "sft_starts_at": schedule.sft_starts_at,
    }


def loss(inputs):
    def both(model):
        columns = [inputs[f"{model}_{answer}"] for answer in ("chosen", "rejected")]
        return torch.tensor(columns, dtype=torch.float64).T

    policy, reference, beta = both("policy"), both("ref"), inputs["beta"]
    lengths = torch.tensor(inputs["chosen_lengths"])
    smoothing, alpha = inputs["label_smoothing"], inputs["rpo_alpha"]
    plain = preference_loss(policy, reference, beta=beta)
    combined = preference_loss(policy, reference, beta=beta, rpo_alpha=alpha, lengths_B=lengths)
    single = preference_loss(policy, reference, beta=beta, rpo_alpha=1.0, lengths_B=lengths)
    return {
        "per_pair": plain,
        "mean": plain.mean().item(),
        "smoothed": preference_loss(policy, reference, beta=beta, label_smoothing=smoothing),
        "nll": single - plain,
        "combined": combined,
        "chosen_reward": beta * (policy - reference)[:, 0],
    }


def frames(inputs):
    interval = inputs["interval"]
    return {
        "weights": frame_weights(interval),
        "offset": sharpest_frame(inputs["clarity"], interval),
    }


ADAPTERS = {
    "clip order after block reversal": lambda inputs: {
        "order": [block_reverse(range(n), r) for n, r in inputs["rows"]]
    },
    "blocks for shuffle/reverse": structure,
    "OPTIONAL, legacy Python random": seeded,
    "agglomerative grouping": grouping,
    "drop a video with": scenes,
    "input: scene-group id": lambda inputs: {
        "filtered": [not keep_groups(groups) for groups in inputs["segment_groups"]]
    },
    "keep a (chosen, rejected) pair": pairs,
    "progressive schedule": stages,
    "-log sigmoid": loss,
    "sharp-frame choice": frames,
}
