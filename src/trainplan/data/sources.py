"""What a run sees at each step, as a function of the step alone.

A `Source` says which examples are in the global batch of an optimizer step; how they are shared
out among ranks, workers and accumulated micro-batches is `BatchSampler`'s business, so that a
change of the hardware changes nothing in the order. `Shuffle` is the plain one; curricula and
mixtures are others.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Indices
from trainplan.data.draws import Draws
from trainplan.data.order import Order
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

if TYPE_CHECKING:
    from trainplan.data.shapes import Shapes

Tail = Literal["drop", "wrap", "short", "pad"]
TAILS = ("drop", "wrap", "short", "pad")


class Source(ABC):
    """The examples of each optimizer step.

    Attributes:
        n: Number of examples; indices are below it.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: Of everything random.
        steps: Length of the run; None if it has no end, or one that only shows on the way.
        steps_per_epoch: After so many steps an iterator ends; None if it goes on to the run's end.
        lag: For sources that listen to the run: a step's examples depend on what was observed
            up to ``lag + 1`` steps before it. None for sources that do not listen.
        light: Whether a copy for a worker is a few numbers, so that workers compute the examples.
        uneven: Whether steps have sizes of their own; ``global_batch`` is then the first one's.
        shapes: The shape of each step's examples, if that changes.
    """

    light: ClassVar[bool] = False
    uneven: ClassVar[bool] = False
    shapes: Shapes | None = None
    n: int
    global_batch: int
    seed: int
    steps: int | None = None
    steps_per_epoch: int | None = None

    @property
    def lag(self) -> int | None:
        """How late observations count; None if there are none."""
        return None

    @abstractmethod
    def examples(self, step: int, first: int, last: int) -> Indices:
        """Examples at the places ``first`` to before ``last`` of a step's global batch."""

    def stretch(self, position: int, number: int) -> Indices:
        """The ``number`` examples from a position on, for sources whose steps have one size."""
        parts = [np.empty(0, np.int64)]
        while number > 0:
            step, offset = divmod(position, self.global_batch)
            taken = min(number, self.global_batch - offset)
            parts.append(self.examples(step, offset, offset + taken))
            position, number = position + taken, number - taken
        return np.concatenate(parts)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the order depends on beside n, the seed and the global batch, as plain data."""

    def size(self, step: int) -> int:
        """Examples of a step; all are alike, unless the last step of an epoch is short."""
        return self.global_batch

    def check_parts(self, parts: int) -> None:  # noqa: B027 - most have one size
        """Whether each step can be shared out evenly, if they have sizes of their own."""

    def exists(self, step: int) -> bool:
        """Whether the run has this step."""
        return self.steps is None or step < self.steps

    def position(self, step: int) -> int:
        """Examples before a step."""
        return step * self.global_batch

    def step_at(self, position: int) -> int:
        """The step that begins at a position.

        Raises:
            PlanError: If none does.
        """
        step, inside = divmod(position, self.global_batch)
        if inside:
            raise between_steps(position, self.global_batch)
        return step

    def state(self, step: int) -> dict[str, Any]:
        """What cannot be recomputed, or is worth checking, before a step."""
        return {}

    def load(self, state: dict[str, Any], step: int) -> None:  # noqa: B027 - most have none
        """Go on from `state`."""

    def rebase(self, step: int, position: int, old_batch: int) -> None:
        """Go on from a run with another global batch.

        Raises:
            PlanError: If the order would not be the same.
        """
        raise PlanError(
            f"the state is of a run with {old_batch} examples per step, and this order depends on "
            "that number",
            place="global_batch",
            value=self.global_batch,
            remedy=f"Give global_batch={old_batch}",
        )


def between_steps(position: int, size: int) -> PlanError:
    """The error for a position inside a step."""
    down = position - position % size
    return PlanError(
        f"no step begins there; steps have {size} examples",
        place="position",
        value=position,
        remedy=f"The nearest are {down} and {down + size}",
    )


class Shuffle(Source):
    """All examples in random order, in every epoch another one.

    Args:
        n: Number of examples, 1 to 2^48.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: 0 to 2^128 - 1.
        epochs: Length of the run; None goes on for ever.
        tail: What becomes of the examples of an epoch that do not fill a step. ``drop`` leaves
            them out, in each epoch others; ``wrap`` fills the step with the next epoch's first
            ones; ``short`` makes the last step smaller; ``pad`` (for evaluation) fills it with
            the epoch's first ones, which `padding` counts. By default ``wrap`` if the run has no
            end, so that it is one endless stream, else ``drop``.
        reshuffle: Whether each epoch has an order of its own.

    >>> source = Shuffle(10, global_batch=4, epochs=2)
    >>> source.steps, source.examples(0, 0, 4).tolist(), source.examples(2, 0, 2).tolist()
    (4, [5, 4, 9, 0], [8, 0])
    """

    light = True

    def __init__(
        self,
        n: int,
        global_batch: int,
        seed: int = 0,
        *,
        epochs: int | None = None,
        tail: Tail | None = None,
        reshuffle: bool = True,
    ) -> None:
        self.order = Order(n, seed, reshuffle=reshuffle)
        self.n, self.seed = self.order.n, self.order.seed
        self.global_batch = count(global_batch, "global_batch")
        self.epochs = None if epochs is None else count(epochs, "epochs")
        self.tail = tail or ("wrap" if epochs is None else "drop")
        if self.tail not in TAILS:
            raise PlanError("unknown", place="tail", value=tail, remedy=nearest(str(tail), TAILS))
        self._begin = (0, 0)
        """A step and its position: not (0, 0) after the global batch has changed."""
        self._measure()

    def _measure(self) -> None:
        n, size = self.n, self.global_batch
        if self.tail == "wrap":
            samples = None if self.epochs is None else n * self.epochs - self._begin[1]
            self.steps = None if samples is None else self._begin[0] + -(-samples // size)
            return
        per_epoch = n // size if self.tail == "drop" else -(-n // size)
        if not per_epoch:
            raise PlanError(
                f"{n} examples do not fill a step of {size}",
                place="global_batch",
                value=size,
                remedy=f"Give at most {n}, or tail='wrap'",
            )
        self.steps_per_epoch = per_epoch
        self.steps = None if self.epochs is None else per_epoch * self.epochs

    def examples(self, step: int, first: int, last: int) -> Indices:
        if self.tail == "wrap":
            return self.order.block(self.position(step) + first, last - first)
        epoch, offset = self._place(step)
        missing = offset + last - self.n
        if missing <= 0:
            return self.order.stretch(epoch, offset + first, last - first)
        # Only padding reaches beyond the epoch's end.
        offsets = np.arange(offset + first, offset + last) % self.n
        return self.order.at_offsets(offsets, epoch)

    def stretch(self, position: int, number: int) -> Indices:
        if self.tail == "wrap":
            return self.order.block(position, number)
        return super().stretch(position, number)

    def _place(self, step: int) -> tuple[int, int]:
        assert self.steps_per_epoch is not None  # noqa: S101 - all tails but wrap have epochs
        epoch, inside = divmod(step, self.steps_per_epoch)
        return epoch, inside * self.global_batch

    def size(self, step: int) -> int:
        if self.tail != "short":
            return self.global_batch
        return min(self.global_batch, self.n - self._place(step)[1])

    def padding(self, step: int) -> int:
        """How many of a step's examples, at its end, are there only to fill it."""
        if self.tail != "pad":
            return 0
        return max(self._place(step)[1] + self.global_batch - self.n, 0)

    def position(self, step: int) -> int:
        if self.tail == "short":
            epoch, offset = self._place(step)
            return epoch * self.n + offset
        return self._begin[1] + (step - self._begin[0]) * self.global_batch

    def step_at(self, position: int) -> int:
        if self.tail == "short":
            assert self.steps_per_epoch is not None  # noqa: S101
            epoch, offset = divmod(position, self.n)
            if offset % self.global_batch:
                raise between_steps(position, self.global_batch)
            return epoch * self.steps_per_epoch + offset // self.global_batch
        return self._begin[0] + super().step_at(position - self._begin[1])

    def rebase(self, step: int, position: int, old_batch: int) -> None:
        if self.tail != "wrap":
            super().rebase(step, position, old_batch)
        self._begin = (step, position)
        self._measure()

    def state(self, step: int) -> dict[str, Any]:
        return {} if self._begin == (0, 0) else {"begin": list(self._begin)}

    def load(self, state: dict[str, Any], step: int) -> None:
        begin = state.get("begin", [0, 0])
        self._begin = (int(begin[0]), int(begin[1]))
        self._measure()

    def settings(self) -> dict[str, Any]:
        return {
            "source": "shuffle",
            "tail": self.tail,
            "epochs": self.epochs,
            "reshuffle": self.order.reshuffle,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.n, self.global_batch, self.seed, self.epochs, self.tail)
        return _shuffle, (*arguments, self.order.reshuffle, self._begin)


class Replacement(Source):
    """Independent draws with replacement, by weight if there are weights.

    Args:
        n: Number of examples, 1 to 2^48.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: 0 to 2^128 - 1.
        weights: (n,) weight of each example, none below 0; None draws evenly. There is no limit
            on their number; they cost 24 bytes per example, twice that while the table of the
            draws is built.
        steps: Length of the run; None goes on for ever.

    >>> Replacement(3, global_batch=4, weights=[0, 1, 0]).examples(0, 0, 4).tolist()
    [1, 1, 1, 1]
    """

    def __init__(
        self,
        n: int,
        global_batch: int,
        seed: int = 0,
        *,
        weights: npt.ArrayLike | None = None,
        steps: int | None = None,
    ) -> None:
        self.draws = Draws(n, seed, weights=weights)
        self.n, self.seed = self.draws.n, self.draws.seed
        self.global_batch = count(global_batch, "global_batch")
        self.steps = None if steps is None else count(steps, "steps")

    def examples(self, step: int, first: int, last: int) -> Indices:
        return self.draws.block(step * self.global_batch + first, last - first)

    def settings(self) -> dict[str, Any]:
        weights = self.draws.weights
        digest = "" if weights is None else hashlib.blake2b(weights.data, digest_size=8).hexdigest()
        return {"source": "replacement", "weights": digest, "steps": self.steps}


def _shuffle(
    n: int,
    global_batch: int,
    seed: int,
    epochs: int | None,
    tail: Tail,
    reshuffle: bool,
    begin: tuple[int, int],
) -> Shuffle:
    source = Shuffle(n, global_batch, seed, epochs=epochs, tail=tail, reshuffle=reshuffle)
    # The order of this process, which keeps the block that it has computed.
    source.order = source.order.shared()
    source.rebase(*begin, global_batch) if begin != (0, 0) else None
    return source
