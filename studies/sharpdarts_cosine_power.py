"""Cosine power annealing (Hundt, Jain and Hager, 2019), and Max-W mixing beside it.

The paper has no isolated result for its schedule. What the curve is good for follows from its
form: it spends most of the run at low rates, which helps when there is time to spare. Exact risks
on the noisy quadratic; each schedule gets its own best peak from one grid.
"""

from __future__ import annotations

from trainplan import schedules as s
from trainplan.lab import Claim, Study
from trainplan.lab.toys.quadratic import NoisyQuadratic, peak_grid, tuned_risks

BUDGETS = (100, 300, 1000, 3000)
MODEL = NoisyQuadratic(1.0, 1e-2)
SCHEDULES = {
    "p=10": s.cosine_power(1.0, p=10.0),
    "p=2": s.cosine_power(1.0, p=2.0),
    "cosine": s.cosine(1.0),
    "linear": s.linear(1.0),
}


def measure(arm: str) -> dict[str, float]:
    """Tuned risk by budget, and the risk at a peak twice as high as cosine's best."""
    found = {}
    for steps in BUDGETS:
        times = list(range(steps))
        found[f"T={steps}"] = tuned_risks(MODEL, {arm: SCHEDULES[arm]}, steps)[arm]
        _, peak = MODEL.best_risk(SCHEDULES["cosine"].resolve(steps)(times), peak_grid())
        high = min(2 * peak, float(peak_grid()[-1]))
        found[f"too high T={steps}"] = float(
            MODEL.risk(SCHEDULES[arm].resolve(steps)(times) * high)
        )
    return found


STUDY = Study(
    paper="sharpdarts-cosine-power",
    claim="Against a tuned cosine, p = 10 lowers the risk of long budgets and raises that of short "
    "ones",
    arms=list(SCHEDULES),
    measure=measure,
    metric="T=3000",
    claims=[
        Claim(
            text="With 3000 steps p = 10 is at least 5 % below cosine",
            name="long budget",
            effect=lambda r: 1 - r["p=10"]["T=3000"] / r["cosine"]["T=3000"],
            margin=0.05,
            unit="share of the risk",
        ),
        Claim(
            text="With 100 steps p = 10 is at least 5 % above cosine",
            name="short budget",
            effect=lambda r: r["p=10"]["T=100"] / r["cosine"]["T=100"] - 1,
            margin=0.05,
            unit="share of the risk",
        ),
        Claim(
            text="At a peak twice cosine's best (or at the limit of stability), p = 10 is not "
            "behind cosine with 1000 steps",
            name="peak too high",
            effect=lambda r: 1 - r["p=10"]["too high T=1000"] / r["cosine"]["too high T=1000"],
            margin=0.0,
            unit="share of the risk",
            decides=False,
        ),
    ],
    shown=[f"T={steps}" for steps in BUDGETS],
    budget="100 to 3000 steps of exact expected risk, 40 peaks for every schedule",
    note="A statement about the curve, not about architecture search: on a small quadratic the "
    "crossover between budgets is exact.",
)
