"""Buffers of what was seen, for streams whose past is gone: reservoir and class-balanced.

Vitter, 1985, "Random Sampling with a Reservoir": everything seen is kept with the same probability.
Chrysakis and Moens, 2020, "Online Continual Learning from Imbalanced Data": every class gets the
same share of the memory as long as it has enough examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed, hashed, key
from trainplan.errors import PlanError
from trainplan.schedules.values import count

Indices = npt.NDArray[np.int64]
_ADD, _DRAW = 5, 6
"""Streams of the seed: for what is kept, and for what is drawn."""
_UNIT: Final = 2.0**-53


class Reservoir:
    """An even sample of everything seen, whatever the stream's length.

    It holds examples' indices: look the examples up, or keep them in arrays beside. Random numbers
    are computed from the count of what was seen, so its state is what it holds and two counts.

    Args:
        capacity: Most indices to hold.
        seed: 0 to 2^128 - 1.

    >>> buffer = Reservoir(3)
    >>> buffer.add([0, 1, 2]), buffer.add(range(3, 100))
    (None, None)
    >>> len(buffer), buffer.seen, len(buffer.sample(2))
    (3, 100, 2)
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity = count(capacity, "capacity")
        self.seed = checked_seed(seed)
        self.held: Indices = np.empty(0, np.int64)
        self.seen, self.drawn = 0, 0

    def __len__(self) -> int:
        return len(self.held)

    def add(self, indices: Any) -> None:
        """Show it examples, in the order of the stream."""
        new = np.atleast_1d(np.asarray(list(indices), dtype=np.int64))
        room = self.capacity - len(self.held)
        self.held = np.concatenate([self.held, new[:room]])
        later = new[room:]
        times = self.seen + len(new[:room]) + np.arange(len(later))
        slots = np.floor(self._coins(times, _ADD) * (times + 1)).astype(np.int64)
        taken = slots < self.capacity
        self.held[slots[taken]] = later[taken]  # of several for one slot the last one stays
        self.seen += len(new)

    def sample(self, n: int) -> Indices:
        """N different examples at random, or all if fewer are held."""
        number = min(count(n, "n", least=0), len(self.held))
        coins = self._coins(np.arange(len(self.held)), _DRAW, self.drawn)
        self.drawn += 1
        return self.held[np.argsort(coins, kind="stable")[:number]]

    def _coins(self, places: Any, stream: int, epoch: int = 0) -> npt.NDArray[np.float64]:
        bits = hashed(np.asarray(places).astype(np.uint64), key(self.seed, stream, epoch))
        return (bits >> np.uint64(11)).astype(np.float64) * _UNIT

    def state_dict(self) -> dict[str, Any]:
        """What it holds and what it has counted."""
        return {"held": self.held.tolist(), "seen": self.seen, "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If it holds more than fits.
        """
        if not set(self.state_dict()) <= set(state):
            raise PlanError("not the state of this buffer", place="state", value=sorted(state))
        if len(state["held"]) > self.capacity:
            remedy = f"Give capacity={len(state['held'])} or more"
            raise PlanError("too much", place="capacity", value=self.capacity, remedy=remedy)
        self.held = np.asarray(state["held"], np.int64)
        self.seen, self.drawn = int(state["seen"]), int(state["drawn"])


class BalancedReservoir(Reservoir):
    """As many examples of every class as there are, up to an equal share of the memory.

    A full buffer takes an example of a class that was never the largest, in place of a random one
    of the largest class; of the others it keeps an even sample, each its own.

    >>> buffer = BalancedReservoir(4)
    >>> buffer.add(range(100), [0] * 100)
    >>> buffer.add([100, 101], [1, 1])
    >>> sorted(buffer.classes.tolist())
    [0, 0, 1, 1]
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        super().__init__(capacity, seed)
        self.classes: Indices = np.empty(0, np.int64)
        self.seen_of: dict[int, int] = {}
        self.full: set[int] = set()

    def add(self, indices: Any, classes: Any = ()) -> None:
        """Show it examples and their classes, in the order of the stream.

        Raises:
            PlanError: If there are not as many classes as examples.
        """
        new, labels = list(indices), [int(label) for label in classes]
        if len(new) != len(labels):
            problem = f"{len(new)} examples need as many classes"
            raise PlanError(problem, place="classes", value=len(labels))
        coins = self._coins(self.seen + np.arange(len(new)), _ADD)
        for index, label, coin in zip(new, labels, coins.tolist(), strict=True):
            self.seen_of[label] = self.seen_of.get(label, 0) + 1
            self._take(int(index), label, coin)
        self.seen += len(new)

    def _take(self, index: int, label: int, coin: float) -> None:
        if len(self.held) < self.capacity:
            self.held = np.append(self.held, index)
            self.classes = np.append(self.classes, label)
            return
        names, numbers = np.unique(self.classes, return_counts=True)
        self.full |= set(names[numbers == numbers.max()].tolist())
        if label in self.full:
            places = np.flatnonzero(self.classes == label)
            slot = int(coin * self.seen_of[label])  # an even sample of its own class
        else:
            places = np.flatnonzero(self.classes == names[numbers.argmax()])
            slot = int(coin * len(places))
        if slot < len(places):
            self.held[places[slot]], self.classes[places[slot]] = index, label

    def state_dict(self) -> dict[str, Any]:
        """What it holds and what it has counted."""
        return {
            **super().state_dict(),
            "classes": self.classes.tolist(),
            "seen_of": dict(self.seen_of),
            "full": sorted(self.full),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If it holds more than fits, or is no state of this buffer.
        """
        super().load_state_dict(state)
        self.classes = np.asarray(state["classes"], np.int64)
        self.seen_of = {int(name): int(number) for name, number in state["seen_of"].items()}
        self.full = {int(name) for name in state["full"]}
