"""Fitted laws that predict together, with a band, and say what they cannot know."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from trainplan.errors import PlanError
from trainplan.files import read_text, write_atomically
from trainplan.laws.curves import Curve, listed, rates_of, warmup_of
from trainplan.laws.evidence import Evidence
from trainplan.laws.fitting import Fit, after_warmup, fit_law
from trainplan.laws.law import Law, length_of
from trainplan.laws.readers.raw import Floats
from trainplan.laws.views import Ints, end_view, view_of

MIXED = {"concave": 4.0, "annealing": 7.3, "multi_power": 8.0, "functional": 11.7}
"""The laws that "auto" mixes, each with the error in 1/1000 nats that is expected beforehand.

Geometric means over six predictions among five 210M- and two 124M-parameter runs that are in none
of the published tables (benchmarks/laws.py calibrates them anew)."""
MODEL_ERROR = 0.0010
"""Relative error of a prediction where all laws agree and the curves determine them (one standard
deviation). Set after a trial on measured curves: bands for 80 % then hold 80 to 99 % of their
points, by model; with a width chosen on other models only, 64 to 98 % (benchmarks/laws.py
--coverage)."""
_WIDEST = 1.0  # a band of more than a factor of e to both sides says no more
_FORMAT = "trainplan-law/1"
_EARLY = 2.0 / 3.0
_LEAST_POINTS = 9


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predicted loss curve with its band.

    Attributes:
        steps: Shape (n,).
        loss: Shape (n,), in nats.
        low: Lower end of the band; shape (n,).
        high: Upper end; shape (n,).
        level: Share of the outcomes that the band should hold.
        outside: Why the fitted curves cannot tell, if ``anyway`` was asked for.
    """

    steps: Ints
    loss: Floats
    low: Floats
    high: Floats
    level: float
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """One law or several, with their weights and what they were fitted to.

    Attributes:
        laws: The fitted laws.
        weights: Their shares; they add up to 1.
        evidence: What the fitted curves have seen.
        noise: Scatter of the measurements around the fit, in log loss.
        held_out: Mean error of each law on the late parts of the curves, in log loss; NaN if the
            curves were too short to hold some back.
        covariances: Of each law's parameters (Laplace approximation); shapes (p, p). What the
            curves leave undetermined makes the band wide where it matters. Without them, the
            parameters are taken for known.
    """

    laws: tuple[Law, ...]
    weights: tuple[float, ...]
    evidence: Evidence
    noise: float
    held_out: tuple[float, ...] = ()
    covariances: tuple[Floats, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.covariances:
            known = tuple(np.zeros((len(law.units),) * 2) for law in self.laws)
            object.__setattr__(self, "covariances", known)

    def predict(
        self,
        schedule: Any,
        at: Any = None,
        *,
        steps: int = 0,
        level: float = 0.8,
        anyway: bool = False,
    ) -> Prediction:
        """The loss under a schedule, with a band.

        The band holds the spread between the laws, what the curves leave open about each law's
        parameters, a relative model error where all agree (`MODEL_ERROR`), and the noise of the
        measurements. It is symmetric in the logarithm of the loss.

        Args:
            schedule: A plan, a schedule, or the rate of every step.
            at: Steps at which to predict; by default about 500, the last among them.
            steps: Length of the run, where the schedule itself has none.
            level: Share of the outcomes that the band should hold, in (0, 1).
            anyway: Predict even what the curves cannot tell, and say why they cannot.

        Raises:
            OutsideEvidenceError: If the curves cannot tell, with the reasons.
        """
        if not 0 < level < 1:
            raise PlanError("must lie between 0 and 1", place="level", value=level)
        rates = rates_of(schedule, steps or length_of(schedule, at))
        if not anyway:
            self.evidence.check(rates, getattr(schedule, "name", "") or "")
        points = self._points(rates, at)
        loss, doubt = self.mixed(rates, points)
        error = np.sqrt(doubt**2 + MODEL_ERROR**2 + self.noise**2)
        factor = np.exp(NormalDist().inv_cdf((1 + level) / 2) * np.minimum(error, _WIDEST))
        reasons = tuple(self.evidence.outside(rates))
        return Prediction(points, loss, loss / factor, loss * factor, level, reasons)

    def mixed(self, rates: Floats, at: Ints) -> tuple[Floats, Floats]:
        """The mixture's loss, and its relative doubt from the spread and the parameters; (n,)."""
        view = view_of(rates, at, warmup_of(rates))
        each = np.stack([law.on(view) for law in self.laws])
        weights = np.array(self.weights)
        loss = weights @ each
        variance = weights @ (each - loss) ** 2
        for weight, law, covariance in zip(self.weights, self.laws, self.covariances, strict=True):
            slope = law.slopes(view)[1]
            variance = variance + weight * _quadratic(slope, covariance)
        return loss, np.sqrt(variance) / loss

    def _points(self, rates: Floats, at: Any) -> Ints:
        if at is not None:
            return np.atleast_1d(np.asarray(at, dtype=np.int64))
        first = min(max(warmup_of(rates), 1), rates.size - 1)
        return np.unique(np.linspace(first, rates.size - 1, 500).astype(np.int64))

    def final(self, rates: Floats) -> Floats:
        """Each law's loss at the last step, with merged changes; shape (laws,)."""
        view = end_view(rates, warmup_of(rates))
        return np.array([law.on(view)[0] for law in self.laws])

    def final_slopes(self, rates: Floats) -> list[Floats]:
        """Derivatives of each law's loss at the last step by its parameters; shapes (p,)."""
        view = end_view(rates, warmup_of(rates))
        return [law.slopes(view)[1][0] for law in self.laws]

    def undetermined(self, slopes: Sequence[Floats]) -> float:
        """Variance of a quantity that depends on each law's parameters by these slopes."""
        parts = zip(self.weights, slopes, self.covariances, strict=True)
        return float(sum(w * _quadratic(s[None], c)[0] for w, s, c in parts))

    # Writing and reading

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "format": _FORMAT,
            "laws": [law.to_dict() for law in self.laws],
            "weights": list(self.weights),
            "held_out": [None if math.isnan(x) else x for x in self.held_out],
            "noise": self.noise,
            "covariances": [c.tolist() for c in self.covariances],
            "evidence": self.evidence.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: Any, source: str = "law") -> Predictor:
        """Read what `to_dict` wrote.

        Raises:
            PlanError: If it is something else.
        """
        if not isinstance(plain, Mapping) or plain.get("format") != _FORMAT:
            raise PlanError(
                f"not a fitted law (format {_FORMAT})",
                place=source,
                remedy="Make one with  trainplan fit CURVES... --out law.json",
            )
        for key in ("laws", "weights", "held_out"):
            if not isinstance(plain.get(key), list):
                raise PlanError("must be a list", place=f"{source}: {key}", value=plain.get(key))
        try:
            laws = tuple(Law.from_dict(law) for law in plain["laws"])
            weights = tuple(float(w) for w in plain["weights"])
            held_out = tuple(math.nan if x is None else float(x) for x in plain["held_out"])
            noise = float(plain["noise"])
            covariances = _matrices(plain["covariances"], laws)
            evidence = Evidence.from_dict(plain["evidence"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise error.inside(source) from None
            raise PlanError(f"damaged: {error!r}", place=source) from None
        if not laws or len(laws) != len(weights) or not math.isclose(sum(weights), 1.0):
            raise PlanError("weights must belong to the laws and add up to 1", place=source)
        if len(held_out) not in (0, len(laws)):
            raise PlanError("held_out must belong to the laws", place=source)
        return cls(laws, weights, evidence, noise, held_out, covariances)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        write_atomically(Path(path), text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictor:
        """Read a JSON file."""
        try:
            plain = json.loads(read_text(Path(path)))
        except (ValueError, RecursionError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"not JSON: {error}", place=str(path)) from None
        return cls.from_dict(plain, str(path))


def fit(kind: str, curves: Any) -> Predictor:
    """Fit a law, or "auto": all of them, weighed by how well they did.

    With "auto" each law is also fitted to the first two thirds of every curve's points and judged
    on the last third. Its weight falls with the fourth power of its error, there and as expected
    beforehand (`MIXED`).

    Args:
        kind: "auto", or the name of a law.
        curves: One or more curves with the same peak rate; best a constant rate and a cosine.

    Raises:
        CurveError: If the curves cannot be fitted together.

    >>> from trainplan.laws import Concave
    >>> from trainplan import schedules
    >>> truth = Concave(2.6, 1.0, 0.45, 0.2, 1.0, 35.0, 0.5, 0.8, 0.1, peak=1e-3)
    >>> steps, made = np.arange(100, 4000, 50), []
    >>> for shape in (schedules.constant(1e-3, warmup=50), schedules.cosine(1e-3, warmup=50)):
    ...     rates = shape.resolve(4000)(np.arange(4000))
    ...     made.append(Curve("made", steps, truth.predict(rates, at=steps), rates))
    >>> law = fit("auto", made)
    >>> plan = schedules.wsd(1e-3, warmup=50, decay="30%").resolve(5000)
    >>> ahead = law.predict(plan, at=[4999])
    >>> bool(ahead.low[0] < truth.predict(plan, at=[4999])[0] < ahead.high[0])
    True
    """
    given = [after_warmup(curve) for curve in listed(curves)]
    names = tuple(MIXED) if kind == "auto" else (kind,)
    fits = [fit_law(name, given) for name in names]
    held_out = _held_out(names, given)
    weights = (1.0,) if kind != "auto" else _weights(names, held_out)
    return Predictor(
        laws=tuple(f.law for f in fits),
        weights=weights,
        evidence=Evidence.of(given),
        noise=_noise(fits, weights),
        held_out=held_out,
        covariances=tuple(f.parameter_covariance for f in fits),
    )


def _matrices(plain: Any, laws: Sequence[Law]) -> tuple[Floats, ...]:
    """Read covariances, one for each law."""
    found = tuple(np.array(matrix, dtype=np.float64) for matrix in plain)
    if [c.shape for c in found] != [(len(law.units),) * 2 for law in laws]:
        raise ValueError("covariances must have a row and a column for every parameter")
    if not all(np.isfinite(c).all() for c in found):
        raise ValueError("covariances must be finite")
    return found


def _quadratic(slopes: Floats, covariance: Floats) -> Floats:
    """Variances by the rows of slopes (n, p) and a covariance (p, p); never below 0."""
    found = np.einsum("np,pq,nq->n", slopes, covariance, slopes)
    return np.maximum(np.asarray(found, dtype=np.float64), 0.0)


def _noise(fits: Sequence[Fit], weights: Sequence[float]) -> float:
    return float(sum(w * f.noise for w, f in zip(weights, fits, strict=True)))


def _held_out(names: Sequence[str], curves: Sequence[Curve]) -> tuple[float, ...]:
    """Mean absolute error in log loss on the last third of the points of each curve."""
    if min(len(curve) for curve in curves) < _LEAST_POINTS:
        return (math.nan,) * len(names)
    cuts = [int(_EARLY * len(curve)) for curve in curves]
    early = [c.select(np.arange(len(c)) < n) for c, n in zip(curves, cuts, strict=True)]
    late = [c.select(np.arange(len(c)) >= n) for c, n in zip(curves, cuts, strict=True)]
    errors = []
    for name in names:
        law = fit_law(name, early).law
        errors.append(float(np.mean([np.abs(law.residuals(curve)).mean() for curve in late])))
    return tuple(errors)


def _weights(names: Sequence[str], held_out: Sequence[float]) -> tuple[float, ...]:
    expected = np.array([MIXED[name] for name in names])
    seen = np.array(held_out)
    seen = np.zeros(expected.size) if np.isnan(seen).any() else 1000.0 * seen
    shares = (expected**2 + seen**2) ** -2.0
    return tuple(float(x) for x in shares / shares.sum())


__all__ = ["MIXED", "MODEL_ERROR", "Prediction", "Predictor", "fit"]
