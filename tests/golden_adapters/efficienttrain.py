"""Both stage tables, the crop in Fourier space, and what the stages cost."""

import torch

from trainplan.data import bandwidth_stages, equal_cost_stages, low_frequency_crop
from trainplan.data.bandwidth import DEIT_S_RESOLUTIONS, RESOLUTIONS


def stages(inputs):
    found = bandwidth_stages(inputs["total_epochs"])
    batches = found.batches(
        inputs["final_batch_per_device"], inputs["num_devices"], inputs["global_batch"]
    )
    return {
        "end_epoch": [stage.end for stage in found.stages],
        "bandwidth": [stage.bandwidth for stage in found.stages],
        "randaug_magnitude": [stage.magnitude for stage in found.stages],
        "batch_per_device": [batch for batch, _ in batches],
        "update_freq": [accumulation for _, accumulation in batches],
    }


def equal_cost(inputs):
    variant = inputs["variant"].lower()
    found = equal_cost_stages(
        inputs["equivalent_full_epochs"],
        DEIT_S_RESOLUTIONS if variant == "deits" else RESOLUTIONS,
        warmup="20%" if variant.startswith("deit") else 20,
    )
    return {
        "stage_total_epochs": [stage.total for stage in found.stages],
        "end_epoch": [stage.end for stage in found.stages],
        "resolution": [stage.bandwidth for stage in found.stages],
        "randaug_magnitude": [stage.magnitude for stage in found.stages],
        "warmup_epochs": [stage.warmup for stage in found.stages],
    }


def crop(inputs):
    images = torch.tensor(inputs["x"], dtype=torch.float64)
    cropped = low_frequency_crop(images, inputs["bandwidth"])
    return {"shape": list(cropped.shape), "y": cropped}


def cost(inputs):
    found = bandwidth_stages(inputs["total_epochs"], inputs["bandwidths"], base=inputs["base"])
    return {"relative_cost": found.cost, "ideal_speedup": 1 / found.cost}


ADAPTERS = {
    "ICCV 2023 EfficientTrain stage table": stages,
    "EfficientTrain++": equal_cost,
    "low-frequency Fourier crop": crop,
    "compute of the": cost,
}
