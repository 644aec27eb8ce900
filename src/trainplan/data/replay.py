"""Replay: show a fixed share of old data while training on new data, at no extra compute.

Old data keeps a model from forgetting what it knew when it goes on to another distribution.
Ibrahim et al., 2024, "Simple and Scalable Strategies to Continually Pre-train Large Language
Models", arXiv 2403.08763: 5 % of replay is enough for a weak shift, 25 % for a strong one. The
replayed tokens take the place of new ones, so that arms with different shares cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

_SLACK = Fraction(1, 10**9)
"""Counts as reached what a decimal share misses by binary rounding."""


@dataclass(frozen=True)
class ReplayBudget:
    """How a budget is divided, in whatever unit it was given.

    Attributes:
        new: New data.
        replay: Old data, shown again.
    """

    new: float
    replay: float


def replay_budget(total: float, fraction: float) -> ReplayBudget:
    """Divide a fixed budget between new and replayed data.

    replay = fraction total, new = total - replay: more replay means less new data.

    Args:
        total: Tokens (or examples, or steps), not below 0.
        fraction: Share of replay, in [0, 1].

    >>> replay_budget(300e9, 0.05)
    ReplayBudget(new=285000000000.0, replay=15000000000.0)
    """
    share = _share(fraction)
    whole = finite(total, "total")
    if whole < 0:
        raise PlanError("a budget cannot be below zero", place="total", value=total)
    replay = float(share * Fraction(whole))
    return ReplayBudget(whole - replay, replay)


def replay_counts(
    batch_size: int, fraction: float, batches: int, start: int = 0
) -> npt.NDArray[np.int64]:
    """How many examples of each batch are replayed.

    Batch i has floor((i + 1) x B) - floor(i x B): without chance, and after any number of batches
    less than one example away from the share x.

    Args:
        batch_size: B, at least 1.
        fraction: x, in [0, 1].
        batches: How many batches.
        start: The first batch.

    Returns:
        (batches,) counts, each between 0 and B.

    >>> replay_counts(64, 0.05, 6).tolist()
    [3, 3, 3, 3, 4, 3]
    """
    size, share = count(batch_size, "batch_size"), _share(fraction)
    first, number = count(start, "start", least=0), count(batches, "batches", least=0)
    totals = np.asarray(
        [_replayed(i, size, share) for i in range(first, first + number + 1)], dtype=np.int64
    )
    return totals[1:] - totals[:-1]


@dataclass(frozen=True)
class ReplayBatch:
    """Which examples make up one batch.

    Attributes:
        new: (B - r,) indices into the new data.
        old: (r,) indices into the old data.
    """

    new: npt.NDArray[np.int64]
    old: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReplayMixer:
    """Every batch of a run with replay, as a function of its number.

    New and old data are read in the order they have, the old from its beginning, as in the paper;
    either begins again when it ends. To shuffle, look the indices up in a permutation. There is
    no cursor, so nothing is lost on resume: `batch` gives any batch at once.

    Args:
        batch_size: Examples in a batch.
        fraction: Share of replay, in [0, 1].
        new: Number of new examples.
        old: Number of old examples.

    >>> mixer = ReplayMixer(batch_size=4, fraction=0.25, new=100, old=2)
    >>> mixer.batch(2)
    ReplayBatch(new=array([6, 7, 8]), old=array([0]))
    """

    batch_size: int
    fraction: float
    new: int
    old: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", count(self.batch_size, "batch_size"))
        _share(self.fraction)
        for name, used in (("new", self.fraction < 1), ("old", self.fraction > 0)):
            object.__setattr__(self, name, count(getattr(self, name), name, least=int(used)))

    @cached_property
    def _exact(self) -> Fraction:
        return _share(self.fraction)

    def batch(self, i: int) -> ReplayBatch:
        """Batch ``i``, counted from 0."""
        i = count(i, "i", least=0)
        before, after = (_replayed(k, self.batch_size, self._exact) for k in (i, i + 1))
        return ReplayBatch(
            _stretch(i * self.batch_size - before, (i + 1) * self.batch_size - after, self.new),
            _stretch(before, after, self.old),
        )

    def epochs(self, batches: int) -> tuple[float, float]:
        """How often the new and the old data have been read after ``batches`` batches.

        >>> ReplayMixer(batch_size=4, fraction=0.25, new=100, old=2).epochs(8)
        (0.24, 4.0)
        """
        old = _replayed(count(batches, "batches", least=0), self.batch_size, self._exact)
        new = batches * self.batch_size - old
        return (new / self.new if self.new else 0.0, old / self.old if self.old else 0.0)


def _replayed(batches: int, batch_size: int, share: Fraction) -> int:
    """Examples replayed in the first ``batches`` batches: floor(batches x B), exactly."""
    return int((batches * batch_size * share + _SLACK) // 1)


def _stretch(first: int, last: int, length: int) -> npt.NDArray[np.int64]:
    """The positions from first to before last of data of some length that begins again."""
    if last == first:
        return np.empty(0, dtype=np.int64)
    return np.arange(first % length, first % length + last - first, dtype=np.int64) % length


def _share(fraction: float) -> Fraction:
    """The share as people wrote it: 0.05 is one twentieth, not the nearest binary number."""
    value = finite(fraction, "fraction")
    if not 0 <= value <= 1:
        raise PlanError(
            "the share of replay must lie in [0, 1]",
            place="fraction",
            value=fraction,
            remedy="Write 0.05 for 5 %",
        )
    return Fraction(repr(value))
