"""Rank schedules by their predicted final loss, and find a better one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.laws.curves import rates_of
from trainplan.laws.law import length_of
from trainplan.laws.predictor import MODEL_ERROR, Predictor
from trainplan.laws.readers.raw import Floats
from trainplan.schedules import Hold, Phase, Polynomial, Schedule, cosine, linear, wsd
from trainplan.schedules import Sequence as Pieces

_FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
_POWERS = (0.7, 1.0, 1.5, 2.0)
_ENDS = (0.0, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Difference:
    """How much lower one final loss is predicted to be than another.

    Attributes:
        gain: In nats; positive if the first is better.
        low: Lower end of the band.
        high: Upper end.
    """

    gain: float
    low: float
    high: float

    @property
    def expected(self) -> bool:
        """Whether a difference is to be expected at all: the band excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if not self.expected:
            return f"no difference to be expected ({self.low:+.4f} to {self.high:+.4f} nats)"
        return f"{self.gain:+.4f} nats ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class Ranked:
    """A schedule's place.

    Attributes:
        name: Of the plan.
        loss: Predicted final loss.
        low: Lower end of its band.
        high: Upper end.
        behind: How much the best one is better.
    """

    name: str
    loss: float
    low: float
    high: float
    behind: Difference


@dataclass(frozen=True)
class Choice:
    """A schedule that was found.

    Attributes:
        schedule: Warm-up, constant rate, decay.
        horizon: Steps of the run.
        loss: Predicted final loss.
        low: Lower end of its band.
        high: Upper end.
        gains: How much better it is than the usual schedules of the same peak and horizon.
    """

    schedule: Schedule
    horizon: int
    loss: float
    low: float
    high: float
    gains: Mapping[str, Difference]


def difference(
    predictor: Predictor, better: Floats, worse: Floats, level: float = 0.8
) -> Difference:
    """Compare two final losses, law by law, so that what is common to both cancels.

    Args:
        predictor: Fitted laws.
        better: Rates of the schedule that should be better.
        worse: Rates of the other.
        level: Share of the outcomes that the band should hold.
    """
    a, b = predictor.final(better), predictor.final(worse)
    weights = np.array(predictor.weights)
    gain = float(weights @ (b - a))
    spread = float(weights @ (b - a - gain) ** 2)
    loss = float(weights @ b)
    shared = _alike(better, worse)
    slopes = zip(predictor.final_slopes(better), predictor.final_slopes(worse), strict=True)
    undetermined = predictor.undetermined([y - x for x, y in slopes])
    error = math.sqrt(spread + undetermined + (MODEL_ERROR * loss) ** 2 * shared)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Difference(gain, gain - reach, gain + reach)


def _alike(a: Floats, b: Floats) -> float:
    """How much of the model error is not common to both: 0 for equal rates, at most 1."""
    if a.size != b.size:
        return 1.0
    peak = max(float(a.max()), float(b.max()))
    return float(min(1.0, 4.0 * np.abs(a - b).mean() / peak))


def rank(
    predictor: Predictor, plans: Any, *, steps: int = 0, level: float = 0.8, anyway: bool = False
) -> list[Ranked]:
    """Order plans by their predicted final loss, best first.

    Args:
        predictor: What `laws.fit` gave.
        plans: Plans, or schedules and arrays by name.
        steps: Length of the run, where a schedule has none.
        level: Of the bands.
        anyway: Rank even what the curves cannot tell.

    Raises:
        OutsideEvidenceError: If the curves cannot tell about one of them.
    """
    named = _named(plans)
    rates = {n: rates_of(s, steps or length_of(s, None)) for n, s in named.items()}
    ahead = {
        name: predictor.predict(r, at=[r.size - 1], level=level, anyway=anyway)
        for name, r in rates.items()
    }
    order = sorted(named, key=lambda name: float(ahead[name].loss[0]))
    best = rates[order[0]]
    return [
        Ranked(
            name,
            float(ahead[name].loss[0]),
            float(ahead[name].low[0]),
            float(ahead[name].high[0]),
            difference(predictor, best, rates[name], level),
        )
        for name in order
    ]


def _named(plans: Any) -> dict[str, Any]:
    from trainplan.plan import Plan

    if isinstance(plans, Mapping) and not isinstance(plans, Plan):
        named = dict(plans)
    else:
        given: Sequence[Any] = [plans] if isinstance(plans, Plan) else list(plans)
        named = {
            getattr(plan, "name", None) or f"plan {i + 1}": plan for i, plan in enumerate(given)
        }
        if len(named) != len(given):
            raise PlanError("two plans have the same name", place="plans", value=list(named))
    if not named:
        raise PlanError("there is nothing to rank", place="plans", value=plans)
    return named


def trapezoid(
    peak: float, horizon: int, warmup: int, fraction: float, power: float, end: float
) -> Schedule:
    """Warm-up, constant rate, and a decay over the last ``fraction`` like ``(1 - u)^power``.

    >>> schedule = trapezoid(1.0, 100, 10, 0.5, 1.0, 0.0)
    >>> schedule([5, 30, 50, 75, 100]).tolist()
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    decay = max(1, min(round(fraction * horizon), horizon - warmup))
    falling = Phase(peak, end * peak, decay, Polynomial(power))  # type: ignore[arg-type]
    pieces: list[Any] = [] if not warmup else [Phase(0.0, peak, warmup)]  # type: ignore[arg-type]
    if horizon > warmup + decay:
        pieces.append(Hold(peak, horizon - warmup - decay))  # type: ignore[arg-type]
    return Pieces(*pieces, falling)


def optimize(
    predictor: Predictor,
    horizon: int,
    *,
    peak: float | None = None,
    end: float | None = None,
    warmup: int | None = None,
    level: float = 0.8,
    anyway: bool = False,
) -> Choice:
    """Find the schedule with the lowest predicted final loss among warm-up, stable, decay.

    Laws must not be minimised over free schedules: they reward what no one has measured. The
    search runs over the length of the decay, its power and its end.

    Args:
        predictor: What `laws.fit` gave.
        horizon: Steps of the run.
        peak: The peak rate; by default that of the curves.
        end: The last rate relative to the peak; by default it is searched for, from 0 to a tenth.
        warmup: Steps of warm-up; by default those of the curves.
        level: Of the bands.
        anyway: Search even where the curves cannot tell.

    Raises:
        OutsideEvidenceError: If the curves cannot tell about the peak or the horizon.
    """
    evidence = predictor.evidence
    top = evidence.peak if peak is None else float(peak)
    rise = evidence.warmup if warmup is None else int(warmup)
    if not 0 <= rise < horizon:
        raise PlanError(
            f"must be at least 0 and less than the horizon {horizon}", place="warmup", value=rise
        )
    if end is not None and not 0 <= end < 1:
        raise PlanError("is relative to the peak: from 0 to less than 1", place="end", value=end)
    if not anyway:
        evidence.check(_rates(trapezoid(top, horizon, rise, 0.2, 1.0, 0.1), horizon), "horizon")
    found = _search(_objective(predictor, top, horizon, rise), end, 1 - rise / horizon)
    schedule = trapezoid(top, horizon, rise, *found)
    rates = _rates(schedule, horizon)
    ahead = predictor.predict(rates, at=[horizon - 1], level=level, anyway=True)
    usual = {
        "cosine": cosine(top, end="10%", warmup=rise),
        "cosine to 0": cosine(top, warmup=rise),
        "wsd": wsd(top, warmup=rise, decay="20%", shape="linear", end=0.0),
        "linear": linear(top, warmup=rise),
    }
    gains = {
        name: difference(predictor, rates, _rates(other.resolve(horizon), horizon), level)
        for name, other in usual.items()
    }
    loss, low, high = (float(x[0]) for x in (ahead.loss, ahead.low, ahead.high))
    return Choice(schedule, horizon, loss, low, high, gains)


def _rates(schedule: Schedule, horizon: int) -> Floats:
    return np.asarray(schedule(np.arange(horizon, dtype=np.float64)))


def _objective(
    predictor: Predictor, peak: float, horizon: int, warmup: int
) -> Callable[[float, float, float], float]:
    weights = np.array(predictor.weights)
    rising = peak * np.arange(warmup) / max(warmup, 1)

    def loss(fraction: float, power: float, end: float) -> float:
        decay = max(1, min(round(fraction * horizon), horizon - warmup))
        left = 1.0 - np.arange(decay) / decay
        falling = peak * (end + (1.0 - end) * left**power)
        rates = np.concatenate([rising, np.full(horizon - warmup - decay, peak), falling])
        return float(weights @ predictor.final(rates))

    return loss


def _search(
    loss: Callable[[float, float, float], float], end: float | None, most: float
) -> tuple[float, float, float]:
    """A coarse grid, then a simplex from its best point."""
    ends = _ENDS if end is None else (end,)
    grid = [(min(f, most), p, e) for f in _FRACTIONS for p in _POWERS for e in ends]
    start = min(grid, key=lambda x: loss(*x))
    minimize = require("scipy.optimize", extra="laws").minimize

    def unpack(z: Floats) -> tuple[float, float, float]:
        last = end if end is not None else float(np.clip(z[2], 0.0, 0.1))
        return (
            float(np.clip(np.exp(z[0]), 1e-3, most)),
            float(np.clip(np.exp(z[1]), 0.3, 6.0)),
            last,
        )

    first = np.array([math.log(start[0]), math.log(start[1]), start[2]])
    steps = np.array([[0.0, 0, 0], [0.15, 0, 0], [0, 0.2, 0], [0, 0, 0.01]])
    simplex = first + steps
    if end is not None:
        simplex, first = simplex[:3, :2], first[:2]
    result = minimize(
        lambda z: loss(*unpack(z)),
        first,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 80, "xatol": 1e-3, "fatol": 1e-6},
    )
    best = unpack(result.x)
    return best if loss(*best) <= loss(*start) else start
