"""Order examples by quality, and see how much learning rate the best of them get.

Showing the best data last lets them count most, unless the learning rate has decayed to nothing by
then. Luo et al., 2025, "How Learning Rate Decay Wastes Your Best Data in Curriculum-Based LLM
Pretraining", arXiv 2511.18903: sort by quality, keep the rate high or decay it moderately, and
average the last checkpoints (`trainplan.optim.CheckpointAverager`) instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import priorities
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

Mode = Literal["ascend", "descend", "fold", "uniform"]
Indices = npt.NDArray[np.int64]
MODES = ("ascend", "descend", "fold", "uniform")
_ORDER, _TIES = 0, 3
"""Streams of the seed: one for shuffles, one for ties, so that they are unrelated."""


def quality_order(
    scores: npt.ArrayLike,
    mode: Mode = "ascend",
    *,
    folds: int = 1,
    seed: int | None = 0,
    window: int = 1,
) -> Indices:
    """The order in which to read examples, from their quality.

    Args:
        scores: (n,) quality of each example, higher is better; infinities are fine.
        mode: ``ascend`` reads the worst first and the best last; ``descend`` the reverse;
            ``fold`` reads ``folds`` ascending passes, each over every folds-th example of the
            ascending order; ``uniform`` shuffles.
        folds: Number of passes of ``fold``.
        seed: Shuffles examples of equal quality among themselves; None leaves them in the order
            they have, which is rarely wise, as files tend to be grouped by source.
        window: Shuffle within consecutive stretches of this many examples, so that batches are
            not all alike where quality goes with length or domain.

    Returns:
        (n,) indices, a permutation.

    Raises:
        PlanError: If a score is not a number, or there is no seed to shuffle with.

    >>> quality_order([0.3, 0.1, 0.9, 0.2, 0.5]).tolist()
    [1, 3, 0, 4, 2]
    """
    values = _scores(scores)
    if mode not in MODES:
        raise PlanError("unknown mode", place="mode", value=mode, remedy=nearest(str(mode), MODES))
    passes = count(folds, "folds")
    if passes > 1 and mode != "fold":
        raise PlanError("folds belong to the mode fold", place="folds", value=folds)
    if seed is None and (mode == "uniform" or window > 1):
        raise PlanError("shuffling needs a seed", place="seed", value=None, remedy="Give seed=0")
    if mode == "uniform":
        return np.argsort(priorities(values.size, seed or 0, _ORDER), kind="stable")
    ties = np.arange(values.size) if seed is None else priorities(values.size, seed, _TIES)
    order = np.lexsort([ties, -values if mode == "descend" else values])
    if mode == "fold":
        order = np.concatenate([order[k::passes] for k in range(passes)])
    return _shuffle_windows(order, count(window, "window"), seed or 0)


def phase_order(
    scores: npt.ArrayLike,
    phases: Sequence[int],
    modes: Sequence[Mode],
    *,
    across: bool = False,
    seed: int | None = 0,
) -> Indices:
    """The order over data that come in phases, such as pre-training and mid-training.

    Args:
        scores: (n,) quality; the first ``phases[0]`` examples are those of the first phase, and
            so on.
        phases: Number of examples of each phase, together n.
        modes: How each phase is read: ``("uniform", "ascend")`` sorts the second alone.
        across: Read the data of all phases as one, in ``modes[0]``; the others must equal it.
        seed: As in `quality_order`.

    >>> phase_order([0.2, 0.1, 0.9, 0.8], [2, 2], ["ascend", "ascend"]).tolist()
    [1, 0, 3, 2]
    """
    values = _scores(scores)
    lengths = [count(length, f"phases[{k}]", least=0) for k, length in enumerate(phases)]
    if sum(lengths) != values.size:
        raise PlanError(
            f"the phases hold {sum(lengths)} examples and there are {values.size} scores",
            place="phases",
            value=list(phases),
        )
    if len(modes) != len(lengths):
        raise PlanError(f"{len(lengths)} phases need as many modes", place="modes", value=modes)
    if across:
        if len(set(modes)) != 1:
            raise PlanError("sorting across phases takes one mode", place="modes", value=modes)
        return quality_order(values, modes[0], seed=seed)
    starts = np.cumsum([0, *lengths])
    parts = [
        start + quality_order(values[start : start + length], mode, seed=seed)
        for start, length, mode in zip(starts, lengths, modes, strict=False)
        if length
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class QualityOrder:
    """An order as a sampler: give it to a ``DataLoader`` as ``sampler=``.

    Its only state is the position: after a resume, iterate ``order.starting_at(position)``.

    Args:
        indices: (n,) from `quality_order` or `phase_order`.

    >>> order = QualityOrder.of([0.3, 0.1, 0.9])
    >>> list(order), list(order.starting_at(1)), list(order.shard(0, 2))
    ([1, 0, 2], [0, 2], [1, 2])
    """

    indices: Indices = field(repr=False)

    @classmethod
    def of(
        cls,
        scores: npt.ArrayLike,
        mode: Mode = "ascend",
        *,
        folds: int = 1,
        seed: int | None = 0,
        window: int = 1,
    ) -> QualityOrder:
        """From scores, with the arguments of `quality_order`."""
        return cls(quality_order(scores, mode, folds=folds, seed=seed, window=window))

    def __len__(self) -> int:
        return int(self.indices.size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    def starting_at(self, position: int) -> QualityOrder:
        """What is left after ``position`` examples."""
        start = count(position, "position", least=0)
        if start > len(self):
            raise PlanError(f"there are {len(self)} examples", place="position", value=position)
        return QualityOrder(self.indices[start:])

    def shard(self, rank: int, ranks: int) -> QualityOrder:
        """Every ``ranks``-th example from ``rank`` on: all ranks see like quality at a time."""
        number = count(ranks, "ranks")
        if count(rank, "rank", least=0) >= number:
            raise PlanError(f"there are {number} ranks, from 0", place="rank", value=rank)
        return QualityOrder(self.indices[rank::number])


def rate_share(
    rates: npt.ArrayLike, quality: npt.ArrayLike | None = None, *, top: float = 0.1
) -> float:
    """The share of the learning rate's whole area that is spent on the best data.

    sum of rates over the best ``top`` of the steps / sum of all rates. A constant rate gives the
    share ``top`` itself. Ascending order under a cosine to 0 gives far less: the best data hardly
    move the weights. A share below about a third of ``top`` is a warning.

    Args:
        rates: (n,) learning rate of each step, such as ``plan.curve("lr")[1]``; not below 0.
        quality: (n,) quality of the data of each step; None is ascending order.
        top: Which share of the steps counts as the best, in (0, 1].

    >>> from trainplan.schedules import cosine
    >>> round(rate_share(cosine(1.0, duration=1000)(np.arange(1000))), 4)
    0.0017
    """
    eta = np.asarray(rates, dtype=np.float64)
    if eta.ndim != 1 or eta.size == 0 or not (np.isfinite(eta).all() and (eta >= 0).all()):
        raise PlanError("rates must be a list of numbers, none below zero", place="rates")
    if not eta.any():
        raise PlanError("the rate is zero at every step", place="rates", value=0.0)
    share = finite(top, "top")
    if not 0 < share <= 1:
        raise PlanError("the share must lie in (0, 1]", place="top", value=top)
    if quality is not None:
        values = _scores(quality, "quality")
        if values.size != eta.size:
            raise PlanError(
                f"there are {eta.size} rates", place="quality", value=f"{values.size} values"
            )
        eta = eta[np.argsort(values, kind="stable")]
    # The step at the edge counts in part, so that a constant rate gives exactly the share.
    weight = np.clip(share * eta.size - np.arange(eta.size)[::-1], 0, 1)
    return float((weight * eta).sum() / eta.sum())


def _scores(scores: npt.ArrayLike, place: str = "scores") -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise PlanError("needs one number per example", place=place, value=f"shape {values.shape}")
    bad = np.flatnonzero(np.isnan(values))
    if bad.size:
        raise PlanError(
            f"{bad.size} scores are not numbers",
            place=f"{place}[{bad[0]}]",
            value=float(values[bad[0]]),
            remedy="Score these examples, or leave them out",
        )
    return values


def _shuffle_windows(order: Indices, window: int, seed: int) -> Indices:
    if window == 1:
        return order
    groups = np.arange(order.size) // window
    return order[np.lexsort([priorities(order.size, seed, _ORDER), groups])]
