"""The power scheduler: does a rate fitted on small budgets and batches carry over to a large one?

Shen et al., 2024, arXiv 2408.13359. The best peak of WSD is searched on small budgets (examples T)
and two batch sizes, on a seed of its own; from it the law best peak / batch = a T^b is fitted.
Then, at the largest budget and without further tuning, the power schedule with that a and b meets
WSD with the peak of the smallest budget and batch, and WSD with a peak tuned there. The paper uses
muP and batches of sequences of 4096 tokens; here an example is one character, and a and b are
refitted.
"""

import numpy as np

from trainplan import Plan, schedules
from trainplan.lab import CharModel, Claim, Study, char_text

BATCHES = (16, 64)
SMALL, LARGE = (4_800, 14_400), 43_200
PEAKS = [5e-4 * 2**k for k in range(6)]
WARMUP, DECAY = "5%", "10%"
SEARCH_SEEDS = 2_000_000


def train(seed: int, batch: int, examples: int, lr: schedules.Schedule) -> float:
    """Validation loss after some examples, in nats per character."""
    plan = Plan(horizon=examples // batch, tokens_per_step=batch, lr=lr)
    model = CharModel(char_text(), seed, hidden=96, batch=batch)
    model.train(plan, "prose")
    return model.loss("prose")


def wsd(peak: float) -> schedules.Schedule:
    """WSD as the paper searches it: decayed linearly to zero over the last tenth."""
    return schedules.wsd(peak, WARMUP, DECAY, shape="linear", end=0.0)


def best_peak(seed: int, batch: int, examples: int) -> float:
    """Minimum of a parabola through the best peak and its neighbours, in logarithms."""
    losses = [train(seed, batch, examples, wsd(peak)) for peak in PEAKS]
    k = int(np.clip(np.argmin(losses), 1, len(PEAKS) - 2))
    x, y = np.log(PEAKS[k - 1 : k + 2]), np.minimum(losses[k - 1 : k + 2], 10.0)
    curvature, slope, _ = np.polyfit(x, y, 2)
    if curvature <= 0:
        return PEAKS[int(np.argmin(losses))]
    return float(np.exp(np.clip(-slope / (2 * curvature), x[0], x[-1])))


def measure_all(seed: int, large: int = LARGE) -> dict[str, dict[str, float]]:
    """Search, fit, and meet at the large budget; every search is on another seed."""
    search = SEARCH_SEEDS + seed
    best = {(T, B): best_peak(search, B, T) for T in (*SMALL, large) for B in BATCHES}
    gamma = [np.mean([best[T, B] / B for B in BATCHES]) for T in SMALL]
    b, log_a = np.polyfit(np.log(SMALL), np.log(gamma), 1)
    transplanted = best[SMALL[0], BATCHES[0]]
    found: dict[str, dict[str, float]] = {name: {} for name in ("power", "transplanted", "tuned")}
    for batch in BATCHES:
        law = schedules.power(
            PEAKS[-1], batch, a=float(np.exp(log_a)), b=float(b), warmup=WARMUP, decay=DECAY
        )
        arms = {"power": law, "transplanted": wsd(transplanted), "tuned": wsd(best[large, batch])}
        for name, lr in arms.items():
            found[name][f"batch {batch}"] = train(seed, batch, large, lr)
    for losses in found.values():
        losses["mean"] = float(np.mean(list(losses.values())))
    budgets, ratio = (*SMALL, large), np.log(BATCHES[1] / BATCHES[0])
    peaks = np.log([[best[T, B] for B in BATCHES] for T in budgets])
    found["law"] = {
        "b": float(b),
        "batch exponent": float(np.mean(peaks[:, 1] - peaks[:, 0]) / ratio),
        "budget exponent": float(np.polyfit(np.log(budgets), peaks.mean(axis=1), 1)[0]),
    }
    return found


STUDY = Study(
    paper="power-scheduler",
    claim="The best peak of WSD falls with the budget and rises with the batch, and a power "
    "schedule fitted on small budgets stays close to a separately tuned WSD at a larger one",
    arms=["power", "transplanted", "tuned", "law"],
    measure_all=measure_all,
    metric="mean",
    claims=[
        Claim(
            text="The best peak of WSD falls with the budget",
            name="fall of the best peak: minus the exponent of the budget",
            arm="law",
            than=0.0,
            metric="budget exponent",
        ),
        Claim(
            text="The best peak of WSD rises with the batch",
            name="exponent of the batch",
            arm="law",
            than=0.0,
            metric="batch exponent",
            direction="higher",
        ),
        Claim(
            text="The fitted power schedule is within 0.02 of WSD tuned at the large budget",
            arm="power",
            than="tuned",
            metric="mean",
            margin=-0.02,
            unit="nats/char",
        ),
        Claim(
            text="At the smaller batch the fitted power schedule is within 0.02 of the tuned WSD",
            name="batch 16: power against tuned",
            arm="power",
            than="tuned",
            metric="batch 16",
            margin=-0.02,
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="At the smaller batch it beats WSD with the peak of the smallest run",
            name="batch 16: power against transplanted",
            arm="power",
            than="transplanted",
            metric="batch 16",
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="At the larger batch it beats WSD with the peak of the smallest run",
            name="batch 64: power against transplanted",
            arm="power",
            than="transplanted",
            metric="batch 64",
            unit="nats/char",
            decides=False,
        ),
        Claim(
            text="The best peak grows in proportion to the batch, as the law has it (within 0.25)",
            name="exponent of the batch, against one",
            arm="law",
            than=1.0,
            metric="batch exponent",
            direction="higher",
            margin=-0.25,
            decides=False,
        ),
    ],
    seeds=range(100, 124),
    looks=(8, 16, 24),
    budget="a search over 6 peaks at 3 budgets and 2 batches, then 3 arms at 43,200 examples",
    data=lambda: char_text().digest,
    quick={"large": 20_000},
    shown=("batch 16", "batch 64", "mean", "b", "batch exponent", "budget exponent"),
    note="Without muP, and with budgets and batches four orders of magnitude below the paper's. "
    "For Adam in small batches theory expects a square root of the batch rather than the "
    "batch itself, and a schedule in proportion to the batch then overshoots at the larger one.",
)
