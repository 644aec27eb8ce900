"""How far each domain of unlabelled data is from the labelled source.

Lee et al., 2023, ICCV, arXiv 2308.11901, rank cameras by their maximum mean discrepancy; kernel,
width and sample sizes are our design. `trainplan.data.DomainCurriculum` opens domains by it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.distances import Floats, Kernel, as_points, median_distance, mmd2, rows_by_group
from trainplan.data.hashing import priorities, stream_of
from trainplan.schedules.values import count

Indices = npt.NDArray[np.int64]


def domain_distances(
    source: Any,
    target: Any,
    domains: Any,
    *,
    kernel: Kernel = "gaussian",
    sigma: float | Literal["shared", "pair"] = "shared",
    rows: int | None = 2000,
    least: int = 16,
    seed: int = 0,
) -> dict[Any, float]:
    """Squared maximum mean discrepancy of each domain to the source.

    The estimate grows as sets get smaller, so all sets are cut to one size at random: that of the
    smallest domain with at least ``least`` rows, and at most ``rows``. Domains smaller than that
    keep theirs and seem too far.

    Args:
        source: (n, d) features of labelled examples.
        target: (m, d) features of the others, of the same model state; normalise both if the model
            compares by cosine.
        domains: (m,) domain of each target row.
        kernel: ``gaussian`` or ``linear``.
        sigma: Width of the Gaussian. ``shared``: the median distance over source and all domains,
            so that distances compare. ``pair``: that of the source and one domain.
        rows: None takes all rows of every set, at the cost of memory for all their pairs.
        least: See above.
        seed: Of the cut.

    Returns:
        Distance by domain, domains in ascending order.

    Raises:
        PlanError: If sizes do not fit.

    >>> domain_distances([[0.0], [1.0]], [[5.0], [6.0], [2.0], [3.0]], [0, 0, 1, 1],
    ...                  kernel="linear")
    {0: 25.0, 1: 4.0}
    """
    origin, points = as_points(source, "source"), as_points(target, "target")
    groups = rows_by_group(domains, len(points), "domains")
    most = None
    if rows is not None:
        large = [len(found) for found in groups.values() if len(found) >= least]
        most = min([count(rows, "rows"), len(origin), *large])
    sets = {name: points[_some(found, most, seed, name)] for name, found in groups.items()}
    origin = origin[_some(np.arange(len(origin)), most, seed, "")]
    width: float | None = None
    if kernel == "gaussian" and sigma != "pair":
        width = _shared_width([origin, *sets.values()], seed) if sigma == "shared" else sigma
    return {name: mmd2(origin, found, kernel, width) for name, found in sets.items()}


def _some(rows: Indices, most: int | None, seed: int, name: Hashable) -> Indices:
    """At most so many of the rows, the same whatever other sets there are."""
    if most is None or len(rows) <= most:
        return rows
    coins = priorities(len(rows), seed, stream_of(str(name)))
    return rows[np.sort(np.argsort(coins, kind="stable")[:most])]


def _shared_width(sets: Sequence[Floats], seed: int, most: int = 2000) -> float:
    pooled = np.concatenate(sets)
    return median_distance(pooled[_some(np.arange(len(pooled)), most, seed, "")])
