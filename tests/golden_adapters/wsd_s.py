"""WSD-S: the authors' cyclic builder, its windows, and the inverse decay."""

import itertools
import math

from trainplan import schedules as s
from trainplan.lab.toys.valley import RiverValley, State

SHAPES = {"linear": "linear", "cosine": "cosine", "inv": "inverse", "constant": "constant"}


def cyclic_builder(inputs):
    cycles = inputs.get("cycles") or 1
    total, warmup = inputs["num_train_steps"], inputs.get("warmup", 0)
    rewarmup, decay = inputs.get("rewarmup", 0), inputs.get("decay")
    windows = s.cycle_windows(total, cycles, warmup, rewarmup, decay)
    ends = [0, *(end for _, end in windows)]
    lengths = [b - a for a, b in itertools.pairwise(ends)]
    peak, ratio = inputs["learning_rate"], inputs["min_lr_ratio"]
    shape = inputs.get("lr_schedule", "linear")
    common = {"peak": peak, "end": peak * ratio}
    rises = {
        "warmup": _steps(warmup, lengths[0]),
        "rewarmup": [_steps(rewarmup, length) for length in lengths],
    }
    if shape == "inv_sqrt":
        shape = _inverse_sqrt(rises["warmup"], windows[0], ratio)
    schedule = s.wsd_s(
        windows=windows,
        shape=SHAPES.get(shape, shape) if isinstance(shape, str) else shape,
        authors_first_step=shape == "inv",
        **common,
        **rises,
    )
    return {"lr": schedule(inputs["steps"])}


def _steps(amount, cycle):
    return int(amount * cycle) if amount <= 1 else amount


def _inverse_sqrt(warmup, window, ratio):
    """The builder's inverse square root with its time scale of 10,000 steps."""
    length = window[1] - window[0]

    def share(u):
        value = max(min(1.0, math.sqrt(1e4 / max(u * length + warmup, 1))), ratio)
        return (value - ratio) / (1 - ratio)

    return share


def windows(inputs):
    budgets, fraction = inputs["budgets"], inputs["decay_fraction"]
    trunk = s.wsd_s_windows(budgets, fraction)
    branches = s.wsd_windows(budgets, fraction)
    spent = branches[-1][0] + sum(end - start for start, end in branches)
    assert spent == trunk[-1][1]
    return {
        "wsds_windows": [list(pair) for pair in trunk],
        "wsd_windows": [list(pair) for pair in branches],
        "total_steps_both": spent,
    }


def inverse_decay(inputs):
    phase = s.Phase(inputs["lr_max"], inputs["lr_min"], inputs["decay_steps"], "inverse")
    return {"lr": phase(inputs["t"])}


def river_valley(inputs):
    noise = inputs["noise_sd_h"], inputs["noise_sd_r"]
    valley = RiverValley(inputs["kh"], inputs["kr"], *noise)
    hill, river, _ = valley.run(inputs["lr"], State(inputs["x0"], 0.0, inputs["var_y0"]))
    return {"hill_loss": hill, "river_loss": river}


ADAPTERS = {
    "expected hill and river parts": river_valley,
    "learning rate at each (0-based) optimizer step, as produced by the authors' cyclic": (
        cyclic_builder
    ),
    "decay windows [first step, end step) of the single WSD-S run": windows,
    "learning rate whose reciprocal is linear in time": inverse_decay,
}
