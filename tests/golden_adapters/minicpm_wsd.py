"""MiniCPM's WSD with its two decays, the cosine beside it, and the ramp after a resume."""

from trainplan import schedules as s


def half_life(inputs):
    schedule = s.wsd(
        inputs["lr_max"],
        warmup=inputs["warmup_iters"],
        decay=None,
        decay_start=inputs["drop_begin"],
        shape=s.Exponential(half_life=inputs["half_life"]),
        end=0.0,
    )
    return {"lr": schedule(inputs["t"])}


def _linear_drop(inputs):
    end, drop = inputs["end_iter"], inputs["drop_iters"]
    return s.wsd(
        inputs["lr_max"], inputs["warmup_iters"], drop, "linear", "10%", decay_start=end - drop
    )


def linear_drop(inputs):
    return {"lr": _linear_drop(inputs)(inputs["t"])}


def cosine(inputs):
    warmup, end = inputs["warmup_iters"], inputs["end_iter"]
    return {"lr": s.cosine(inputs["lr_max"], "10%", warmup, end)(inputs["t"])}


def resume_ramp(inputs):
    at, length = inputs["resume_step"], inputs["resume_ramp"]
    schedule = s.resume_ramp(_linear_drop(inputs), inputs["lr_max"], at, length)
    return {"lr": schedule(inputs["t"])}


ADAPTERS = {
    "WSD with exponential annealing": half_life,
    "WSD with linear decay to 10%": linear_drop,
    "baseline: linear warmup then cosine to 10%": cosine,
    "as linear-decay WSD, but after resuming": resume_ramp,
}
