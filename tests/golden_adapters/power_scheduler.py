"""The Power scheduler, with steps or tokens as time, and its exponential decay."""

import math

from trainplan import schedules as s


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


ADAPTERS = {
    "min(lr_cap, batch*a*n^b) with n = step*batch*seq_len": by_steps,
    "warmup, constant, then exponential decay": exponential,
    "three-phase Power schedule as a function of tokens": by_tokens,
}
