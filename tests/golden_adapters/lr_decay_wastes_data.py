"""WSD with the square-root decay, averages of checkpoints, and orders by quality."""

import torch

from trainplan import schedules as s
from trainplan.data import quality_order
from trainplan.optim import CheckpointAverager, averaging_weights


def wsd(inputs):
    schedule = s.wsd(
        inputs["peak_lr"],
        inputs["warmup"],
        inputs["T"] - inputs["t_decay"],
        "1-sqrt",
        inputs["end_lr"],
        decay_start=inputs["t_decay"],
    )
    return {"lr": schedule(inputs["t"])}


def average(inputs):
    checkpoints, kind = inputs["checkpoints"], inputs["kind"]
    settings = {"alpha": inputs.get("alpha", 0.2), "weights": inputs.get("raw_weights")}
    averager = CheckpointAverager(kind, len(checkpoints), **settings)
    for checkpoint in checkpoints:
        averager.push({"w": torch.tensor(checkpoint, dtype=torch.float64)})
    return {
        "average": averager.result()["w"],
        "effective_weights": averaging_weights(kind, len(checkpoints), **settings),
    }


def order(inputs):
    kind, folds = inputs["kind"], inputs.get("folds", 1)
    return {"order": quality_order(inputs["scores"], kind, folds=folds, seed=None)}


ADAPTERS = {
    "WSD with 1-sqrt decay": wsd,
    "average of the last N checkpoints": average,
    "data order from quality scores": order,
}
