"""Infinite schedules within one task, and the repeated cosine that they are compared with."""

from trainplan import schedules as s

SHAPES = {
    "cosine_cooldown_infinite": "cosine",
    "inverse_sqrt_infinite": "inverse-sqrt",
    "constant_infinite": "linear",
}


def one_task(inputs):
    total, first = inputs["total_steps"], inputs["task"] == 0
    ends = {
        name: int(total * inputs[f"{name}_ratio"]) for name in ("warmup", "cooldown", "constant")
    }
    schedule = s.infinite(
        inputs["lr_max"],
        inputs["lr_const"],
        inputs["lr_min"],
        warmup=ends["warmup"],
        cooldown_end=ends["cooldown"],
        anneal_start=ends["constant"],
        shape=SHAPES[inputs["code_style"]],
        task=inputs["task"],
    ).resolve(total)
    boundaries = {
        "warmup_end": ends["warmup"] if first else None,
        "cooldown_end": ends["cooldown"] if first else None,
        "constant_end": ends["constant"],
    }
    marks = [end for end in boundaries.values() if end]
    assert set(marks) <= set(schedule.curve.bounds())
    return {"lr": schedule(inputs["t"]), "boundaries": boundaries}


def repeated_cosine(inputs):
    schedule = s.cosine(
        inputs["lr_max"],
        inputs["lr_max"] * inputs["min_lr_ratio"],
        inputs["warmup_epochs"],
        inputs["total_epochs"],
    )
    return {"lr": schedule(inputs["epoch"])}


ADAPTERS = {
    "infinite schedule within one task of total_steps steps": one_task,
    "baseline: repeated cosine with linear warmup": repeated_cosine,
}
