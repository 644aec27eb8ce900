"""A study: a published claim, stated as an experiment before it runs.

A study file defines one, called ``STUDY``::

    from trainplan.lab import Study

    def measure(arm, seed, steps=2000):
        ...                                   # train; return what was found
        return {"loss": 1.83}

    STUDY = Study(
        paper="wsd-s",
        claim="WSD-S ends no higher than WSD at equal compute",
        arms=["wsd-s", "wsd"],                # the first is claimed to beat the second
        measure=measure, metric="loss", direction="lower", margin=0.0,
        seeds=range(10), looks=(5, 10),
        budget="2000 steps of a character model per arm and seed",
    )

``trainplan reproduce FILE`` runs it, and `trainplan.lab.verdict` holds the rule by which it ends.
Arms may carry arguments (``arms={"wsd": {"peak": 2e-3}}``), plans for a workload of the lab
(``arms={"wsd": plan}, workload="text"``), and arguments to be `Tuned` first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainplan.errors import PlanError, nearest
from trainplan.lab.experiment import TUNING_SEEDS_FROM
from trainplan.lab.verdict import check_looks
from trainplan.lab.workload import WorkloadSpec
from trainplan.plan import Plan

Metrics = Mapping[str, float]
"""What was measured, by name."""

SeedResults = Mapping[str, Metrics]
"""What was measured on one seed, by arm."""

DIRECTIONS = ("lower", "higher")


@dataclass(frozen=True, init=False)
class Tuned:
    """An argument of an arm whose value is chosen beforehand, on seeds used for nothing else.

    Example:
        >>> arms = {"cosine": {"peak": Tuned(1e-3, 2e-3, 4e-3)}}
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if len(values) < 2:
            remedy = "Give at least two, or the value itself"
            raise PlanError(
                "there is nothing to choose", place="Tuned", value=values, remedy=remedy
            )
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One comparison that a study makes.

    Attributes:
        text: The claim in one sentence.
        arm: The arm that is claimed to be ahead.
        than: The arm it is compared with, or a number.
        metric: What is compared.
        than_metric: What is taken of ``than``; the same by default.
        direction: Which values of the metric are better: ``lower`` or ``higher``.
        margin: The smallest advantage that counts, in units of the metric. Negative for "not worse
            by more than".
        effect: Computes the advantage of one seed from its results by arm, instead of all of the
            above; positive in favour of the claim.
        decides: Whether the study's verdict rests on it; otherwise it is only reported.
        name: A few words for tables.
        unit: Of the advantage, such as ``nats/char``.
    """

    text: str
    arm: str = ""
    than: str | float = ""
    metric: str = ""
    than_metric: str = ""
    direction: str = "lower"
    margin: float = 0.0
    effect: Callable[[SeedResults], float] | None = None
    decides: bool = True
    name: str = ""
    unit: str = ""

    def advantage(self, results: SeedResults) -> float:
        """How far the claim's arm is ahead on one seed; NaN or infinite if a run diverged.

        Example:
            >>> claim = Claim(text="a is better", arm="a", than="b", metric="loss")
            >>> claim.advantage({"a": {"loss": 1.0}, "b": {"loss": 1.5}})
            0.5
        """
        if self.effect is not None:
            return float(self.effect(results))
        mine = _value(results, self.arm, self.metric)
        if isinstance(self.than, str):
            other = _value(results, self.than, self.than_metric or self.metric)
        else:
            other = float(self.than)
        return other - mine if self.direction == "lower" else mine - other

    @property
    def label(self) -> str:
        """Its name, or one made from what it compares."""
        if self.name or self.effect is not None:
            return self.name or self.text
        mine = self.metric if self.than_metric else ""
        than = f"{self.than} {self.than_metric}".strip()
        return f"{self.arm} {mine}".strip() + f" against {than}"


def _value(results: SeedResults, arm: str, metric: str) -> float:
    if metric not in results[arm]:
        raise PlanError(
            f"the measurement of the arm {arm!r} has no such metric",
            place="metric",
            value=metric,
            remedy=nearest(metric, results[arm]),
        )
    return float(results[arm][metric])


@dataclass(frozen=True, kw_only=True)
class Study:
    """A claim, the experiment that tests it, and when it has said enough.

    Attributes:
        paper: Slug of the paper in the catalogue.
        claim: The claim in one sentence.
        arms: Names, or for each name the arguments that ``measure`` gets, or its plan.
        measure: ``measure(arm, seed, **arguments)`` returns metrics; an exact study's is called
            without a seed. It has to be a function of a module, since worker processes import it.
        measure_all: ``measure_all(seed)`` returns the metrics of every arm, for arms that share
            work; instead of ``measure``.
        workload: A workload of the lab, whose ``loss`` and other metrics after the plans' last
            step are measured; instead of the two, with plans as arms.
        metric: What is compared, and what tuning minimizes or maximizes.
        direction: Which values of it are better: ``lower`` or ``higher``.
        margin: The smallest advantage that counts.
        unit: Of the metric.
        claims: The comparisons. By default one: the first arm against the second.
        seeds: All that may be used, in order; none for an exact study.
        looks: After how many seeds the study looks at its data; by default after all.
        tuning_seeds: On how many seeds `Tuned` arguments are chosen.
        budget: What one arm and seed costs, in words.
        note: What a reader should know: why the effect may not show at this scale, what differs.
        data: Returns a digest of the data.
        quick: Arguments that make ``measure`` (or ``measure_all``) shorter, for ``--quick``.
        shown: Metrics to show for every arm; by default those that claims use.

    Raises:
        PlanError: If the parts do not fit together.
    """

    paper: str
    claim: str
    arms: Sequence[str] | Mapping[str, Any] = ()
    measure: Callable[..., Metrics] | None = None
    measure_all: Callable[..., SeedResults] | None = None
    workload: str | WorkloadSpec | None = None
    metric: str = "loss"
    direction: str = "lower"
    margin: float = 0.0
    unit: str = ""
    claims: Sequence[Claim] = ()
    seeds: Sequence[int] = ()
    looks: Sequence[int] = ()
    tuning_seeds: int = 2
    budget: str = ""
    note: str = ""
    data: Callable[[], str] | None = None
    quick: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[str] = ()

    def __post_init__(self) -> None:
        arms = self.arms if isinstance(self.arms, Mapping) else {name: {} for name in self.arms}
        object.__setattr__(self, "arms", dict(arms))
        object.__setattr__(self, "claims", tuple(self.claims) or (self._default_claim(),))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        self._check_measure()
        self._check_claims()
        self._check_seeds()

    @property
    def exact(self) -> bool:
        """Whether the results are computed without chance, so that there are no seeds."""
        return not self.seeds

    @property
    def deciding(self) -> tuple[Claim, ...]:
        """The claims that the verdict rests on."""
        return tuple(claim for claim in self.claims if claim.decides)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to show for every arm."""
        used = [m for claim in self.claims for m in (claim.metric, claim.than_metric) if m]
        return tuple(self.shown) or tuple(dict.fromkeys([*used, self.metric]))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arms."""
        return tuple(self.arms)

    def arguments(self, arm: str) -> dict[str, Any]:
        """The arguments of an arm, those to be tuned included; empty where a plan stands."""
        given = self.arms[arm]  # type: ignore[call-overload]
        return {} if isinstance(given, Plan) else dict(given)

    def plan(self, arm: str) -> Plan | None:
        """The plan of an arm: the arm itself, or its argument ``plan``."""
        given = self.arms[arm]  # type: ignore[call-overload]
        found = given if isinstance(given, Plan) else given.get("plan")
        return found if isinstance(found, Plan) else None

    def staged(self, most: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Seeds and looks, for at most so many seeds; more than are listed are counted on.

        Raises:
            PlanError: If the study is exact or ``most`` is below two.
        """
        if most is None:
            return tuple(self.seeds), tuple(self.looks)
        if self.exact:
            remedy = "Leave --seeds out"
            raise PlanError(f"{self.paper} is exact", place="--seeds", value=most, remedy=remedy)
        first_new = max(self.seeds) + 1
        seeds = [*self.seeds, *range(first_new, first_new + max(0, most - len(self.seeds)))]
        looks = check_looks([*(look for look in self.looks if look < most), most])
        return tuple(seeds[:most]), looks

    def _default_claim(self) -> Claim:
        names = tuple(self.arms)
        if len(names) < 2:
            remedy = "Name two arms, the first claimed to be ahead, or give claims=[...]"
            raise PlanError("nothing to compare", place="arms", value=list(names), remedy=remedy)
        return Claim(
            text=self.claim,
            arm=names[0],
            than=names[1],
            metric=self.metric,
            direction=self.direction,
            margin=self.margin,
            unit=self.unit,
        )

    def _check_measure(self) -> None:
        given = [self.measure, self.measure_all, self.workload]
        if sum(way is not None for way in given) != 1:
            problem = "a study measures in exactly one way"
            raise PlanError(
                problem, place="measure", remedy="Give measure, measure_all or workload"
            )
        plans = [isinstance(arm, Plan) for arm in self.arms.values()]  # type: ignore[union-attr]
        if any(plans) != (self.workload is not None) or (any(plans) and not all(plans)):
            remedy = "Arms are plans if, and only if, there is a workload"
            raise PlanError("plans and workload go together", place="arms", remedy=remedy)
        tuned = any(
            isinstance(v, Tuned) for arm in self.names for v in self.arguments(arm).values()
        )
        if tuned and self.measure is None:
            raise PlanError("only measure can be tuned", place="arms", remedy="Use measure")

    def _check_claims(self) -> None:
        if not self.deciding:
            raise PlanError("no claim decides", place="claims", remedy="Leave out decides=False")
        for claim in self.claims:
            place = f"claim {claim.label!r}"
            if not math.isfinite(claim.margin):
                raise PlanError("must be finite", place=f"{place}: margin", value=claim.margin)
            if claim.effect is not None:
                continue
            if claim.direction not in DIRECTIONS:
                remedy = nearest(claim.direction, DIRECTIONS)
                raise PlanError(
                    "unknown", place=f"{place}: direction", value=claim.direction, remedy=remedy
                )
            for arm in (claim.arm, claim.than):
                if isinstance(arm, str) and arm not in self.names:
                    remedy = nearest(arm, self.names)
                    raise PlanError("no such arm", place=place, value=arm, remedy=remedy)
            if not claim.metric:
                raise PlanError("missing", place=f"{place}: metric", remedy="Name a metric")

    def _check_seeds(self) -> None:
        if self.exact:
            if self.workload is not None or self.looks:
                remedy = "Give seeds=range(10)"
                raise PlanError("an exact study has no looks", place="seeds", remedy=remedy)
            return
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise PlanError("each seed once, none negative", place="seeds", value=self.seeds)
        if max(self.seeds) >= TUNING_SEEDS_FROM:
            remedy = f"Seeds from {TUNING_SEEDS_FROM} on are used for tuning"
            raise PlanError("too large", place="seeds", value=max(self.seeds), remedy=remedy)
        looks = check_looks(self.looks or (len(self.seeds),))
        if looks[-1] != len(self.seeds):
            remedy = f"End the looks with {len(self.seeds)}"
            raise PlanError("not the number of seeds", place="looks", value=looks, remedy=remedy)
        object.__setattr__(self, "looks", looks)
