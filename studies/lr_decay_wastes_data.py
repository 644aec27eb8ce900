"""How learning-rate decay wastes the best data (Luo et al., 2025).

Regression in which low quality means bias: sorting by quality makes the optimum drift towards the
truth, and the best data comes last, when a decayed rate can no longer learn from it. Every arm is
run on the same samples; averages are over the last six checkpoints, as in the paper.
"""

from __future__ import annotations

import math

from trainplan import schedules as s
from trainplan.lab import Claim, Study
from trainplan.lab.toys.drift import DriftingRegression
from trainplan.optim.averaging import averaging_weights

PEAK = 0.1
ORDERS = ("ascend", "uniform", "descend")
SCHEDULES = {
    "constant": s.constant(PEAK),
    "moderate": s.wsd(PEAK, 0, "30%", "1-sqrt", end=PEAK / 3),
    "wsd": s.wsd(PEAK, 0, "30%", "1-sqrt", end="0.3%"),
    "cosine": s.cosine(PEAK),
}
PROBLEMS = {
    "": DriftingRegression(noise=0.5),
    ", noisy labels": DriftingRegression(noise=1.0),
    ", no bias": DriftingRegression(noise=0.5, bias=0.0, low_noise=1.5),
}


def measure_all(seed: int, steps: int = 2000) -> dict[str, dict[str, float]]:
    """Excess risk of every schedule, order and average on one problem."""
    times = list(range(steps))
    rates = {name: schedule.resolve(steps)(times) for name, schedule in SCHEDULES.items()}
    results: dict[str, dict[str, float]] = {}
    for kind, problem in PROBLEMS.items():
        model = DriftingRegression(**(vars(problem) | {"steps": steps}))
        target = model.target(seed)
        for order in ORDERS:
            for name, (risk, checkpoints) in model.run(rates, order, seed).items():
                found = {"risk": risk}
                for average in ("sma", "ema", "normalised_ema"):
                    mean = averaging_weights(average, 6) @ checkpoints[-6:]
                    found[average] = model.error(mean, target)
                results[f"{name}, {order}{kind}"] = found
    return results


def wasted(results, schedule: str, kind: str = "") -> float:
    """How many times the risk of the constant rate another one has on ascending data, in logs."""
    mine, constant = (results[f"{name}, ascend{kind}"]["risk"] for name in (schedule, "constant"))
    return math.log2(mine / constant)


STUDY = Study(
    paper="lr-decay-wastes-data",
    claim="On data of ascending quality, the stronger the decay, the less is gained from the best "
    "data, which comes last",
    arms=[f"{name}, {order}{kind}" for kind in PROBLEMS for order in ORDERS for name in SCHEDULES],
    measure_all=measure_all,
    metric="risk",
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
            arm="moderate, ascend",
            than="wsd, ascend",
            metric="risk",
        ),
        Claim(
            text="Cosine ends higher than WSD",
            arm="wsd, ascend",
            than="cosine, ascend",
            metric="risk",
        ),
        Claim(
            text="With noisy labels, averaging the last six checkpoints of the constant rate helps",
            name="averaging, noisy labels",
            effect=lambda r: (
                r["constant, ascend, noisy labels"]["risk"]
                - r["constant, ascend, noisy labels"]["sma"]
            ),
            decides=False,
        ),
        Claim(
            text="Descending quality is worse than a uniform order",
            arm="constant, uniform",
            than="constant, descend",
            metric="risk",
            decides=False,
        ),
        Claim(
            text="Control: where low quality is only noise, decay wastes nothing",
            name="control: no bias",
            effect=lambda r: -wasted(r, "wsd", ", no bias"),
            decides=False,
            unit="doublings",
        ),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=["risk", "sma", "ema"],
    budget="2000 SGD steps of batch 4, one pass",
    quick={"steps": 400},
    note="At this peak the rate cannot catch up with the drift within the decay. With a peak three "
    "times as high and noisy labels it can, and decay wastes nothing: the effect is one of the "
    "rate, not of the shape alone. One peak serves all arms here, because the question is what "
    "decay does to data at a given rate.",
)
