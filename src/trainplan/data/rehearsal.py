"""A stream of tasks learned one after another, in which old ones come back as they age.

`AgeSchedule` says how often. Nothing is stored and there is no cursor: which task and which of its
examples stands at a place follows from the seed, so that a run is resumed by its step alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from trainplan.data.age_schedule import AgeSchedule, Counts
from trainplan.data.batches import Indices
from trainplan.data.hashing import hashed, key, stream_of
from trainplan.data.order import Order
from trainplan.data.quotas import labels_at
from trainplan.data.sources import Source
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite, is_number

_TASKS: Final = 3
"""The stream of the seed by which tasks are drawn."""
_PLACES: Final = 4
"""The stream of the seed by which a phase is shuffled."""
_CHOICES = {
    "sampling": ("quota", "iid"),
    "placement": ("interleaved", "after"),
    "age": ("introduced", "last_seen"),
}


class Rehearsal(Source):
    """Phases, each of which adds a task while the earlier ones come back.

    Without ``ratio`` all phases have the same total, and old examples take the place of new ones.
    With it every phase has ``per_phase`` new examples, and old ones come on top: compare arms of
    one form only. `seen` says how many old examples that were.

    Indices run through the tasks one after the other: give the loader `Joined` data sets. Examples
    of a task repeat only after all have been shown.

    Args:
        sizes: Number of examples of each task, or the data sets, by name in the order of learning.
        schedule: How often old tasks come back.
        per_phase: Examples of a phase; with ``ratio``, new ones.
        global_batch: Examples of an optimizer step. A step at a boundary holds both phases.
        ratio: Old examples for each new one; None for phases of equal total.
        sampling: ``quota`` for exact numbers; ``iid`` draws each example's task by itself.
        placement: With ``ratio``: ``interleaved``, or ``after`` the new examples.
        age: Since a task was ``introduced``, or since the phase in which it was ``last_seen``.
        seed: Of everything random.

    Attributes:
        table: (phases, tasks) examples of each task in each phase.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> stream = Rehearsal({"a": 50, "b": 50, "c": 50}, AgeSchedule("power"), 60, 10)
    >>> stream.table.tolist(), stream.steps
    ([[60, 0, 0], [20, 40, 0], [11, 16, 33]], 18)
    >>> stream.phase(6), stream.seen().tolist()
    (2, [0, 20, 27])
    """

    def __init__(
        self,
        sizes: Mapping[str, Any],
        schedule: AgeSchedule,
        per_phase: int,
        global_batch: int,
        seed: int = 0,
        *,
        ratio: float | None = None,
        sampling: str = "quota",
        placement: str = "interleaved",
        age: str = "introduced",
    ) -> None:
        given = {"sampling": sampling, "placement": placement, "age": age}
        for name, value in given.items():
            if value not in _CHOICES[name]:
                remedy = nearest(str(value), _CHOICES[name])
                raise PlanError("unknown", place=name, value=value, remedy=remedy)
        if not sizes:
            raise PlanError("there are no tasks", place="sizes", value=sizes)
        if ratio is None and placement == "after":
            remedy = "Give a ratio, or placement='interleaved'"
            raise PlanError(
                "no examples come on top", place="placement", value="after", remedy=remedy
            )
        self.names = tuple(sizes)
        self.sizes = [
            count(size if is_number(size) else len(size), f"sizes.{name}")
            for name, size in sizes.items()
        ]
        self.schedule, self.sampling, self.placement, self.age = schedule, sampling, placement, age
        self.per_phase = count(per_phase, "per_phase")
        self.ratio = None if ratio is None else finite(ratio, "ratio")
        self.n, self.global_batch = sum(self.sizes), count(global_batch, "global_batch")
        self.orders = [
            Order(size, seed, stream=stream_of(name))
            for name, size in zip(self.names, self.sizes, strict=True)
        ]
        self.seed = self.orders[0].seed
        self._offsets = np.cumsum([0, *self.sizes])
        self.table = self._phases()
        self._read = np.cumsum(self.table, axis=0) - self.table
        """Examples of each task before each phase."""
        self._ends = np.cumsum(self.table.sum(axis=1))
        self.steps = int(self._ends[-1]) // self.global_batch
        self._laid: tuple[int, Indices] = (-1, np.empty(0, np.int64))

    def _phases(self) -> Counts:
        tasks = len(self.names)
        table = np.zeros((tasks, tasks), np.int64)
        last = np.arange(tasks)  # the phase in which each task was last seen
        for k in range(tasks):
            born = np.arange(k + 1) if self.age == "introduced" else last[: k + 1]
            table[k, : k + 1] = self._phase_counts(k, k - born + 1)
            last = np.where(table[k] > 0, k, last)
        return table

    def _phase_counts(self, k: int, ages: Counts) -> Counts:
        if self.ratio is None and self.sampling == "quota":
            return self.schedule.quotas(self.per_phase, k + 1, ages)
        if self.ratio is None:
            drawn = self._drawn(k, self.per_phase, self.schedule.weights(k + 1, ages))
            return np.bincount(drawn, minlength=k + 1)
        old = self.schedule.rehearsal(self.per_phase, k + 1, self.ratio, ages[:-1] - 1)
        if self.sampling == "iid" and old.sum():
            by_age = self.schedule.at(ages[:-1] - 1)
            old = np.bincount(self._drawn(k, int(old.sum()), by_age), minlength=k)
        return np.append(old, self.per_phase)

    def _drawn(self, k: int, number: int, weights: Any) -> Counts:
        """The task of each example, drawn by itself."""
        places = np.arange(number, dtype=np.uint64)
        return labels_at(hashed(places, key(self.seed, _TASKS, k)), weights / weights.sum())

    def phase(self, step: int) -> int:
        """The phase of a step's first example, from 1 on."""
        position = min(self.position(count(step, "step", least=0)), int(self._ends[-1]) - 1)
        return int(np.searchsorted(self._ends, position, side="right")) + 1

    def boundaries(self) -> list[int]:
        """The step at which each phase has been shown in full."""
        return [-(-int(end) // self.global_batch) for end in self._ends]

    def seen(self) -> Counts:
        """(phases,) old examples shown in each phase: the price of not forgetting."""
        return np.asarray(self.table.sum(axis=1) - np.diagonal(self.table))

    def examples(self, step: int, first: int, last: int) -> Indices:
        """Examples at the places ``first`` to before ``last`` of a step's global batch."""
        position = self.position(step)
        found: list[Indices] = []
        start, end = position + first, position + last
        while start < end:
            k = int(np.searchsorted(self._ends, start, side="right"))
            if k == len(self._ends):
                raise PlanError(f"the run has {self.steps} steps", place="step", value=step)
            begin = int(self._ends[k] - self.table[k].sum())
            stop = min(end, int(self._ends[k]))
            found.append(self._lay_out(k)[start - begin : stop - begin])
            start = stop
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _lay_out(self, k: int) -> Indices:
        """All examples of a phase in their order; the last phase that was asked for is kept."""
        if self._laid[0] == k:
            return self._laid[1]
        parts = [
            self._offsets[i] + self.orders[i].block(int(self._read[k, i]), int(number))
            for i, number in enumerate(self.table[k])
        ]
        places = Order(int(self.table[k].sum()), self.seed, stream=_PLACES)
        if self.placement == "interleaved":
            laid = np.concatenate(parts)[places.stretch(k, 0, places.n)]
        else:
            old = np.concatenate([*parts[:k], np.empty(0, np.int64)])
            if old.size:
                old = old[Order(old.size, self.seed, stream=_PLACES).stretch(k, 0, old.size)]
            laid = np.concatenate([parts[k], old])
        self._laid = (k, laid)
        return laid

    def state(self, step: int) -> dict[str, Any]:
        """The examples of each task in each phase, to be checked."""
        return {"table": self.table.tolist()}

    def load(self, state: dict[str, Any], step: int) -> None:
        """Check that the saved run had the same phases."""
        if state.get("table") != self.table.tolist():
            raise PlanError(
                "the phases of the saved run are others",
                place="state.source.table",
                value=state.get("table"),
                remedy="Give the tasks and the schedule that the run began with",
            )

    def settings(self) -> dict[str, Any]:
        """What the order depends on."""
        return {
            "source": "rehearsal",
            "sizes": [list(self.names), self.sizes],
            "table": self.table.tolist(),
            "placement": self.placement,
            "sampling": self.sampling,
        }
