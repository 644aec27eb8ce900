"""The six learning-rate plans that a comparison without plan files looks at."""

from __future__ import annotations

from typing import Any

from trainplan import schedules
from trainplan.lab.experiment import Arm
from trainplan.plan import Plan


def default_arms(*, peak: float, steps: int) -> tuple[Arm, ...]:
    """Constant, linear, cosine, REX, WSD and WSD-S with one peak and one warmup.

    All warm up over the first 5 % of the steps. Linear, cosine and REX (Chen et al. 2022,
    arXiv:2107.04197) decay to zero over all the rest, WSD (Hu et al. 2024, arXiv:2404.06395; the
    1-sqrt shape of Haegele et al. 2024, arXiv:2405.18392) over its last 20 %. WSD-S (Wen et al.
    2024, arXiv:2410.05192) decays to 10 % in the last tenth of the whole and of its first half, so
    that it has a usable model at half the budget as well.

    Args:
        peak: Highest learning rate of every arm.
        steps: Budget of every arm.
    """
    s = schedules
    rise: dict[str, Any] = {"warmup": "5%", "skip_zero": True}
    halves = [("45%", "50%"), ("90%", "100%")]
    rates = {
        "constant": s.constant(peak, **rise),
        "linear": s.linear(peak, **rise),
        "cosine": s.cosine(peak, **rise),
        "rex": s.rex(peak, **rise),
        "wsd": s.wsd(peak, decay="20%", shape="1-sqrt", end=0.0, **rise),
        "wsd-s": s.wsd_s(peak, windows=halves, **rise),
    }
    return tuple(Arm(name, Plan(horizon=steps, name=name, lr=lr)) for name, lr in rates.items())
