"""The Power scheduler, its exponential decay, and the law of the best WSD rate."""

import math

import numpy as np

from trainplan import schedules as s
from trainplan.laws import RateLaw, fit_rate_law


def by_steps(inputs):
    schedule = s.power(
        inputs["lr_cap"],
        inputs["batch"],
        inputs["a"],
        inputs["b"],
        warmup=inputs["warmup_steps"],
        decay=None,
    )
    tokens = inputs["batch"] * inputs["seq_len"]
    return {"lr": schedule.resolve(2**40, tokens_per_step=tokens)(inputs["step"])}


def exponential(inputs):
    peak = inputs["lr"]
    schedule = s.wsdc(
        peak,
        inputs["warmup_steps"],
        inputs["constant_steps"],
        inputs["decay_steps"],
        end=peak * inputs["final_ratio"],
        shape=s.Exponential(ratio=1 / math.e),
    )
    return {"lr": schedule(inputs["step"])}


def by_tokens(inputs):
    schedule = s.power(
        inputs["lr_cap"],
        inputs["batch"],
        inputs["a"],
        inputs["b"],
        warmup=inputs["warmup_tokens"],
        decay=inputs["decay_tokens"],
    )
    return {"lr": schedule.resolve(inputs["total_tokens"], unit="tokens")(inputs["tokens"])}


def best_rate(inputs):
    law = RateLaw(inputs["a"], inputs["b"])
    batch = np.asarray(inputs["batch"])[:, None]
    return {"lr": law.rate(batch, inputs["tokens"]), "gamma": law.gamma(inputs["tokens"])}


def fit(inputs):
    law = fit_rate_law(inputs["tokens"], inputs["gamma"])
    return {"a": law.a, "b": law.b}


ADAPTERS = {
    "min(lr_cap, batch*a*n^b) with n = step*batch*seq_len": by_steps,
    "warmup, constant, then exponential decay": exponential,
    "three-phase Power schedule as a function of tokens": by_tokens,
    "optimal WSD stable learning rate": best_rate,
    "least-squares fit in log-log space": fit,
}
