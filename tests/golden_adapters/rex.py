"""REX: the profile with its warm-up, and profiles read at sampling rates."""

from trainplan import schedules as s


def profile(inputs):
    schedule = s.rex(
        inputs["lr0"],
        inputs["min_lr"],
        inputs["d"],
        inputs["warmup_steps"],
        inputs["T"],
        inputs["warmup_start_lr"],
    )
    return {"lr": schedule(inputs["t"])}


def sampled(inputs):
    total = inputs["T"]
    phase = s.Phase(inputs["lr0"], 0.0, total, inputs["profile"])
    times = [fraction * total for fraction in inputs["sampling_fractions"]]
    return {"lr": phase.sample(at=times)(inputs["t"])}


ADAPTERS = {
    "REX value at step t": profile,
    "profile x sampling rate": sampled,
}
