"""Several map-style data sets as one, for the indices that a mixture draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainplan.data.batches import Batch, Indices
from trainplan.errors import PlanError


class Joined:
    """Data sets one after the other, read in batches where they can be.

    Unlike ``torch.utils.data.ConcatDataset`` it passes whole batches on to data sets that take
    them (Hugging Face's), and unlike ``datasets.concatenate_datasets`` it asks for no common
    columns. Data sets learn the optimizer step from the `Batch` that they are given.

    Args:
        datasets: By name, in the order of the mixture's sizes.

    >>> joined = Joined({"a": [10, 11], "b": [20, 21, 22]})
    >>> len(joined), joined[3], joined.__getitems__([4, 0, 2])
    (5, 21, [22, 10, 20])
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        if not datasets:
            raise PlanError("there are no data sets", place="datasets", value=datasets)
        self.datasets = dict(datasets)
        self._parts = list(self.datasets.values())
        self._edges = np.cumsum([0, *(len(part) for part in self._parts)])

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each, as `Mixture` takes it."""
        return {name: len(part) for name, part in self.datasets.items()}

    def __len__(self) -> int:
        return int(self._edges[-1])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The examples at some indices, in their order."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"indices lie in 0 to {len(self) - 1}")
        owners = np.searchsorted(self._edges, wanted, side="right") - 1
        rows: list[Any] = [None] * wanted.size
        for k in np.unique(owners).tolist():
            places = np.flatnonzero(owners == k)
            inner = _like(indices, wanted[places] - self._edges[k])
            part = self._parts[k]
            take = getattr(part, "__getitems__", None)
            found = take(inner) if take is not None else [part[i] for i in inner]
            for place, row in zip(places.tolist(), found, strict=True):
                rows[place] = row
        return rows


def _like(indices: Sequence[int], inner: Indices) -> Sequence[int]:
    """Indices within one data set: a `Batch` of the same step if they were drawn in one."""
    if isinstance(indices, Batch):
        return Batch.of(inner, indices.step)
    own: list[int] = inner.tolist()
    return own
