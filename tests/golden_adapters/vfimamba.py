"""Stages, triplets, the pyramid's loss, and interleaved tokens."""

import torch

from trainplan.data import MotionCurriculum
from trainplan.data.motion import triplet, valid_starts
from trainplan.models import interleave, laplacian_distances, laplacian_loss


def curriculum(inputs):
    found = MotionCurriculum(
        inputs["total_epochs"],
        inputs["epochs_per_stage"],
        inputs["start_size"],
        inputs["end_size"],
        inputs["size_increment_fraction"],
        inputs["start_gap"],
        inputs["gap_step"],
        inputs["gap_mode"],
        inputs["max_gap"],
    )
    epochs, native = inputs["epochs"], inputs["native_size"]
    return {
        "stage": [found.stage(epoch) for epoch in epochs],
        "size": [found.at(epoch).size for epoch in epochs],
        "gap": [found.at(epoch).gap for epoch in epochs],
        "relative_motion": [found.relative_motion(epoch, native) for epoch in epochs],
    }


def frames(inputs):
    starts = valid_starts(inputs["clip_length"], inputs["gap"])
    return triplet(inputs["start"], inputs["gap"])._asdict() | {"valid_starts": int(starts)}


def loss(inputs):
    a, b = torch.tensor(inputs["a"]).double(), torch.tensor(inputs["b"]).double()
    each = laplacian_distances(a, b, inputs.get("levels", 5))
    return {"per_level": each, "loss": laplacian_loss(a, b, inputs.get("levels", 5)).item()}


ADAPTERS = {
    "motion-magnitude curriculum": curriculum,
    "triplet for start": frames,
    "Laplacian-pyramid L1 loss": loss,
    "token interleaving": lambda inputs: {"y": interleave(torch.tensor(inputs["x"]))},
}
