"""Predict arms before they are trained, and hold the prediction against the outcome.

A comparison that is asked to predict trains its first arms first. When they are done, a law is
fitted to their mean validation losses, and what it predicts of the other arms is written to
``prediction.json`` before they end. The file says how far they were at that moment, and it is never
written again, so the prediction cannot have known the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainplan.errors import PlanError
from trainplan.lab.curves import plan_rates
from trainplan.lab.experiment import Arm, Experiment, plan_steps
from trainplan.lab.store import RunDirectory, RunDirectoryError

if TYPE_CHECKING:
    from trainplan.lab.results import Comparison, Run
    from trainplan.laws.curves import Curve
    from trainplan.laws.predictor import Predictor

FILE = "prediction.json"
FORMAT = "trainplan-prediction/1"
LEVEL = 0.8
"""Share of the outcomes that a band should hold."""
EVALUATIONS = 40
"""Evaluations of the longest arm by default, where a law is to be fitted to them."""


@dataclass(frozen=True)
class ArmForecast:
    """What was predicted of one arm, or why nothing could be.

    Attributes:
        arm: Its name.
        steps: Completed updates, as evaluations count them; shape (n,).
        loss: Predicted validation loss in nats; shape (n,).
        low: Lower end of the band.
        high: Upper end.
        cannot_tell: Why there is no prediction; empty if there is one.
        trained: Updates of this arm alone (not shared with the fitted arms), over all seeds, that
            were done when it was predicted.
        planned: All updates of this kind.
    """

    arm: str
    steps: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    cannot_tell: tuple[str, ...] = ()
    trained: int = 0
    planned: int = 0

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ArmForecast:
        """From plain data, where tuples are lists."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in plain.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class Forecast:
    """What a law predicted of the arms that it was not fitted to.

    Attributes:
        fitted: The arms that it was fitted to.
        level: Share of the outcomes that bands should hold.
        arms: One entry per other arm.
        shares: The laws' shares in the prediction, by their names.
    """

    fitted: tuple[str, ...]
    level: float = LEVEL
    arms: tuple[ArmForecast, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def made(self) -> bool:
        """Whether it was made, and is not only asked for."""
        return bool(self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, plain: Any, source: str = FILE) -> Forecast:
        """The inverse of `to_dict`.

        Raises:
            RunDirectoryError: If it is something else.
        """
        if not isinstance(plain, Mapping) or plain.get("format") != FORMAT:
            raise RunDirectoryError(f"{source} is not a prediction ({FORMAT}): delete it")
        try:
            arms = [ArmForecast.from_dict(arm) for arm in plain["arms"]]
            return cls(
                tuple(plain["fitted"]), float(plain["level"]), tuple(arms), dict(plain["shares"])
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunDirectoryError(f"{source} is damaged ({error!r}): delete it") from None


@dataclass(frozen=True)
class Check:
    """A prediction of a final loss beside what came of it.

    Attributes:
        arm: Its name.
        predicted: The final loss.
        low: Lower end of the band.
        high: Upper end.
        measured: Mean over seeds.
        error: Measured minus predicted, in nats.
        mean_error: Mean absolute error over the whole predicted curve, relative.
        share_inside: Share of the curve's points that lie in the band.
    """

    arm: str
    predicted: float
    low: float
    high: float
    measured: float
    error: float
    mean_error: float
    share_inside: float

    @property
    def inside(self) -> bool:
        """Whether the final loss lies in its band."""
        return self.low <= self.measured <= self.high


def check_count(experiment: Experiment, count: int | None = None) -> int:
    """How many arms a law is fitted to: ``count``, or two, or one of two arms.

    Raises:
        PlanError: If no arm would be left to predict.
    """
    arms = len(experiment.arms)
    number = min(2, arms - 1) if count is None else count
    if not 1 <= number < arms:
        raise PlanError(
            "a law is fitted to the first arms, and the others are predicted",
            place="predict from",
            value=number,
            remedy=f"There are {arms} arms: give 1 to {arms - 1}"
            if arms > 1
            else "Compare at least two arms",
        )
    return number


def ask(directory: RunDirectory, experiment: Experiment, count: int | None = None) -> Forecast:
    """Note in a run directory that its first arms are to predict the others.

    Args:
        directory: Of the comparison.
        experiment: What is compared.
        count: How many arms the law is fitted to; by default two, or one if there are only two.

    Raises:
        PlanError: If no arm would be left to predict.
        RunDirectoryError: If others were asked to already.
    """
    number = check_count(experiment, count)
    asked = Forecast(tuple(arm.name for arm in experiment.arms[:number]))
    before = load(directory)
    if before is None:
        directory.write_json(FILE, asked.to_dict())
        return asked
    if count is not None and before.fitted != asked.fitted:
        raise RunDirectoryError(
            f"{directory.root} predicts from {', '.join(before.fitted)} already: leave "
            "--predict-from out"
        )
    return before


def load(directory: RunDirectory) -> Forecast | None:
    """What is asked for or predicted in a run directory, if anything."""
    plain = directory.read_json(FILE)
    return None if plain is None else Forecast.from_dict(plain, str(directory.root / FILE))


def predict_arms(
    experiment: Experiment,
    fitted: Sequence[str],
    runs: Mapping[tuple[str, int], Run],
    progress: Mapping[str, tuple[int, int]] | None = None,
) -> Forecast:
    """Fit a law to some arms of a comparison and predict the others.

    Args:
        experiment: The comparison.
        fitted: Names of the arms to fit to.
        runs: Theirs.
        progress: For each other arm the updates that are trained and planned, for the record.
    """
    from trainplan.laws import fit

    others = [arm for arm in experiment.arms if arm.name not in fitted]
    by_name = {arm.name: arm for arm in experiment.arms}
    done = progress or {}
    try:
        curves = [mean_curve(by_name[name], runs, experiment.seeds) for name in fitted]
        law = fit("auto", curves)
    except PlanError as error:
        entries = [ArmForecast(arm.name, cannot_tell=(f"no law: {error}",)) for arm in others]
        return Forecast(tuple(fitted), LEVEL, tuple(_dated(e, done) for e in entries))
    entries = [_predict(law, arm, by_name[fitted[0]], experiment.eval_every) for arm in others]
    shares = {a.kind: round(w, 4) for a, w in zip(law.laws, law.weights, strict=True)}
    return Forecast(tuple(fitted), LEVEL, tuple(_dated(e, done) for e in entries), shares)


def mean_curve(arm: Arm, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]) -> Curve:
    """The mean validation loss over seeds as a curve that laws are fitted to.

    Index t of its rates is the update with t completed updates before it, so that an evaluation
    after s updates stands at s - 1.

    Raises:
        CurveError: If the arm diverged, was not evaluated, or its rate is not known beforehand.
    """
    from trainplan.laws import Curve, CurveError

    rates = plan_rates(arm.plan)
    mine = [runs[arm.name, seed] for seed in seeds]
    if rates is None:
        raise CurveError("its plan does not say the rate of every step", place=arm.name)
    if any(run.diverged_at is not None for run in mine):
        raise CurveError("it diverged", place=arm.name)
    if not mine[0].evaluated.size:
        raise CurveError("it was never evaluated", place=arm.name)
    losses = np.mean([run.metrics["loss"] for run in mine], axis=0)
    return Curve(arm.name, mine[0].evaluated - 1, losses, rates)


def _predict(law: Predictor, arm: Arm, reference: Arm, every: int) -> ArmForecast:
    from trainplan.laws import OutsideEvidenceError
    from trainplan.laws.curves import warmup_of

    reasons = _other_knobs(arm, reference)
    rates = plan_rates(arm.plan)
    if rates is None:
        reasons.append("its rate is not known before it is trained")
    if reasons or rates is None:
        return ArmForecast(arm.name, cannot_tell=tuple(reasons))
    total = plan_steps(arm.plan)
    steps = np.unique(np.append(np.arange(every, total + 1, every), total))
    steps = steps[(steps > warmup_of(rates)) | (steps == total)]
    try:
        ahead = law.predict(rates, at=steps - 1, level=LEVEL)
    except OutsideEvidenceError as error:
        found = law.evidence.outside(rates) or [str(error)]
        return ArmForecast(arm.name, cannot_tell=tuple(found))
    return ArmForecast(
        arm.name,
        steps=tuple(steps.tolist()),
        loss=_rounded(ahead.loss),
        low=_rounded(ahead.low),
        high=_rounded(ahead.high),
    )


def _other_knobs(arm: Arm, reference: Arm) -> list[str]:
    """Knobs besides the rate that differ from those of the fitted arm, as reasons."""
    mine, other = (
        {name: a.plan.to_dict().get(name) for name in a.plan.knobs if name != "lr"}
        for a in (arm, reference)
    )
    names = sorted(k for k in mine.keys() | other.keys() if mine.get(k) != other.get(k))
    if not names:
        return []
    return [f"it differs from {reference.name} in {', '.join(names)}; a law knows the rate alone"]


def _dated(entry: ArmForecast, progress: Mapping[str, tuple[int, int]]) -> ArmForecast:
    trained, planned = progress.get(entry.arm, (0, 0))
    return replace(entry, trained=trained, planned=planned)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def checks(comparison: Comparison) -> list[Check]:
    """Every prediction beside its outcome; arms that diverged or were not predicted left out."""
    forecast = comparison.forecast
    found = []
    for entry in forecast.arms if forecast else ():
        runs = [comparison.runs[entry.arm, seed] for seed in comparison.experiment.seeds]
        if entry.cannot_tell or any(run.diverged_at is not None for run in runs):
            continue
        at = np.searchsorted(runs[0].evaluated, entry.steps)
        measured = np.mean([run.metrics["loss"][at] for run in runs], axis=0)
        loss, low, high = (np.array(x) for x in (entry.loss, entry.low, entry.high))
        found.append(
            Check(
                entry.arm,
                predicted=float(loss[-1]),
                low=float(low[-1]),
                high=float(high[-1]),
                measured=float(measured[-1]),
                error=float(measured[-1] - loss[-1]),
                mean_error=float(np.abs(loss / measured - 1).mean()),
                share_inside=float(((low <= measured) & (measured <= high)).mean()),
            )
        )
    return found


def prediction_dict(comparison: Comparison) -> dict[str, Any]:
    """Prediction and outcome, as ``results.json`` holds them."""
    forecast = comparison.forecast or Forecast(())
    outcomes = [{**asdict(check), "inside": check.inside} for check in checks(comparison)]
    return {**forecast.to_dict(), "outcomes": outcomes}
