"""Benign oscillation (Lu, Wu, Yang and Zou, 2023): a rate too large to settle learns more.

A two-layer network sees a strong feature in most samples and a weak one in all. Below a threshold
the rate lets the strong feature fit, the residual vanishes, and the weak one is never learned.
"""

from __future__ import annotations

from trainplan.lab import Claim, Study
from trainplan.lab.toys.oscillation import TwoFeatures

# 64 dimensions, 16 samples of which 2 are weak, |u| = 1, |v| = 0.2, noise 0.1.
BELOW, ABOVE = 0.45, 0.65  # c = eta |u|^2 / m; outputs oscillate above 0.5


def measure(
    arm: str, seed: int, c: float, steps: int, noise: float = 0.1, weak: float = 0.2
) -> dict[str, float]:
    """Accuracy on samples that have only the weak feature, after training at one rate."""
    return TwoFeatures(noise=noise, weak=weak).train(c, steps, seed)


STUDY = Study(
    paper="benign-oscillation",
    claim="A constant rate above the oscillation threshold learns the weak feature, one below it "
    "does not, even with ten times the steps",
    arms={
        "above the threshold": {"c": ABOVE, "steps": 4000},
        "below the threshold": {"c": BELOW, "steps": 4000},
        "below, 10x the steps": {"c": BELOW, "steps": 40_000},
        "far below": {"c": 0.05, "steps": 4000},
        "below, little noise": {"c": BELOW, "steps": 4000, "noise": 0.02},
        "above, weaker feature": {"c": ABOVE, "steps": 4000, "weak": 0.1},
    },
    measure=measure,
    metric="weak",
    direction="higher",
    claims=[
        Claim(
            text="Accuracy on weak samples is at least 0.2 higher above the threshold",
            arm="above the threshold",
            than="below the threshold",
            metric="weak",
            direction="higher",
            margin=0.2,
            unit="accuracy",
        ),
        Claim(
            text="It is at least 0.2 higher than that of ten times as many steps below",
            arm="above the threshold",
            than="below, 10x the steps",
            metric="weak",
            direction="higher",
            margin=0.2,
            unit="accuracy",
        ),
        Claim(
            text="While the weak feature is not learned yet (a weaker one, |v| = 0.1), the mean "
            "residual y f - 1 on strong samples is below zero",
            name="residual, above the threshold",
            arm="above, weaker feature",
            than=0.0,
            metric="residual",
            margin=0.0,
            decides=False,
        ),
        Claim(
            text="Without noise to memorise, the small rate learns the weak feature too, so that "
            "nothing is left to gain",
            name="control: little noise",
            arm="below, little noise",
            than="below the threshold",
            metric="weak",
            direction="higher",
            margin=0.2,
            unit="accuracy",
            decides=False,
        ),
    ],
    seeds=range(12),
    looks=(6, 12),
    shown=["weak", "strong", "loss", "residual", "diverged"],
    budget="4000 steps of batch 1 (40,000 for the control)",
    quick={"steps": 1000},
    note="The paper's theory assumes that the oscillation goes on; here it is produced by the "
    "rate. The effect needs weak samples that can be memorised through their noise: the control "
    "without it shows how much.",
)
