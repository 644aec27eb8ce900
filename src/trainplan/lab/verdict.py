"""How a study ends: the rule that turns paired differences over seeds into one of three words.

A claim says that one arm has an *advantage* over another of at least a *margin*, the smallest one
that would count. The advantage is measured once per seed, on the same seed for both arms. The rule:

- *reproduced*, if the whole interval of the mean advantage lies above the margin;
- *contradicted*, if the whole interval lies below it;
- *inconclusive* otherwise.

The interval is Student's, and made wider when there may be several looks at the data. Seeds are
then added in stages that were fixed beforehand, and only while the study is inconclusive (a
group-sequential test; Pocock 1977). Whatever the true advantage is, a false "reproduced" and a
false "contradicted" each have a probability of at most `LEVEL` over all looks together, for
normally distributed differences; ``benchmarks/verdict_error_rates.py`` measures it for others too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.lab.statistics import Interval, mean_interval

Verdict = Literal["reproduced", "contradicted", "inconclusive"]

LEVEL = 0.025
"""Greatest probability of each of the two false verdicts, over all looks together."""

_DRAWS = 400_000
_SEED = 20_240_101


def check_looks(looks: Sequence[int]) -> tuple[int, ...]:
    """The numbers of seeds at which a study looks at its data, if they make sense.

    Raises:
        PlanError: If there are none, they do not rise, or the first is below two.
    """
    numbers = tuple(looks)
    if not numbers or numbers[0] < 2 or any(b <= a for a, b in pairwise(numbers)):
        remedy = "Give rising numbers of seeds, the first at least 2, such as (5, 10, 20)"
        raise PlanError("a study cannot look then", place="looks", value=looks, remedy=remedy)
    return numbers


@lru_cache(maxsize=64)
def nominal_level(looks: tuple[int, ...], level: float = LEVEL) -> float:
    """The one-sided level of a single look, so that all of them together keep ``level``.

    Every look uses the same level (Pocock 1977, Biometrika 64). It is the ``level``-quantile of the
    smallest p-value over the looks, when the advantage equals the margin and differences are
    normal, found by simulating the t-statistics with a fixed seed. It lies between
    ``level / len(looks)`` (Bonferroni) and ``level``.

    Args:
        looks: Rising numbers of seeds, the first at least 2.
        level: In (0, 0.5).

    Raises:
        PlanError: If the looks make no sense.

    Example:
        >>> nominal_level((8,))
        0.025
        >>> 0.025 / 3 < nominal_level((5, 10, 20)) < 0.0125
        True
    """
    numbers = check_looks(looks)
    if len(numbers) == 1:
        return level
    smallest = null_p_values(numbers).min(axis=0)
    found = float(np.quantile(smallest, level))
    return min(max(found, level / len(numbers)), level)


def null_p_values(looks: Sequence[int], draws: int = _DRAWS, seed: int = _SEED) -> np.ndarray:
    """One-sided p-values of simulated studies without any advantage.

    Only means and sums of squares of the stages are drawn, which is exact for normal differences.

    Args:
        looks: Rising numbers of seeds.
        draws: Number of simulated studies.
        seed: Of the simulation.

    Returns:
        Shape (len(looks), draws); small where the simulated advantage is large.
    """
    stdtr = require("scipy.special", extra="lab").stdtr
    random = np.random.default_rng(seed)
    count, mean, squares = 0, np.zeros(draws), np.zeros(draws)
    p_values = []
    for look in looks:
        added = look - count
        others = random.standard_normal(draws) / math.sqrt(added)
        within = random.chisquare(added - 1, draws) if added > 1 else np.zeros(draws)
        # Pool the sums of squares of two groups (Chan, Golub and LeVeque 1983).
        squares = squares + within + (others - mean) ** 2 * count * added / look
        mean = mean + (others - mean) * added / look
        count = look
        t = mean / np.sqrt(squares / ((look - 1) * look))
        p_values.append(stdtr(look - 1, -t))
    return np.stack(p_values)


def look_interval(
    advantages: ArrayLike, looks: Sequence[int], *, level: float = LEVEL, deciding: int = 1
) -> Interval:
    """The mean advantage with the interval that the verdict is read from.

    ``mean -+ t[1 - p, n - 1] * s / sqrt(n)`` with p the `nominal_level`. With several deciding
    claims the upper end uses ``level / deciding``: one false contradiction would be enough to
    contradict the study, while "reproduced" needs all claims and so needs no allowance.

    Args:
        advantages: Shape (n,), positive in favour of the claim, one per seed.
        looks: When the study looks; n is one of them.
        level: One-sided error over all looks.
        deciding: Number of claims that the study's verdict rests on.

    Raises:
        PlanError: If n is not a look, since the rule says nothing then.

    Example:
        >>> interval = look_interval([0.02, 0.03, 0.025, 0.02, 0.03], looks=(5, 10))
        >>> round(interval.estimate, 3), interval.low > 0.015
        (0.025, True)
    """
    values = np.asarray(advantages, dtype=np.float64)
    numbers = check_looks(looks)
    if values.size not in numbers:
        raise PlanError(
            f"there are {values.size} seeds, and the rule speaks at {numbers} only",
            place="advantages",
            remedy="Run the missing seeds",
        )
    lower = mean_interval(values, 1 - 2 * nominal_level(numbers, level))
    upper = mean_interval(values, 1 - 2 * nominal_level(numbers, level / deciding))
    return Interval(lower.estimate, lower.low, upper.high)


def decide(interval: Interval, margin: float) -> Verdict:
    """The verdict on one claim.

    Example:
        >>> decide(Interval(0.03, 0.02, 0.04), margin=0.01)
        'reproduced'
        >>> decide(Interval(0.003, -0.001, 0.007), margin=0.01)
        'contradicted'
        >>> decide(Interval(0.012, 0.005, 0.02), margin=0.01)
        'inconclusive'
    """
    if interval.low > margin:
        return "reproduced"
    if interval.high < margin:
        return "contradicted"
    return "inconclusive"


def decide_exact(advantage: float, margin: float) -> Verdict:
    """The verdict on a claim whose advantage is computed without chance: the margin alone decides.

    Example:
        >>> decide_exact(0.0, margin=0.0), decide_exact(-0.1, margin=0.0)
        ('reproduced', 'contradicted')
    """
    if not math.isfinite(advantage):
        return "inconclusive"
    return "reproduced" if advantage >= margin else "contradicted"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a study from those of its deciding claims.

    Contradicted if any of them is, reproduced if all of them are, inconclusive otherwise.

    Raises:
        ValueError: If there are none.

    Example:
        >>> combine(["reproduced", "inconclusive"])
        'inconclusive'
    """
    found = list(verdicts)
    if not found:
        raise ValueError("verdicts is empty: at least one claim has to decide")
    if "contradicted" in found:
        return "contradicted"
    return "reproduced" if set(found) == {"reproduced"} else "inconclusive"
