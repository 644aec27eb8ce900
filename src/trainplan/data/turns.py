"""Batches from several data sets in turn, each whole from one of them.

Images and videos do not fit into one tensor; so a step is of the one kind, the next of the other.
Bain et al., 2021, "Frozen in Time", arXiv 2104.00650, train on them in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.hashing import stream_of
from trainplan.data.order import Order
from trainplan.data.shares import by_name
from trainplan.data.sources import Source, between_steps
from trainplan.data.step_numbers import nearest_multiples
from trainplan.errors import PlanError
from trainplan.schedules.values import count, is_number


class Turns(Source):
    """One step from each data set in turn; an epoch ends with the shortest of them.

    Indices run through the data sets one after the other: give the loader `Joined` data sets. A
    longer data set goes on in the next epoch where it stopped in this one, so that all of it is
    seen.

    Args:
        sizes: Number of examples of each data set, by name; or the data sets themselves.
        batches: Examples of a step, for all or by name.
        seed: Of everything random.
        epochs: Length of the run; None goes on for ever.
        max_samples: An epoch ends before it has more examples than that, of all data sets.

    >>> turns = Turns({"images": 6, "videos": 4}, {"images": 3, "videos": 1}, epochs=1)
    >>> [turns.name_at(step) for step in range(turns.steps)]
    ['images', 'videos', 'images', 'videos']
    >>> sorted(turns.examples(0, 0, 3).tolist() + turns.examples(2, 0, 3).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    uneven = True

    def __init__(
        self,
        sizes: Mapping[str, Any],
        batches: int | Mapping[str, int],
        seed: int = 0,
        *,
        epochs: int | None = None,
        max_samples: int | None = None,
    ) -> None:
        if not sizes:
            raise PlanError("there is no data set", place="sizes", value=sizes)
        self.names = tuple(sizes)
        self.sizes = {
            name: count(size if is_number(size) else len(size), f"sizes.{name}")
            for name, size in sizes.items()
        }
        given = by_name(self.names, batches, "batches", None)
        self.batches = [count(given[name], f"batches.{name}") for name in self.names]
        self.n, self.global_batch = sum(self.sizes.values()), max(self.batches)
        self.orders = [
            Order(size, seed, stream=stream_of(name)) for name, size in self.sizes.items()
        ]
        self.seed = self.orders[0].seed
        self.max_samples = None if max_samples is None else count(max_samples, "max_samples")
        self.epochs = None if epochs is None else count(epochs, "epochs")
        self._offsets = [0, *accumulate(self.sizes.values())]
        self._before = [0, *accumulate(self.batches)]
        self.steps_per_epoch = self._rounds() * len(self.names)
        self.steps = None if self.epochs is None else self.epochs * self.steps_per_epoch

    def _rounds(self) -> int:
        rounds = {
            name: size // batch
            for (name, size), batch in zip(self.sizes.items(), self.batches, strict=True)
        }
        shortest = min(rounds, key=lambda name: rounds[name])
        if not rounds[shortest]:
            remedy = f"Give at most {self.sizes[shortest]}"
            place = f"batches.{shortest}"
            raise PlanError("the data do not fill a step", place=place, value=0, remedy=remedy)
        if self.max_samples is None:
            return rounds[shortest]
        most = self.max_samples // self._before[-1]
        if not most:
            remedy = f"Give at least {self._before[-1]}, a step of each"
            value = self.max_samples
            raise PlanError("too few", place="max_samples", value=value, remedy=remedy)
        return min(rounds[shortest], most)

    def name_at(self, step: int) -> str:
        """The data set of a step."""
        return self.names[step % len(self.names)]

    def check_parts(self, parts: int) -> None:
        for name, batch in zip(self.names, self.batches, strict=True):
            if batch % parts:
                raise PlanError(
                    f"cannot be shared out evenly among {parts} micro-batches",
                    place=f"batches.{name}",
                    value=batch,
                    remedy=nearest_multiples(batch, parts),
                )

    def size(self, step: int) -> int:
        return self.batches[step % len(self.names)]

    def position(self, step: int) -> int:
        turn, k = divmod(step, len(self.names))
        return turn * self._before[-1] + self._before[k]

    def step_at(self, position: int) -> int:
        turn, inside = divmod(position, self._before[-1])
        if inside not in self._before:
            raise between_steps(position, self._before[-1])
        return turn * len(self.names) + self._before.index(inside)

    def examples(self, step: int, first: int, last: int) -> Indices:
        turn, k = divmod(step, len(self.names))
        read = self.orders[k].block(turn * self.batches[k] + first, last - first)
        return np.asarray(self._offsets[k] + read, np.int64)

    def settings(self) -> dict[str, Any]:
        return {
            "source": "turns",
            "sizes": list(self.sizes.items()),
            "batches": self.batches,
            "epochs": [self.epochs, self.max_samples],
        }
