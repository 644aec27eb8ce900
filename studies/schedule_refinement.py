"""Schedules refined from gradient norms (Defazio, Cutkosky, Mehta and Mishchenko, 2023).

A quadratic whose noise changes over the run. One linear run, at its best peak, gives the gradient
norms, and from them the schedule of the next run. Risks are exact expectations, and every schedule
gets its own best peak from one grid; chance enters only through the norms of the first run.
"""

from __future__ import annotations

import math

import numpy as np

from trainplan import schedules as s
from trainplan.lab import Claim, Study
from trainplan.lab.toys.quadratic import NoisyQuadratic, gradient_norms, peak_grid

MODEL = NoisyQuadratic(exponent=1.0, noise=1.0, size=20)
GRID = peak_grid(0.003, 1.5, 40)
U = np.linspace(0, 1, 600, endpoint=False)
NOISE = {  # standard deviation of the gradient noise over the run
    "constant noise": np.full(U.size, 0.3),
    "rising noise": 0.1 + U**3,
    "falling noise": 0.5 * (1 - U),
    "noise in the first tenth": np.where(U < 0.1, 2.0, 0.1),
}


def measure_all(seed: int) -> dict[str, dict[str, float]]:
    """Risk of each schedule at its best peak, under every kind of noise."""
    results: dict[str, dict[str, float]] = {"refined": {}, "linear": {}, "cosine": {}}
    times = np.arange(U.size)
    linear = s.linear(1.0).resolve(U.size)(times)
    cosine = s.cosine(1.0).resolve(U.size)(times)
    for kind, sigma in NOISE.items():
        variance = sigma**2
        results["linear"][kind], peak = MODEL.best_risk(linear, GRID, variance)
        results["cosine"][kind], _ = MODEL.best_risk(cosine, GRID, variance)
        norms = gradient_norms(MODEL, peak * linear, seed, variance)
        refined = s.refine(norms, 1.0, optimizer="sgd").resolve(U.size)(times)
        results["refined"][kind], _ = MODEL.best_risk(refined, GRID, variance)
    return results


def gain(results, kind: str, over: str = "linear") -> float:
    """How often the refined risk must be doubled to reach the other schedule's."""
    return math.log2(results[over][kind] / results["refined"][kind])


STUDY = Study(
    paper="schedule-refinement",
    claim="Where gradients get noisier towards the end, the schedule refined from the norms of a "
    "linear run has at most half the risk of linear decay and of cosine",
    arms=["refined", "linear", "cosine"],
    measure_all=measure_all,
    metric="rising noise",
    claims=[
        Claim(
            text="With rising noise the refined schedule has at most half of linear's risk",
            name="rising noise, against linear",
            effect=lambda r: gain(r, "rising noise"),
            margin=1.0,
            unit="doublings",
        ),
        Claim(
            text="With rising noise the refined schedule has at most half of cosine's risk",
            name="rising noise, against cosine",
            effect=lambda r: gain(r, "rising noise", "cosine"),
            margin=1.0,
            unit="doublings",
        ),
        Claim(
            text="With constant noise it is at most 15 % above linear (where it should be linear)",
            name="constant noise",
            effect=lambda r: gain(r, "constant noise"),
            margin=-math.log2(1.15),
            unit="doublings",
        ),
        Claim(
            text="With noise that falls to zero it is not above linear",
            name="falling noise",
            effect=lambda r: gain(r, "falling noise"),
            decides=False,
            unit="doublings",
        ),
        Claim(
            text="With large noise in the first tenth it is not above linear",
            name="noise in the first tenth",
            effect=lambda r: gain(r, "noise in the first tenth"),
            decides=False,
            unit="doublings",
        ),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=list(NOISE),
    budget="600 steps of SGD on 20 directions for the norms; 40 peaks for every schedule",
    note="The method needs a first run, which the other schedules do not: its cost is not counted "
    "here. Real gradient norms often change little, and then refinement gives back linear decay "
    "with a warm-up.",
)
