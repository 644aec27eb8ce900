"""Three batch sizes and crops in turn, for samplers that other libraries make.

The short cycle of Wu et al., 2020, "A Multigrid Method for Efficiently Training Video Models",
arXiv 1912.00998. With `trainplan.data.BatchSampler` the cycle is part of
`trainplan.data.MultigridBatches`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Sized
from itertools import cycle, islice
from typing import Any, Final

from trainplan.errors import PlanError
from trainplan.schedules.values import count, rate

SHORT: Final = (0.5, 0.5**0.5)
"""Factors of the crop in the first steps of the short cycle; the last one has the phase's crop."""


def short_cycle_sizes(
    base: int, crop: int, full: int, factors: Sequence[float] = SHORT
) -> list[tuple[int, int]]:
    """Batch size and crop of each step of the short cycle.

    Args:
        base: Batch size of the long cycle's phase.
        crop: Pixels a side of the phase.
        full: Ordinary pixels a side, which the factors are of, in every phase.
        factors: Of all but the last step, which has the phase's crop.

    >>> short_cycle_sizes(4, 224, 224), short_cycle_sizes(4, 158, 224)
    ([(16, 112), (8, 158), (4, 224)], [(8, 112), (4, 158), (4, 158)])
    """
    batch, side, whole = count(base, "base"), count(crop, "crop"), count(full, "full")
    small = [rate(f, "factors") * whole for f in factors]
    sizes = [batch * max(round((side / s) ** 2), 1) for s in small]
    return [*zip(sizes, map(round, small), strict=True), (batch, side)]


class ShortCycleBatchSampler:
    """A ``batch_sampler=`` over another sampler, whose batches take the sizes of a cycle in turn.

    Its items are pairs of an example's number and a crop, for a data set wrapped in
    `trainplan.data.Shaped`. Each iteration begins with the first size. ``len`` is that of the
    mean size, and so may be off by one.

    Args:
        sampler: Numbers of examples, such as a ``DistributedSampler``.
        sizes: Batch size and crop of each step, as `short_cycle_sizes` gives them; sizes are of
            this process.
        drop_last: Whether to leave out the last batch if it is not full.

    >>> batches = ShortCycleBatchSampler(range(9), [(4, 8), (2, 11), (1, 16)])
    >>> [(len(batch), batch[0]) for batch in batches], len(batches)
    ([(4, (0, 8)), (2, (4, 11)), (1, (6, 16))], 3)
    """

    batch_size = None
    """It changes from batch to batch; for libraries that ask."""

    def __init__(
        self, sampler: Any, sizes: Sequence[tuple[int, int]], *, drop_last: bool = True
    ) -> None:
        self.sampler, self.drop_last = sampler, bool(drop_last)
        self.sizes = [(count(size, "sizes"), count(crop, "sizes")) for size, crop in sizes]
        if not self.sizes:
            raise PlanError("there is no size", place="sizes", value=sizes)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        numbers = iter(self.sampler)
        for size, crop in cycle(self.sizes):
            batch = [(number, crop) for number in islice(numbers, size)]
            if len(batch) == size or (batch and not self.drop_last):
                yield batch
            if len(batch) < size:
                return

    def __len__(self) -> int:
        assert isinstance(self.sampler, Sized)  # noqa: S101 - as any sampler of PyTorch's
        batches = len(self.sampler) * len(self.sizes) / sum(size for size, _ in self.sizes)
        return math.floor(batches) if self.drop_last else math.ceil(batches)
