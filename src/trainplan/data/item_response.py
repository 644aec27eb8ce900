"""How hard examples are and how able a model is, on one scale: item response theory.

A crowd of other models answers every example. In the Rasch model the probability of a right answer
is the sigmoid of ability minus difficulty, so that both have one scale, and a model in training can
be placed on it by its answers to a few hundred examples. Lalor and Yu, 2020, "Dynamic Data
Selection for Curriculum Learning via Ability Estimation"; Meng, Zeng, Lalor and Yu, 2024, "A
Psychology-based Unified Dynamic Framework for Curriculum Learning", arXiv 2408.05326.

Fit training and validation examples together: abilities and difficulties of different fits, or
difficulties that were rescaled afterwards, cannot be compared. Difficulties fitted by another tool,
such as py-irt, are as good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import finite

Floats = npt.NDArray[np.float64]
_STEPS = 200
_PRECISE = 1e-10


@dataclass(frozen=True)
class RaschFit:
    """Abilities and difficulties of one fit.

    Attributes:
        abilities: (s,) of the subjects; larger is abler.
        difficulties: (i,) of the items; a subject as able as an item is hard answers it rightly
            half of the time.
    """

    abilities: Floats
    difficulties: Floats


def fit_rasch(responses: npt.ArrayLike, *, difficulty_sd: float = 2.0) -> RaschFit:
    """Fit the Rasch model to who answered what rightly.

    Maximises the sum over all answers of r z - log(1 + e^z), z = ability - difficulty, with normal
    priors: N(0, 1) for abilities and N(0, difficulty_sd^2) for difficulties. That is concave with
    one maximum, found by Newton's method to about 1e-10; examples that all or none answered stay
    finite by the prior. The Hessian is diagonal but for one block, so that a step costs
    min(s, i)^2 * max(s, i): seconds for a crowd of a hundred on 10^5 examples.

    Args:
        responses: (s, i) of subjects by items: 1 for right, 0 for wrong, NaN for not asked.
        difficulty_sd: Standard deviation of the prior of difficulties, above 0.

    >>> fit = fit_rasch([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    >>> fit.difficulties.round(2).tolist()
    [-1.74, -0.44, 0.63]
    """
    r = np.asarray(responses, dtype=np.float64)
    asked = ~np.isnan(r)
    if r.ndim != 2 or not asked.any():
        raise PlanError("needs answers of subjects by items", place="responses", value=r.shape)
    right = np.where(asked, r, 0.0)
    if not np.isin(right, (0.0, 1.0)).all():
        bad = right[~np.isin(right, (0.0, 1.0))][0]
        raise PlanError("an answer is 1, 0 or NaN", place="responses", value=float(bad))
    sd = finite(difficulty_sd, "difficulty_sd")
    if sd <= 0:
        raise PlanError("must be above 0", place="difficulty_sd", value=difficulty_sd)
    abilities, difficulties = np.zeros(r.shape[0]), np.zeros(r.shape[1])
    objective = _log_posterior(right, asked, abilities, difficulties, sd)
    for _ in range(_STEPS):
        up, down = _newton_step(right, asked, abilities, difficulties, sd)
        share = 1.0
        while True:
            tried = (abilities + share * up, difficulties + share * down)
            reached = _log_posterior(right, asked, *tried, sd)
            # Near the top gains drown in rounding; a full step is right there.
            if reached >= objective - 1e-9 * abs(objective) or share < _PRECISE:
                break
            share /= 2
        (abilities, difficulties), objective = tried, reached
        if max(np.abs(up).max(), np.abs(down).max()) < _PRECISE:
            break
    return RaschFit(abilities, difficulties)


def _log_posterior(right: Floats, asked: Any, a: Floats, b: Floats, sd: float) -> float:
    z = a[:, None] - b
    fits = np.where(asked, right * z - np.logaddexp(0.0, z), 0.0).sum()
    return float(fits - (a @ a) / 2 - (b @ b) / (2 * sd**2))


def _newton_step(
    right: Floats, asked: Any, a: Floats, b: Floats, sd: float
) -> tuple[Floats, Floats]:
    p = np.where(asked, _sigmoid(a[:, None] - b), 0.0)
    w = p * (1 - p)
    surplus = right - p
    for_a, for_b = surplus.sum(1) - a, -surplus.sum(0) - b / sd**2
    # The negative Hessian is [[diag(d), -w], [-w', diag(e)]]: eliminate the larger side.
    d, e = w.sum(1) + 1.0, w.sum(0) + 1 / sd**2
    if a.size <= b.size:
        step_a = np.linalg.solve(np.diag(d) - (w / e) @ w.T, for_a + (w / e) @ for_b)
        return step_a, (for_b + w.T @ step_a) / e
    step_b = np.linalg.solve(np.diag(e) - (w.T / d) @ w, for_b + (w.T / d) @ for_a)
    return (for_a + w @ step_b) / d, step_b


def estimate_ability(difficulties: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """The most probable ability of a model, by the items it answered rightly.

    Maximises log N(ability; 0, 1) plus the log likelihood of the Rasch model: the only root of
    -ability + sum(correct - p), found by Newton's method inside a bracket, to rounding. With all or
    no answers right the prior alone keeps it finite.

    Args:
        difficulties: (i,) of the items, from the fit that the examples' difficulties come from.
        correct: (i,) whether each was answered rightly: for classes the largest one, not the loss.

    >>> round(estimate_ability([0.0445, 1.7677, 1.5921, -0.6634, -0.3874], [1, 0, 0, 0, 1]), 6)
    -0.030051
    """
    b, u = _answers(difficulties, correct)
    low, high, ability = -float(b.size), float(b.size), 0.0
    for _ in range(_STEPS):
        p = _sigmoid(ability - b)
        slope = float((u - p).sum()) - ability
        low, high = (ability, high) if slope > 0 else (low, ability)
        step = slope / (1 + float((p * (1 - p)).sum()))
        inside = low <= ability + step <= high
        moved = ability + step if inside else (low + high) / 2
        if abs(moved - ability) <= 1e-14 * max(1.0, abs(ability)):
            break
        ability = moved
    return ability


def negative_log_posterior(
    ability: npt.ArrayLike, difficulties: npt.ArrayLike, correct: npt.ArrayLike
) -> Floats:
    """What `estimate_ability` minimises, for abilities (t,); nothing is dropped.

    >>> negative_log_posterior([0.0], [0.0], [True]).round(4).tolist()
    [1.6121]
    """
    b, u = _answers(difficulties, correct)
    at = np.asarray(ability, dtype=np.float64)
    z = at[..., None] - b
    prior = at**2 / 2 + math.log(2 * math.pi) / 2
    found: Floats = prior - (u * z - np.logaddexp(0.0, z)).sum(-1)
    return found


def difficulty_at(ability: float, probability: npt.ArrayLike) -> Floats:
    """How hard an item is that a model answers rightly with a given probability.

    >>> difficulty_at(0.0, 0.75).round(4).item()
    -1.0986
    """
    p = np.asarray(probability, dtype=np.float64)
    if not ((p > 0) & (p < 1)).all():
        raise PlanError("must lie above 0 and below 1", place="probability", value=probability)
    found: Floats = finite(ability, "ability") + np.log(1 / p - 1)
    return found


def _answers(difficulties: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Floats, Floats]:
    b = np.asarray(difficulties, dtype=np.float64)
    u = np.asarray(correct, dtype=np.float64)
    if b.ndim != 1 or not b.size or b.shape != u.shape:
        raise PlanError(
            f"{b.shape} difficulties and {u.shape} answers do not match",
            place="correct",
            value=u.shape,
            remedy="Give one of each per item",
        )
    if not np.isfinite(b).all():
        raise PlanError("a difficulty is not finite", place="difficulties", value=b)
    if not np.isin(u, (0.0, 1.0)).all():
        raise PlanError("an answer is right (1) or wrong (0)", place="correct", value=correct)
    return b, u


def _sigmoid(z: Floats) -> Floats:
    # By tanh, which does not overflow.
    found: Floats = 0.5 * (1 + np.tanh(z / 2))
    return found
