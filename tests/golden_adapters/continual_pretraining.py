"""Re-warming and re-decaying over datasets, infinite schedules, and replay."""

from trainplan import schedules as s
from trainplan.data import replay_budget, replay_counts


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


def budget(inputs):
    parts = replay_budget(inputs["total_tokens"], inputs["replay_fraction"])
    return {"new_tokens": parts.new, "replay_tokens": parts.replay}


def counts(inputs):
    fraction = inputs["replay_fraction"]
    replayed = replay_counts(inputs["batch_size"], fraction, inputs["k"])
    return {"replay_per_batch": replayed, "total": int(replayed.sum())}


ADAPTERS = {
    "linear warmup then cosine, value used at 0-based iteration t": one_phase,
    "repeated warmup+cosine over two dataset phases": phases,
    "infinite schedule, absolute phase boundaries": infinite,
    "tokens of new and of replayed data": budget,
    "number of replayed examples": counts,
}
