"""How many examples of a batch come from each domain, without chance or by chance.

Exact quotas are systematic rounding: the cumulative shares of the batch, shifted by the same
offset, are cut down to whole numbers. The offset turns by the golden ratio from step to step, so
that after any number of steps every domain is within a few examples of its share.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import GOLDEN, hashed, key

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CHOICE: Final = 2
"""The stream of the seed by which domains are chosen."""
_UNIT: Final = 2.0**-53


def turns(seed: int, steps: npt.NDArray[np.int64]) -> Floats:
    """(t,) offset of each step in [0, 1): u0 + step times the golden ratio, exactly."""
    # Sums and products wrap at 2^64, as they should.
    whole = steps.astype(np.uint64) * np.uint64(GOLDEN) + np.uint64(key(seed, CHOICE))
    offsets: Floats = (whole >> np.uint64(11)).astype(np.float64) * _UNIT
    return offsets


def cumulative(weights: Floats) -> Floats:
    """(..., k) cumulative shares of weights (..., k), exactly 1 from the last weight above 0 on."""
    sums = np.cumsum(weights, axis=-1)
    shares: Floats = sums / sums[..., -1:]
    above = weights[..., ::-1] > 0
    last = weights.shape[-1] - 1 - np.argmax(above, axis=-1)
    places = np.arange(weights.shape[-1])
    shares[places >= np.expand_dims(last, -1)] = 1.0
    return shares


def quota_counts(size: int, weights: Floats, offsets: Floats) -> Counts:
    """Examples of each domain in each step.

    floor(size W_k + u) - floor(size W_(k-1) + u), with W the cumulative shares: each count is
    less than one example away from its share, and a step's counts add up to ``size``.

    Args:
        size: Examples in a step.
        weights: (t, k), none below 0, with a sum above 0 in each row.
        offsets: (t,) u of each step, from `turns`.

    Returns:
        (t, k) counts.

    >>> quota_counts(8, np.array([[0.5, 0.3, 0.2]]), np.array([0.7])).tolist()
    [[4, 3, 1]]
    """
    edges = np.floor(size * cumulative(weights) + offsets[:, None]).astype(np.int64)
    return np.diff(edges, axis=1, prepend=0)


def drawn_counts(seed: int, steps: Counts, size: int, weights: Floats) -> Counts:
    """(t, k) how often each domain is drawn in each step, if every place is drawn by itself.

    The same draws as those of `labels_at`, counted.
    """
    positions = (steps[:, None] * size + np.arange(size)).astype(np.uint64)
    coins = (hashed(positions, key(seed, CHOICE)) >> np.uint64(11)) * _UNIT
    edges = cumulative(weights)
    below = [(coins < edges[:, k, None]).sum(axis=1) for k in range(weights.shape[1])]
    return np.diff(np.stack(below, axis=1), axis=1, prepend=0)


def labels_at(bits: npt.NDArray[np.uint64], weights: Floats) -> Counts:
    """The domains that random bits stand for under weights (k,)."""
    coins = (bits >> np.uint64(11)) * _UNIT
    return np.searchsorted(cumulative(weights), coins, side="right").astype(np.int64)


def capped_counts(size: int, weights: Floats, offset: float, left: Floats) -> Counts | None:
    """Counts of one step in which some domains may not have enough left.

    Who has too little gives all it has, and the rest is shared out among the others in the same
    way, at the same offset.

    Returns:
        (k,) counts, or None if all domains together have too little.
    """
    counts = np.zeros(weights.size, np.int64)
    open_weights = np.where(left > 0, weights, 0.0)
    while size:
        if not open_weights.any():
            return None
        more = quota_counts(size, open_weights[None], np.array([offset]))[0]
        over = counts + more > left
        if not over.any():
            counts += more
            return counts
        given = np.where(over, left - counts, 0).astype(np.int64)
        counts += given
        size -= int(given.sum())
        open_weights = np.where(over, 0.0, open_weights)
    return counts
