"""How far apart sets of features are: domains from a source, classes from each other.

The squared maximum mean discrepancy is that of Gretton et al., 2012, "A Kernel Two-Sample Test";
the entropic transport cost without its bias that of Feydy et al., 2019, arXiv 1810.08278. Take
features from one model state, in evaluation mode: those of two states cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, rate

Floats = npt.NDArray[np.float64]
Kernel = Literal["gaussian", "linear"]
Metric = str | Callable[[Floats, Floats], float]

KERNELS: Final = ("gaussian", "linear")
METRICS: Final = ("cosine", "euclidean", "mmd", "transport")


def as_points(features: Any, place: str = "features") -> Floats:
    """(n, d) features as an array, from lists, arrays or tensors.

    Raises:
        PlanError: If they are no table of finite numbers with at least one row.
    """
    if hasattr(features, "detach"):
        features = features.detach().cpu()
    points = np.asarray(features, dtype=np.float64)
    if points.ndim != 2 or not points.size:
        remedy = "Give (n, d): a row for each example"
        raise PlanError("not a table", place=place, value=points.shape, remedy=remedy)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise PlanError("not finite", place=f"{place}[{bad[0]}]", value=points[bad[0]].tolist())
    return points


def squared_distances(x: Floats, y: Floats) -> Floats:
    """(n, m) squared Euclidean distances between the rows of (n, d) and (m, d).

    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[25.0, 0.0]]
    """
    norms = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
    squares: Floats = norms - 2 * (x @ y.T)
    # What nearly cancels is rounding error: such pairs are subtracted before they are squared.
    i, j = np.nonzero(squares <= 1e-8 * norms)
    squares[i, j] = ((x[i] - y[j]) ** 2).sum(axis=1)
    return squares


def median_distance(features: Any) -> float:
    """The median Euclidean distance between two different rows of (n, d): a width for a kernel.

    Raises:
        PlanError: If there is only one row.

    >>> median_distance([[0.0], [1.0], [5.0]])
    4.0
    """
    points = as_points(features)
    if len(points) < 2:
        raise PlanError("a single row has no distance", place="features", value=points.shape)
    once = np.tri(len(points), k=-1, dtype=bool)
    return float(np.median(np.sqrt(squared_distances(points, points)[once])))


def mmd2(x: Any, y: Any, kernel: Kernel = "gaussian", sigma: float | None = None) -> float:
    """The squared maximum mean discrepancy of two sets, biased estimate (V-statistic).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over all pairs, an element with itself included;
    for the linear kernel, |mean x - mean y|^2. Never below zero, and zero for equal sets. The bias
    grows as sets get smaller: compare sets of one size, with one ``sigma``.

    Args:
        x: (n, d) features.
        y: (m, d) features.
        kernel: ``gaussian``, exp(-|x - y|^2 / (2 sigma^2)), or ``linear``, x y.
        sigma: Width of the Gaussian, above 0; by default the median distance of all rows.

    Raises:
        PlanError: If sizes do not fit, or all rows are equal and there is no ``sigma``.

    >>> round(mmd2([[0.0], [1.0]], [[3.0], [4.0]], sigma=1.0), 4)
    1.5276
    >>> mmd2([[0.0], [1.0]], [[3.0], [4.0]], "linear")
    9.0
    """
    if kernel not in KERNELS:
        raise PlanError("unknown", place="kernel", value=kernel, remedy=nearest(kernel, KERNELS))
    first, second = _pair(x, y)
    if kernel == "linear":
        return float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    width = median_distance(np.concatenate([first, second])) if sigma is None else sigma
    if width == 0:
        remedy = "Give a sigma above 0, or kernel='linear'"
        raise PlanError("most rows are equal", place="sigma", value=sigma, remedy=remedy)
    scale = -0.5 / rate(width, "sigma") ** 2

    def mean(a: Floats, b: Floats) -> float:
        return float(np.exp(scale * squared_distances(a, b)).mean())

    return max(mean(first, first) + mean(second, second) - 2 * mean(first, second), 0.0)


def transport(x: Any, y: Any, blur: float = 0.1, iterations: int = 100) -> float:
    """The cost of moving one set onto the other, entropic and without the bias of that.

    S = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 with costs |x - y|^2 / 2 and an entropy of weight
    blur^2, by Sinkhorn's iterations in the log domain. Between sets of one class each, the optimal
    transport dataset distance (Alvarez-Melis and Fusi, 2020, arXiv 2002.02923) is this up to a
    monotonic function.

    Args:
        x: (n, d) features.
        y: (m, d) features.
        blur: Length below which differences do not count, in the unit of the features, above 0.
        iterations: Of Sinkhorn's algorithm; more for a smaller blur.

    >>> round(transport([[0.0], [1.0]], [[3.0], [4.0]]), 4)
    4.5
    """
    first, second = _pair(x, y)
    strength, number = rate(blur, "blur") ** 2, count(iterations, "iterations")
    cost = [
        _transport_cost(0.5 * squared_distances(a, b), strength, number)
        for a, b in ((first, second), (first, first), (second, second))
    ]
    return max(cost[0] - (cost[1] + cost[2]) / 2, 0.0)


def _transport_cost(cost: Floats, strength: float, iterations: int) -> float:
    """The dual value of entropic transport between even weights."""
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    # Halving the strength down to its end converges far sooner than beginning there.
    now = max(float(cost.max()), strength)
    for _ in range(iterations):
        f = (f + _soft_minimum(cost - g, now)) / 2
        g = (g + _soft_minimum((cost - f[:, None]).T, now)) / 2
        now = max(now / 2, strength)
    f = _soft_minimum(cost - g, strength)
    g = _soft_minimum((cost - f[:, None]).T, strength)
    return float(f.mean() + g.mean())


def _soft_minimum(values: Floats, strength: float) -> Floats:
    """(n,) -strength log mean exp(-values / strength) of each row."""
    least = values.min(axis=1, keepdims=True)
    means = np.exp((least - values) / strength).mean(axis=1)
    soft: Floats = least[:, 0] - strength * np.log(means)
    return soft


def class_distances(features: Any, labels: Any, metric: Metric = "cosine") -> Floats:
    """Distances between classes, from the features of their examples.

    Args:
        features: (n, d) of any fixed model; or the inputs themselves, flattened.
        labels: (n,) class of each.
        metric: Between class means ``cosine`` (1 - cos) or ``euclidean``; between the sets ``mmd``
            (the root of `mmd2`, with one width for all) or ``transport`` (the root of twice
            `transport`); or a function of two arrays of features.

    Returns:
        (k, k) symmetric, zero on the diagonal; classes in ascending order.

    Raises:
        PlanError: If there are fewer than two classes, or a class has a mean of zero for cosine.

    >>> class_distances([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [0, 0, 1]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    points = as_points(features)
    groups = [points[rows] for rows in rows_by_group(labels, len(points)).values()]
    if len(groups) < 2:
        raise PlanError("needs two classes", place="labels", value=len(groups))
    if metric in ("cosine", "euclidean"):
        means = np.stack([group.mean(axis=0) for group in groups])
        found = _cosine(means) if metric == "cosine" else np.sqrt(squared_distances(means, means))
    else:
        between = _between_sets(metric, points)
        found = np.zeros((len(groups), len(groups)))
        for i, j in zip(*np.triu_indices(len(groups), k=1), strict=True):
            found[i, j] = found[j, i] = between(groups[i], groups[j])
    np.fill_diagonal(found, 0.0)
    return found


def _between_sets(metric: Metric, points: Floats) -> Callable[[Floats, Floats], float]:
    if callable(metric):
        return metric
    if metric == "mmd":
        # One width for all pairs, from few enough rows that their distances fit into memory.
        width = median_distance(points[:: -(-len(points) // 2000)])
        return lambda a, b: float(np.sqrt(mmd2(a, b, sigma=width)))
    if metric == "transport":
        return lambda a, b: float(np.sqrt(2 * transport(a, b)))
    raise PlanError("unknown", place="metric", value=metric, remedy=nearest(metric, METRICS))


def _cosine(means: Floats) -> Floats:
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if not norms.all():
        k = int(np.flatnonzero(norms == 0)[0])
        raise PlanError("a mean of zero has no direction", place=f"class {k}", value=0.0)
    units = means / norms
    found: Floats = np.maximum(1 - units @ units.T, 0.0)
    return found


def rows_by_group(groups: Any, n: int, place: str = "labels") -> dict[Any, npt.NDArray[np.int64]]:
    """The rows of each group, groups in ascending order.

    >>> {name: rows.tolist() for name, rows in rows_by_group(["b", "a", "b"], 3).items()}
    {'a': [1], 'b': [0, 2]}
    """
    named = np.asarray(groups.cpu() if hasattr(groups, "cpu") else groups)
    if named.shape != (n,):
        raise PlanError(f"{n} examples need as many", place=place, value=named.shape)
    names, codes = np.unique(named, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return dict(zip(names.tolist(), rows, strict=True))


def _pair(x: Any, y: Any) -> tuple[Floats, Floats]:
    first, second = as_points(x, "x"), as_points(y, "y")
    if first.shape[1] != second.shape[1]:
        problem = f"rows have {second.shape[1]} features, those of x {first.shape[1]}"
        raise PlanError(problem, place="y", value=second.shape)
    return first, second
