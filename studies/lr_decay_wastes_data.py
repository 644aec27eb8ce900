"""How learning-rate decay wastes the best data (Luo et al., 2025).

Regression in which low quality means bias: sorting by quality makes the optimum drift towards the
truth, and the best data comes last, when a decayed rate can no longer learn from it. Every arm is
run on the same samples; averages are over the last six checkpoints, as in the paper.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trainplan import schedules as s
from trainplan.lab import Claim, Study
from trainplan.lab.toys.drift import DriftingRegression
from trainplan.optim.averaging import averaging_weights

PEAK = 0.1
SCHEDULES = {
    "constant": s.constant(PEAK),
    "moderate": s.wsd(PEAK, 0, "30%", "1-sqrt", end=PEAK / 3),
    "wsd": s.wsd(PEAK, 0, "30%", "1-sqrt", end="0.3%"),
    "cosine": s.cosine(PEAK),
}
PROBLEMS = {
    "ascend": ("ascend", DriftingRegression(noise=0.5)),
    "uniform": ("uniform", DriftingRegression(noise=0.5)),
    "descend": ("descend", DriftingRegression(noise=0.5)),
    "ascend, noisy labels": ("ascend", DriftingRegression(noise=1.0)),
    "ascend, no bias": ("ascend", DriftingRegression(noise=0.5, bias=0.0, low_noise=1.5)),
}
AVERAGES = ("sma", "ema", "normalised_ema")


def measure_all(seed: int, steps: int = 2000) -> dict[str, dict[str, float]]:
    """Excess risk of every schedule on every problem, and of the average of its last weights."""
    times = list(range(steps))
    rates = {name: schedule.resolve(steps)(times) for name, schedule in SCHEDULES.items()}
    results: dict[str, dict[str, float]] = {name: {} for name in SCHEDULES}
    for label, (order, problem) in PROBLEMS.items():
        model = replace(problem, steps=steps)
        target = model.target(seed)
        for name, (risk, checkpoints) in model.run(rates, order, seed).items():
            results[name][label] = risk
            for kind in AVERAGES:
                mean = averaging_weights(kind, 6) @ checkpoints[-6:]
                results[name][f"{label}, {kind}"] = model.error(mean, target)
    return results


def wasted(results, schedule: str, label: str = "ascend") -> float:
    """How many times the constant rate's risk another schedule ends with, in doublings."""
    return math.log2(results[schedule][label] / results["constant"][label])


STUDY = Study(
    paper="lr-decay-wastes-data",
    claim="On data of ascending quality, the stronger the decay, the less is gained from the best "
    "data, which comes last",
    arms=list(SCHEDULES),
    measure_all=measure_all,
    metric="ascend",
    claims=[
        Claim(
            text="WSD to 0.3 % of the peak ends at least twice as high as the constant rate",
            name="WSD wastes",
            effect=lambda r: wasted(r, "wsd"),
            margin=1.0,
            unit="doublings",
        ),
        Claim(
            text="WSD ends higher than a moderate decay to a third of the peak",
            arm="moderate",
            than="wsd",
            metric="ascend",
        ),
        Claim(text="Cosine ends higher than WSD", arm="wsd", than="cosine", metric="ascend"),
        Claim(
            text="With noisy labels, averaging the last six checkpoints of the constant rate helps",
            name="averaging, noisy labels",
            arm="constant",
            than="constant",
            metric="ascend, noisy labels, sma",
            than_metric="ascend, noisy labels",
            decides=False,
        ),
        Claim(
            text="With a constant rate, descending quality is worse than a uniform order",
            name="descending order",
            arm="constant",
            than="constant",
            metric="uniform",
            than_metric="descend",
            decides=False,
        ),
        Claim(
            text="Control: where low quality is only noise, decay wastes nothing",
            name="control: no bias",
            effect=lambda r: -wasted(r, "wsd", "ascend, no bias"),
            decides=False,
            unit="doublings",
        ),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=["ascend", "uniform", "ascend, noisy labels", "ascend, noisy labels, sma"],
    budget="2000 SGD steps of batch 4, one pass",
    quick={"steps": 400},
    note="At this peak the rate cannot catch up with the drift within the decay. With a peak three "
    "times as high and noisy labels it can, and decay wastes nothing: the effect is one of the "
    "rate, not of the shape alone. One peak serves all arms here, because the question is what "
    "decay does to data at a given rate.",
)
