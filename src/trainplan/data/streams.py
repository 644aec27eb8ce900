"""Mixtures of data sets that can only be read from front to back.

The shares, quotas and layout are those of `Mixture`; the order within a stream is the stream's
own. Every worker of every rank reads all streams and keeps what is its part, so that the data do
not depend on their number; for streams that are costly to read, store them first and use
`Mixture`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch.utils.data import IterableDataset, get_worker_info

from trainplan.data.feedback import Feedback
from trainplan.data.mixing import Mixture
from trainplan.data.mixture import Stage
from trainplan.data.order import LARGEST
from trainplan.data.sampler import BatchSampler
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count


class Streams(IterableDataset[Any]):
    """A mixture of streams, for a ``DataLoader`` with ``batch_size=streams.batch_size``.

    Args:
        streams: Iterables by name, such as Hugging Face ``IterableDataset`` s; each must begin
            again when it is iterated again. ``set_epoch`` is called where there is one.
        weights: As for `Mixture`; not a `Feedback`, since streams are read in workers.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: Of the layout, and of draws.
        steps: Length of the run.
        exact: Whether each step has exact quotas.
        exhausted: ``repeat`` streams that end, or ``stop`` before the first step without enough.
        sizes: Rows of each stream, where known: a resume then skips within an epoch (with the
            stream's own ``skip``, if it has one) instead of reading all that came before.
        ranks: As for `BatchSampler`.
        rank: As for `BatchSampler`.
        accumulation: As for `BatchSampler`.
        step: Completed steps, to go on from there.

    >>> streams = Streams({"a": range(3), "b": range(10, 90)}, {"a": 1, "b": 3}, 4, steps=2)
    >>> sorted(streams)
    [0, 1, 10, 11, 12, 13, 14, 15]
    """

    def __init__(
        self,
        streams: Mapping[str, Iterable[Any]],
        weights: Mapping[str, Schedule | float] | Sequence[Stage],
        global_batch: int,
        seed: int = 0,
        *,
        steps: int | None = None,
        exact: bool = True,
        exhausted: Literal["repeat", "stop"] = "repeat",
        sizes: Mapping[str, int] | None = None,
        ranks: int | None = None,
        rank: int | None = None,
        accumulation: int = 1,
        step: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(weights, Feedback):
            raise PlanError(
                "streams are read in workers, which hear nothing of the run",
                place="weights",
                value=weights,
                remedy="Use Mixture with map-style data sets",
            )
        if exhausted not in ("repeat", "stop"):
            raise PlanError("unknown", place="exhausted", value=exhausted, remedy="repeat or stop")
        self.streams = dict(streams)
        self.mixture = Mixture(
            dict.fromkeys(self.streams, LARGEST),
            weights,
            global_batch,
            seed,
            steps=steps,
            exact=exact,
        )
        self.sampler = BatchSampler(self.mixture, ranks=ranks, rank=rank, accumulation=accumulation)
        self.exhausted = exhausted
        self.sizes = dict(sizes or {})
        self.step = count(step, "step", least=0)

    @property
    def batch_size(self) -> int:
        """Examples of a micro-batch, for the loader."""
        sampler = self.sampler
        return self.mixture.global_batch // (sampler.ranks * sampler.accumulation)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        cursors = self.mixture.cursors(self.step).tolist()
        readers = [
            _Reader(stream, cursor, self.sizes.get(name))
            for (name, stream), cursor in zip(self.streams.items(), cursors, strict=True)
        ]
        size = self.batch_size
        for step in itertools.count(self.step):
            if not self.mixture.exists(step):
                return
            labels = self.mixture.labels(step).tolist()
            rows = [readers[k].read() for k in labels]
            if self.exhausted == "stop" and any(reader.epoch for reader in readers):
                return
            for a in range(self.sampler.accumulation):
                # The loader takes batches from its workers in turn, beginning with the first.
                batch = (step - self.step) * self.sampler.accumulation + a
                if batch % workers == number:
                    first = self.sampler.batch(step * self.sampler.per_step + a).first
                    yield from rows[first : first + size]


class _Reader:
    """One stream, read on and on."""

    def __init__(self, stream: Iterable[Any], skip: int, size: int | None) -> None:
        self.stream = stream
        self.epoch = 0
        if size is not None:
            self.epoch, skip = divmod(skip, size)
        self.rows = self._begin(skip if size is not None else 0)
        if size is None:
            for _ in range(skip):
                self.read()

    def _begin(self, skip: int) -> Iterator[Any]:
        stream: Any = self.stream
        if skip and hasattr(stream, "skip"):
            # A copy, which begins at epoch 0.
            stream, skip = stream.skip(skip), 0
        if hasattr(stream, "set_epoch"):
            stream.set_epoch(self.epoch)
        return itertools.islice(iter(stream), skip, None)

    def read(self) -> Any:
        for row in self.rows:
            return row
        self.epoch += 1
        self.rows = self._begin(0)
        for row in self.rows:
            return row
        raise PlanError("a stream is empty", place="streams", value=self.stream)
