"""sharpDARTS' cosine power annealing: the closed form and the authors' table."""

from trainplan import schedules as s


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


ADAPTERS = {
    "authors' per-epoch cosine power annealing array": epoch_table,
    "closed form (paper's equation": closed_form,
}
