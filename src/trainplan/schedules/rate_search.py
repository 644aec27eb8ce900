"""Choose the next learning rate to try: Bayesian optimization over its logarithm.

A Gaussian process (Matern 5/2, with white noise) is fitted to the rates tried so far, and the rate
with the lowest ``mean - kappa * deviation`` comes next. A large ``kappa`` spreads the rates over
the range; a small one stays near the best. It is a function of what was tried, so a search that
was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError

FloatArray = npt.NDArray[np.float64]
Search = Literal["gp", "grid"]
_CANDIDATES = 513


def next_rate(
    lowest: float,
    highest: float,
    tried: Sequence[float],
    losses: Sequence[float | None],
    *,
    trials: int = 10,
    search: Search = "gp",
    kappa: float = 1000.0,
    seed: int | Sequence[int] = 0,
) -> float:
    """The rate to try next, between ``lowest`` and ``highest`` and not tried yet.

    Args:
        lowest: Above 0.
        highest: Above ``lowest``.
        tried: The rates tried so far.
        losses: What each of them came to; None if it diverged.
        trials: How many there will be: the number of points of the grid.
        search: ``"gp"``, or ``"grid"``: evenly spaced logarithms, from the lowest.
        kappa: How much a large deviation counts.
        seed: Of the first rate.

    >>> [next_rate(0.01, 1.0, [0.0] * i, [0.0] * i, trials=3, search="grid") for i in range(3)]
    [0.01, 0.1, 1.0]
    """
    if search == "grid":
        share = len(tried) / (trials - 1) if trials > 1 else 0.5
        return _rate(share, lowest, highest)
    if not tried:
        return _rate(float(np.random.default_rng(seed).random()), lowest, highest)
    places = np.array([_place(rate, lowest, highest) for rate in tried])
    candidates = np.linspace(0.0, 1.0, _CANDIDATES)
    apart = np.abs(candidates[:, None] - places[None, :]).min(axis=1)
    # A rate that was tried is never proposed again, however flat the losses are.
    candidates = candidates[apart > 0.5 / _CANDIDATES]
    mean, deviation = posterior(places, penalized(losses), candidates)
    return _rate(float(candidates[np.argmin(mean - kappa * deviation)]), lowest, highest)


def posterior(
    places: FloatArray, losses: FloatArray, candidates: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the Gaussian process at the candidates.

    Args:
        places: (n,) where losses are known, in [0, 1].
        losses: (n,) finite.
        candidates: (m,) where they are asked for.
    """
    gaussian = require("sklearn.gaussian_process", extra="lab")
    kernels = require("sklearn.gaussian_process.kernels", extra="lab")
    smooth = kernels.Matern(length_scale=0.3, length_scale_bounds=(0.05, 2.0), nu=2.5)
    noise = kernels.WhiteKernel(noise_level=0.01, noise_level_bounds=(1e-6, 1.0))
    # Two points say nothing about the length scale.
    optimizer = "fmin_l_bfgs_b" if places.size > 2 else None
    process: Any = gaussian.GaussianProcessRegressor(
        smooth + noise, normalize_y=True, optimizer=optimizer
    )
    with warnings.catch_warnings():
        # With ten points a length scale often ends at its bound, which is what bounds are for.
        warnings.simplefilter(
            "ignore", require("sklearn.exceptions", extra="lab").ConvergenceWarning
        )
        process.fit(places[:, None], losses)
    mean, deviation = process.predict(candidates[:, None], return_std=True)
    return np.asarray(mean, dtype=np.float64), np.asarray(deviation, dtype=np.float64)


def penalized(losses: Sequence[float | None]) -> FloatArray:
    """The losses, with one standard deviation above the worst for those that diverged.

    A huge number instead would flatten all differences between the others.

    >>> penalized([1.0, 3.0, None]).tolist()
    [1.0, 3.0, 4.0]
    """
    known = np.array([loss for loss in losses if loss is not None], dtype=np.float64)
    if not known.size:
        return np.zeros(len(losses))
    # One value has no spread; any step above it says the same to a normalized process.
    penalty = float(known.max() + (known.std() or max(abs(known.max()), 1e-12)))
    return np.array([penalty if loss is None else loss for loss in losses], dtype=np.float64)


def check_range(lowest: float, highest: float) -> None:
    """Refuse a range that has no logarithms or no width.

    Raises:
        PlanError: Naming the end that is wrong.
    """
    if lowest <= 0:
        raise PlanError(
            "the lowest rate must be above zero",
            place="lowest",
            value=lowest,
            remedy="Rates are searched by their logarithm: write 1e-4, say",
        )
    if highest <= lowest:
        raise PlanError(
            f"the highest rate must be above the lowest, {lowest:g}", place="highest", value=highest
        )


def _place(rate: float, lowest: float, highest: float) -> float:
    return math.log(rate / lowest) / math.log(highest / lowest)


def _rate(place: float, lowest: float, highest: float) -> float:
    if place in {0.0, 1.0}:
        return lowest if place == 0 else highest
    return float(lowest * (highest / lowest) ** place)
