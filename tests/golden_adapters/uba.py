"""UBA with its warm-up."""

from trainplan import schedules as s


def uba(inputs):
    schedule = s.uba(
        inputs["max_lr"], inputs["min_lr"], inputs["phi"], inputs["warmup_steps"], inputs["T"]
    )
    return {"lr": schedule(inputs["t"])}


ADAPTERS = {"UBA value after t completed steps": uba}
