"""Batches that know where they stand, and find their examples when they are read.

Skipping such a batch costs nothing, so that resuming in the middle of 10^9 examples by skipping
(as Transformers and Accelerate do) takes a fraction of a second; and the arithmetic moves into a
loader's workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from trainplan.data.sources import Source

Indices = npt.NDArray[np.int64]


class Batch(Sequence[int]):
    """A stretch of a step's examples: a sequence of Python numbers, computed when first read.

    Attributes:
        source: Where the examples come from; None once they are known.
        step: The optimizer step.
        first: Place of the first example in the step's global batch.
        last: Place after the last one.

    >>> from trainplan.data import Shuffle
    >>> batch = Batch(Shuffle(10, global_batch=4), step=0, first=0, last=4)
    >>> len(batch), list(batch), batch == [5, 4, 9, 0], batch[1:3]
    (4, [5, 4, 9, 0], True, [4, 9])
    """

    __slots__ = ("_indices", "first", "last", "source", "step")

    def __init__(self, source: Source | None, step: int, first: int, last: int) -> None:
        self.source = source
        self.step = step
        self.first = first
        self.last = last
        self._indices: Indices | None = None

    @classmethod
    def of(cls, indices: Indices, step: int = 0, first: int = 0) -> Batch:
        """A batch of known examples."""
        batch = cls(None, step, first, first + len(indices))
        batch._indices = indices
        return batch

    def known(self) -> Batch:
        """A batch of the same examples, which are not computed anew."""
        return Batch.of(self.indices, self.step, self.first)

    @property
    def indices(self) -> Indices:
        """(len,) the examples as an array."""
        if self._indices is None:
            assert self.source is not None  # noqa: S101 - it has one or the other
            self._indices = self.source.examples(self.step, self.first, self.last)
        return self._indices

    def __len__(self) -> int:
        return self.last - self.first

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: Any) -> Any:
        found = self.indices[place]
        return found.tolist() if isinstance(place, slice) else int(found)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Batch, list, tuple)):
            return len(self) == len(other) and list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # What a worker can compute from a few numbers travels as those; else the examples do.
        if self.source is not None and self.source.light and self._indices is None:
            return Batch, (self.source, self.step, self.first, self.last)
        return Batch.of, (self.indices, self.step, self.first)

    def __repr__(self) -> str:
        return f"Batch(step={self.step}, places {self.first} to {self.last - 1})"
