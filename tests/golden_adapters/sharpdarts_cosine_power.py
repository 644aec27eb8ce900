"""sharpDARTS' cosine power annealing, closed form and authors' table, and Max-W mixing."""

import torch

from trainplan import schedules as s
from trainplan.models import max_w_coefficients, mix


def epoch_table(inputs):
    schedule = s.cosine_power(
        inputs["max_lr"],
        inputs["min_lr"],
        inputs["exponent_order"],
        warmup=inputs["warmup_epochs"],
        duration=inputs["epochs"],
        mode="authors_epoch_table",
        start_epoch=inputs["start_epoch"],
        restart_lr=inputs["restart_lr"],
    )
    length = int(schedule.curve.length)
    return {"lr": [schedule(epoch) for epoch in range(length)]}


def closed_form(inputs):
    schedule = s.cosine_power(inputs["max_lr"], inputs["min_lr"], inputs["p"], duration=inputs["T"])
    return {"lr": schedule(inputs["t"])}


def max_w(inputs):
    weights = torch.tensor(inputs["weights"], dtype=torch.float64)
    outputs = torch.tensor(inputs["op_outputs"], dtype=torch.float64)
    return {"coefficients": max_w_coefficients(weights), "mixed": mix(outputs, weights)}


ADAPTERS = {
    "authors' per-epoch cosine power annealing array": epoch_table,
    "closed form (paper's equation": closed_form,
    "Max-W mixing": max_w,
}
