"""Chinese ModernBERT's masking rate and damped cosine."""

from trainplan import schedules as s


def mask_ratio(inputs):
    low, high = inputs["low"], inputs["high"]
    rise = s.Phase(low, high, inputs["warmup_steps"])
    schedule = s.Sequence(rise, s.Phase(high, low)).resolve(inputs["total_steps"])
    return {"ratio": schedule(inputs["s"])}


def mask_ratio_falling(inputs):
    schedule = s.linear(inputs["high"], inputs["low"], duration=inputs["total_steps"])
    return {"ratio": schedule(inputs["s"])}


def damped_cosine(inputs):
    schedule = s.damped_cosine(
        inputs["lr_peak"],
        inputs["lr_min"],
        inputs["cycles"],
        inputs["gamma"],
        warmup=0,
        duration=inputs["total_steps"],
    )
    return {"lr": schedule(inputs["s"])}


ADAPTERS = {
    "whole-word mask ratio at step s": mask_ratio,
    "mask ratio hi to lo linearly over the whole run": mask_ratio_falling,
    "damped cosine learning rate at step s": damped_cosine,
}
