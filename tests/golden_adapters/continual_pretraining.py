"""Re-warming and re-decaying over datasets, and infinite schedules with absolute boundaries."""

from trainplan import schedules as s


def one_phase(inputs):
    schedule = s.rewarm(
        [inputs["total_iters"]], inputs["lr_max"], inputs["lr_min"], inputs["warmup_iters"]
    )
    return {"lr": schedule(inputs["t"])}


def phases(inputs):
    schedule = s.rewarm(
        inputs["phase_steps"], inputs["lr_max"], inputs["lr_min"], inputs["warmup_steps"]
    )
    return {"lr": schedule(inputs["t"])}


def infinite(inputs):
    style = inputs["style"]
    shape = s.InverseSqrt(inputs["timescale"]) if style == "inverse_sqrt" else style
    schedule = s.infinite(
        inputs["lr_max"],
        inputs["lr_const"],
        inputs["lr_min"],
        warmup=inputs["warmup_end"],
        cooldown_end=inputs["cooldown_end"],
        anneal_start=inputs["constant_end"],
        shape=shape,
    ).resolve(inputs["total"])
    return {"lr": schedule(inputs["t"])}


ADAPTERS = {
    "linear warmup then cosine, value used at 0-based iteration t": one_phase,
    "repeated warmup+cosine over two dataset phases": phases,
    "infinite schedule, absolute phase boundaries": infinite,
}
