"""Few-shot evaluation: how well a fresh linear classifier does on a model's features.

Every episode draws a few classes, learns from a few examples of each and is tested on the others.
Classes are drawn without replacement and examples at random, as is usual; the script of CDFSL-V
(Samarasinghe et al., 2023, arXiv 2309.03989) may draw a class twice and always learns from the
first examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.lab.statistics import Interval, mean_interval
from trainplan.schedules.values import count

Indices = npt.NDArray[np.int64]


def episodes(
    labels: npt.ArrayLike, ways: int = 5, shots: int = 5, number: int = 100, *, seed: int = 0
) -> Iterator[tuple[Indices, Indices]]:
    """Examples to learn from, and to be tested on, in each episode.

    Args:
        labels: (N,) the class of each example.
        ways: Classes per episode.
        shots: Examples to learn from, of each class.
        number: Of episodes; each is a function of the seed and of its place.
        seed: Of everything random.

    Yields:
        (ways * shots,) and the rest of these classes, indices of examples.

    Raises:
        PlanError: If there are too few classes, or a class has no example left for the test.

    >>> learn, test = next(episodes([0, 0, 0, 1, 1, 1], ways=2, shots=2))
    >>> len(learn), len(test)
    (4, 2)
    """
    y = np.asarray(labels)
    classes, sizes = np.unique(y, return_counts=True)
    few = count(shots, "shots")
    if not 2 <= count(ways, "ways") <= classes.size:
        raise PlanError(f"there are {classes.size} classes", place="ways", value=ways)
    if sizes.min() <= few:
        raise PlanError(
            f"a class has {sizes.min()} examples", place="shots", value=shots, remedy="Give fewer"
        )
    for episode in range(count(number, "number")):
        random = np.random.default_rng((seed, episode))
        drawn = random.choice(classes, ways, replace=False)
        shuffled = [random.permutation(np.flatnonzero(y == c)) for c in drawn]
        yield (
            np.concatenate([rows[:few] for rows in shuffled]),
            np.concatenate([rows[few:] for rows in shuffled]),
        )


def few_shot_accuracy(
    features: Any,
    labels: npt.ArrayLike,
    ways: int = 5,
    shots: int = 5,
    number: int = 100,
    *,
    seed: int = 0,
) -> Interval:
    """Mean accuracy over episodes of a logistic regression on features, with its 95 % interval.

    Args:
        features: (N, D) what the model without its head says of each example.
        labels: As for `episodes`, like all that follows.
        ways: Classes per episode.
        shots: Examples to learn from, of each class.
        number: Of episodes.
        seed: Of everything random.

    >>> few_shot_accuracy(np.repeat(np.eye(5), 9, 0), np.repeat(range(5), 9), number=3).estimate
    1.0
    """
    linear = require("sklearn.linear_model", extra="lab")
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or len(x) != len(y):
        raise PlanError(f"needs ({len(y)}, D)", place="features", value=x.shape)
    found = []
    for learn, test in episodes(y, ways, shots, number, seed=seed):
        model = linear.LogisticRegression(C=1.0, solver="newton-cg", max_iter=1000)
        found.append(float(model.fit(x[learn], y[learn]).score(x[test], y[test])))
    return mean_interval(found)
