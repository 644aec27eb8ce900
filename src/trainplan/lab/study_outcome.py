"""What a study found: its claims' advantages, intervals and verdicts, as data and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainplan.lab.statistics import Interval
from trainplan.lab.study import Claim, SeedResults, Study
from trainplan.lab.verdict import (
    Verdict,
    combine,
    decide,
    decide_exact,
    look_interval,
    nominal_level,
)

FORMAT = "trainplan-study/1"


@dataclass(frozen=True)
class ClaimOutcome:
    """What was found about one claim.

    Attributes:
        claim: The claim.
        advantages: One per seed, in the order of the seeds; one alone for an exact study.
        interval: Of their mean; a single point for an exact study.
        verdict: By the rule of `trainplan.lab.verdict`.
    """

    claim: Claim
    advantages: tuple[float, ...]
    interval: Interval
    verdict: Verdict

    @property
    def figure(self) -> str:
        """The advantage with its interval, as text."""
        found, unit = self.interval, f" {self.claim.unit}" if self.claim.unit else ""
        if not math.isfinite(found.estimate):
            return "not finite: a run diverged"
        if found.low == found.high:
            return f"{_signed(found.estimate)}{unit}"
        return f"{_signed(found.estimate)} ({_signed(found.low)} to {_signed(found.high)}){unit}"


@dataclass(frozen=True)
class StudyOutcome:
    """The outcome of a study.

    Attributes:
        study: The study.
        results: What was measured: by seed, then by arm. An exact study has the one key -1.
        claims: One per claim, in the study's order.
        verdict: From the deciding claims.
        looks: The looks that the rule allowed for.
        tuned: For each arm with `Tuned` arguments, their chosen values.
        tuning: What tuning measured: by arm, a list of arguments, seed and metric.
        quick: Whether it was shortened; such an outcome is no evidence.
        seconds: Wall-clock time; with what a stopped run had measured before.
        cpu_seconds: Processor time of the measurements, which other work on the machine does not
            lengthen as much.
        provenance: Environment, digests and the options it was run with.
    """

    study: Study
    results: Mapping[int, SeedResults]
    claims: tuple[ClaimOutcome, ...]
    verdict: Verdict
    looks: tuple[int, ...]
    tuned: Mapping[str, Mapping[str, Any]]
    tuning: Mapping[str, Sequence[Mapping[str, Any]]]
    quick: bool
    seconds: float
    cpu_seconds: float
    provenance: Mapping[str, Any]

    @property
    def sentences(self) -> list[str]:
        """What was found, one sentence for each claim."""
        opening = ["Shortened run, no evidence."] if self.quick else []
        return opening + [_sentence(found, len(self.results), self.study) for found in self.claims]

    @property
    def summary(self) -> str:
        """The verdict of each claim without its figures, and the number of seeds."""
        parts = ["Shortened run, no evidence."] if self.quick else []
        for found in self.claims:
            role = "" if found.claim.decides else " (decides nothing)"
            parts.append(f"{found.claim.text.rstrip('.')}: {found.verdict}{role}.")
        seeds = "Exact, without seeds." if self.study.exact else f"{len(self.results)} seeds."
        return " ".join([*parts, seeds])

    @property
    def figures(self) -> dict[str, str]:
        """Named figures for the paper's card: each claim's advantage, then the arms' means."""
        names = [outcome.claim.label for outcome in self.claims]
        found = {}
        for name, outcome in zip(names, self.claims, strict=True):
            alike = names.count(name) > 1 and bool(outcome.claim.metric)
            found[f"{name}, {outcome.claim.metric}" if alike else name] = outcome.figure
        for metric in self.study.metrics:
            means = [
                f"{arm} {_short(mean)}"
                for arm in self.arms
                if (mean := self.mean(arm, metric)) is not None
            ]
            if means:
                found[f"mean {metric}"] = ", ".join(means)
        return found

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that was measured."""
        return tuple(dict.fromkeys(arm for results in self.results.values() for arm in results))

    def values(self, arm: str, metric: str) -> list[float] | None:
        """One metric of an arm on every seed; ``None`` if it was not measured."""
        rows = [results.get(arm, {}) for results in self.results.values()]
        return [row[metric] for row in rows] if all(metric in row for row in rows) else None

    def mean(self, arm: str, metric: str) -> float | None:
        """Mean of a metric over the seeds; ``None`` if it was not measured."""
        values = self.values(arm, metric)
        return float(np.mean(values)) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the JSON file holds it; what is not finite is ``null``."""
        study = self.study
        content: dict[str, Any] = _plain(
            {
                "format": FORMAT,
                "paper": study.paper,
                "claim": study.claim,
                "verdict": self.verdict,
                "summary": self.summary,
                "figures": self.figures,
                "quick": self.quick,
                "exact": study.exact,
                "claims": [_claim_dict(outcome, study) for outcome in self.claims],
                "rule": rule(study, self.looks),
                "looks": list(self.looks),
                "seeds": [] if study.exact else list(self.results),
                "budget": study.budget,
                "note": study.note,
                "tuned": self.tuned,
                "tuning": self.tuning,
                "arms": {arm: _arguments(study, arm) for arm in study.names},
                "results": {str(seed): found for seed, found in self.results.items()},
                "seconds": round(self.seconds, 1),
                "cpu_seconds": round(self.cpu_seconds, 1),
                **self.provenance,
            }
        )
        return content


def judge(
    study: Study, results: Sequence[SeedResults], looks: tuple[int, ...]
) -> tuple[ClaimOutcome, ...]:
    """Apply the rule to what was measured so far.

    Args:
        study: The study.
        results: One per seed, in order; a single one for an exact study.
        looks: The looks that were fixed; the number of results is one of them.
    """
    outcomes = []
    for claim in study.claims:
        advantages = tuple(claim.advantage(found) for found in results)
        if study.exact:
            value = advantages[0]
            verdict = decide_exact(value, claim.margin)
            outcomes.append(ClaimOutcome(claim, advantages, Interval(value, value, value), verdict))
            continue
        deciding = len(study.deciding) if claim.decides else 1
        interval = look_interval(advantages, looks, deciding=deciding)
        outcomes.append(ClaimOutcome(claim, advantages, interval, decide(interval, claim.margin)))
    return tuple(outcomes)


def overall(outcomes: Sequence[ClaimOutcome]) -> Verdict:
    """The study's verdict from those of its claims."""
    return combine(outcome.verdict for outcome in outcomes if outcome.claim.decides)


def rule(study: Study, looks: tuple[int, ...]) -> str:
    """How the verdict is reached, in a sentence or two."""
    if study.exact:
        return "Exact, without seeds: reproduced if the advantage is at least the margin."
    level = 100 * (1 - 2 * nominal_level(looks))
    when = f"after {looks[0]} seeds"
    if len(looks) > 1:
        when = f"after {', '.join(map(str, looks[:-1]))} or {looks[-1]} seeds"
    text = (
        f"Reproduced if the whole {level:.1f}% interval of the paired advantage lies above the "
        f"margin, contradicted if it lies below, {when}."
    )
    if len(study.deciding) > 1:
        text += (
            f" {len(study.deciding)} claims decide: all must be reproduced, and one contradicted "
            "is enough to contradict."
        )
    return text


def _sentence(outcome: ClaimOutcome, seeds: int, study: Study) -> str:
    count = "exact" if study.exact else f"{seeds} seeds"
    role = "" if outcome.claim.decides else " (reported only)"
    text = outcome.claim.text.rstrip(".")
    margin = f", margin {outcome.claim.margin:g}" if outcome.claim.margin else ""
    return f"{text}: {outcome.verdict}{role}, advantage {outcome.figure}, {count}{margin}."


def _claim_dict(outcome: ClaimOutcome, study: Study) -> dict[str, Any]:
    claim = outcome.claim
    return {
        "text": claim.text,
        "name": claim.label,
        "decides": claim.decides,
        "verdict": outcome.verdict,
        "margin": claim.margin,
        "unit": claim.unit,
        "arm": claim.arm,
        "than": claim.than,
        "metric": claim.metric,
        "direction": claim.direction,
        "advantage": outcome.interval.estimate,
        "low": outcome.interval.low,
        "high": outcome.interval.high,
        "advantages": list(outcome.advantages),
    }


def _arguments(study: Study, arm: str) -> dict[str, Any]:
    plan = study.plan(arm)
    if plan is not None:
        return {"plan": plan.to_dict(), "plan_digest": plan.digest}
    return study.arguments(arm)


def _plain(value: Any) -> Any:
    """Strict JSON of whatever arguments a study has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return repr(value)


def _signed(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 10 else f"{value:+.4g}"


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
