"""PLM's warm-up, stable, decay, constant."""

from trainplan import schedules as s

SHAPES = {"one_minus_sqrt": "1-sqrt"}


def wsdc(inputs):
    lengths = (inputs[f"{name}_steps"] for name in ("warmup", "stable", "decay"))
    shape = SHAPES.get(inputs["shape"], inputs["shape"])
    schedule = s.wsdc(inputs["lr_max"], *lengths, end=inputs["lr_min"], shape=shape)
    return {"lr": schedule(inputs["t"])}


ADAPTERS = {"warmup (linear from 0, w steps), stable": wsdc}
