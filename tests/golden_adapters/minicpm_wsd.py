"""MiniCPM's WSD, the cosine beside it, the ramp after a resume, and its scaling law."""

from trainplan import schedules as s
from trainplan.laws import ScalingLaw, optimal_batch, trunk_cost


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


def scaling_law(inputs):
    names = ("C_N", "alpha", "C_D", "beta", "L0")
    law = ScalingLaw(*(inputs[name] for name in names))
    best = law.optimum(inputs["compute"])
    return {
        "loss": [law.loss(n, d) for n, d in inputs["N_D"]],
        "K_squared": law.k**2,
        "eta": law.eta,
        "N_opt": best.parameters,
        "D_opt": best.tokens,
        "D_over_N": best.tokens_per_parameter,
    }


def batch(inputs):
    return {"batch_tokens": optimal_batch(inputs["loss"])}


def cost(inputs):
    shared, separate = trunk_cost(inputs["stable_steps"], inputs["decay_fraction"])
    return {"cosine_total": separate, "wsd_total": shared}


ADAPTERS = {
    "WSD with exponential annealing": half_life,
    "WSD with linear decay to 10%": linear_drop,
    "baseline: linear warmup then cosine to 10%": cosine,
    "as linear-decay WSD, but after resuming": resume_ramp,
    "loss C_N N^-alpha": scaling_law,
    "optimal batch size in tokens": batch,
    "total training steps for m stable lengths": cost,
}
