"""Replay as a part of a mixture: examples that were shown before come back, in a given share.

What was shown follows from how far each data set has been read, and so does the buffer: nothing is
stored but the positions, and a run goes on from them on any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.age_schedule import AgeSchedule
from trainplan.data.batches import Indices
from trainplan.data.hashing import fingerprint, hashed, key, stream_of
from trainplan.data.order import Order
from trainplan.data.quotas import Counts, Floats, labels_at
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

Words = npt.NDArray[np.uint64]
REPLAY: Final = "replay"
"""The name of replay among the data sets of a mixture."""
_KINDS = ("past", "reservoir", "recency")
_KEPT: Final = 4
"""The stream of the seed by which a reservoir is chosen."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Replay:
    """Which examples come back.

    Args:
        kind: ``past``: any that was shown of the data sets that have no weight now, such as the
            tasks that are over. ``reservoir``: those of an even sample of everything shown.
            ``recency``: first the age of a task is drawn, then one of its examples that were
            shown. Tasks are the data sets in their order; the newest with a weight has age 0.
        capacity: Examples of a reservoir.
        per_task: Whether each data set has a reservoir of that capacity.
        classes: (n,) class of each example of the mixture, a whole number: each class has a
            reservoir of that capacity, so that rare ones are not lost.
        ages: Weight of each age for ``recency``, from 1 on; by default falling as 1 / age.

    Raises:
        PlanError: If something does not belong to the kind.

    >>> Replay("reservoir", capacity=200).plain()
    ['reservoir', 200, False, None, None]
    """

    kind: Literal["past", "reservoir", "recency"] = "past"
    capacity: int | None = None
    per_task: bool = False
    ages: AgeSchedule | None = None
    classes: npt.ArrayLike | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            remedy = nearest(str(self.kind), _KINDS)
            raise PlanError("unknown", place="kind", value=self.kind, remedy=remedy)
        if self.kind == "reservoir":
            count(self.capacity, "capacity")
        elif self.capacity is not None or self.per_task or self.classes is not None:
            raise PlanError("only a reservoir has one", place="capacity", value=self.capacity)
        if self.classes is not None:
            self._check_classes(np.asarray(self.classes))
        if self.ages is not None and self.kind != "recency":
            raise PlanError("only kind='recency' draws ages", place="ages", value=self.ages)

    def _check_classes(self, classes: npt.NDArray[Any]) -> None:
        if self.per_task:
            raise PlanError(
                "a reservoir of each task, or of each class",
                place="per_task",
                value=True,
                remedy="Number the classes of each task differently",
            )
        if classes.ndim != 1 or classes.dtype.kind not in "iu":
            raise PlanError(
                "one whole number per example",
                place="classes",
                value=(classes.shape, classes.dtype),
            )
        object.__setattr__(self, "classes", classes.astype(np.int64))

    def plain(self) -> list[Any]:
        """What it depends on, as plain data."""
        ages = None if self.ages is None else [str(self.ages.kind), self.ages.b]
        classes = None if self.classes is None else fingerprint(np.asarray(self.classes))
        return [self.kind, self.capacity, self.per_task, ages, classes]


class Buffer:
    """The past of a mixture at each of its steps.

    Args:
        replay: What comes back.
        orders: Of the data sets.
        seed: Of everything random.
    """

    def __init__(self, replay: Replay, orders: list[Order], seed: int) -> None:
        self.replay, self.orders, self.seed = replay, orders, seed
        self.sizes = np.array([order.n for order in orders], np.int64)
        self.offsets = np.cumsum(self.sizes) - self.sizes
        self.ages = replay.ages or AgeSchedule("power")
        self.classes = None if replay.classes is None else np.asarray(replay.classes)
        if self.classes is not None and self.classes.size != self.sizes.sum():
            raise PlanError(
                f"{self.classes.size} classes for {self.sizes.sum()} examples",
                place="replay.classes",
                value=self.classes.size,
            )
        self._forget()

    def _forget(self) -> None:
        self._looked_at = np.zeros(len(self.orders), np.int64)
        self._pools: dict[int, tuple[Words, Indices]] = {}
        """Hashes, rising, and examples of each reservoir."""

    def filled(self, cursors: Counts, weights: Floats) -> npt.NDArray[np.bool_]:
        """(t,) whether there is something to replay.

        Args:
            cursors: (t, k) examples of each data set that were shown before.
            weights: (t, k) their weights now.
        """
        return np.asarray((self._members(cursors, weights) > 0).any(axis=1))

    def _members(self, cursors: Counts, weights: Floats) -> Floats:
        """(t, k) weight of each data set in what is replayed."""
        seen = np.minimum(cursors, self.sizes).astype(np.float64)
        if self.replay.kind == "reservoir":
            return seen
        if self.replay.kind == "past":
            return np.where(weights > 0, 0.0, seen)
        tasks = np.arange(len(self.orders))
        newest = np.where(weights > 0, tasks, -1).max(axis=1)
        # Without a task that is learned now, the last one has been over for one phase.
        ages = np.where(newest < 0, tasks.size, newest)[:, None] - tasks
        return np.where((ages > 0) & (seen > 0), self.ages.at(np.maximum(ages, 1)), 0.0)

    def draw(self, step: int, number: int, drawn: int, cursors: Counts, weights: Floats) -> Indices:
        """(number,) examples for a step, all different if the past suffices.

        Args:
            step: Of the run.
            number: Examples wanted.
            drawn: Examples replayed before the step.
            cursors: (k,) examples of each data set that were shown before the step.
            weights: (k,) their weights now.
        """
        if self.replay.kind == "reservoir":
            held = self.held(cursors)
            return held[self._different(held.size, step, number)]
        members = self._members(cursors[None], weights[None])[0]
        if self.replay.kind == "past":
            ends = np.cumsum(members.astype(np.int64))
            places = self._different(int(ends[-1]), step, number)
            tasks = np.searchsorted(ends, places, side="right")
            return self._at(tasks, places - (ends - members.astype(np.int64))[tasks])
        bits = hashed(
            (drawn + np.arange(number)).astype(np.uint64), key(self.seed, stream_of(REPLAY))
        )
        tasks = labels_at(bits, members)
        offsets = np.empty(number, np.int64)
        for k in np.unique(tasks):
            mine = np.flatnonzero(tasks == k)
            seen = int(min(cursors[k], self.sizes[k]))
            offsets[mine] = self._different(seen, step, mine.size, int(k))
        return self._at(tasks, offsets)

    def _different(self, n: int, step: int, number: int, part: int = 0) -> Indices:
        """(number,) numbers below n, different ones if there are as many."""
        order = Order(n, self.seed, stream=stream_of(f"{REPLAY} {part}"))
        return np.resize(order.stretch(step, 0, min(n, number)), number)

    def _at(self, tasks: Counts, offsets: Indices) -> Indices:
        """The examples of data sets at offsets of their first epochs."""
        found = np.empty(tasks.size, np.int64)
        for k in np.unique(tasks):
            mine = tasks == k
            found[mine] = self.offsets[k] + self.orders[k].at_offsets(offsets[mine])
        return found

    def held(self, cursors: Counts) -> Indices:
        """The reservoir after so many examples of each data set: those with the least hashes."""
        seen = np.minimum(cursors, self.sizes)
        if (seen < self._looked_at).any():
            self._forget()
        for k, (first, last) in enumerate(zip(self._looked_at, seen, strict=True)):
            for start in range(int(first), int(last), _CHUNK):
                number = min(_CHUNK, int(last) - start)
                examples = self.offsets[k] + self.orders[k].stretch(0, start, number)
                if self.classes is None:
                    self._show(k if self.replay.per_task else 0, examples)
                    continue
                classes = self.classes[examples]
                for one in np.unique(classes).tolist():
                    self._show(one, examples[classes == one])
        self._looked_at = seen
        return np.concatenate([self._pools[pool][1] for pool in sorted(self._pools)])

    def _show(self, pool: int, examples: Indices) -> None:
        nothing = (np.empty(0, np.uint64), np.empty(0, np.int64))
        hashes, held = self._pools.get(pool, nothing)
        fresh = hashed(examples.astype(np.uint64), key(self.seed, _KEPT))
        capacity = self.replay.capacity
        if hashes.size == capacity:
            low = fresh < hashes[-1]
            fresh, examples = fresh[low], examples[low]
        hashes, held = np.concatenate([hashes, fresh]), np.concatenate([held, examples])
        least = np.argsort(hashes, kind="stable")[:capacity]
        self._pools[pool] = hashes[least], held[least]
