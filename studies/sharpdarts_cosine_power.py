"""Cosine power annealing (Hundt, Jain and Hager, 2019), and Max-W mixing beside it.

The paper has no isolated result for its schedule. What the curve is good for follows from its
form: it spends most of the run at low rates, which helps when there is time to spare. Exact risks
on the noisy quadratic; each schedule gets its own best peak from one grid.

Max-W is meant to keep operations that learn fast from crowding out better ones. Here a line, which
learns at once, is mixed with a network, which learns slowly and fits better.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from trainplan import schedules as s
from trainplan.lab import Claim, Study
from trainplan.lab.toys.quadratic import NoisyQuadratic, peak_grid, tuned_risks
from trainplan.models import MixedOperation

BUDGETS = (100, 300, 1000, 3000)
MODEL = NoisyQuadratic(1.0, 1e-2)
SCHEDULES = {
    "p=10": s.cosine_power(1.0, p=10.0),
    "p=2": s.cosine_power(1.0, p=2.0),
    "cosine": s.cosine(1.0),
    "linear": s.linear(1.0),
}


MIXINGS = {"max-w": "max_w", "plain mixing": "scalar"}


def measure(arm: str, seed: int, steps: int = 600) -> dict[str, float]:
    """Risks of a schedule, which do not depend on the seed, or the outcome of a search."""
    return search(MIXINGS[arm], seed, steps) if arm in MIXINGS else risks(arm)


def search(mode: str, seed: int, steps: int) -> dict[str, float]:
    """Final weight of the better operation.

    The operations learn on one half of the data, their weights on the other, in turn (as in DARTS).
    """
    torch.manual_seed(seed)
    line = nn.Linear(1, 1)
    network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    mixed = MixedOperation([line, network], mode)
    x = 4 * torch.rand(2, 256, 1) - 2
    y = x + torch.sin(3 * x) + 0.1 * torch.randn_like(x)
    inner = torch.optim.SGD([*line.parameters(), *network.parameters()], lr=0.02, momentum=0.9)
    outer = torch.optim.Adam([mixed.logits], lr=0.02)

    def step(optimizer: torch.optim.Optimizer, half: int) -> Tensor:
        loss = ((mixed(x[half]) - y[half]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        loss = step(outer, 1)
        step(inner, 0)
    weight = float(mixed.weights[1].detach())
    return {
        "better operation": weight,
        "it wins": float(weight > 0.5),
        "loss": float(loss.detach()),
    }


@cache
def risks(arm: str) -> dict[str, float]:
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
    arms=[*SCHEDULES, *MIXINGS],
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
        Claim(
            text="With Max-W the better operation ends with a larger weight than with plain mixing",
            arm="max-w",
            than="plain mixing",
            metric="better operation",
            direction="higher",
            decides=False,
        ),
    ],
    seeds=range(10),
    shown=["T=100", "T=3000", "better operation", "it wins"],
    budget="100 to 3000 steps of exact expected risk, 40 peaks for every schedule; 600 steps of a "
    "search between two operations per seed",
    quick={"steps": 100},
    note="A statement about the curve, not about architecture search: on a small quadratic the "
    "crossover between budgets is exact, the same for every seed. Under Max-W both operations can "
    "keep a coefficient near one and share the work, so that neither has to win.",
)
