"""Batches of a size that changes over a run.

A warm-up of the batch size begins with few examples per step, many for which the gradient is good
enough; methods that trade the size of an example for their number change both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.shapes import Shapes
from trainplan.data.sources import Source
from trainplan.data.step_numbers import Round, StepNumbers, nearest_multiples
from trainplan.errors import PlanError
from trainplan.schedules.values import count

_BLOCK = 1024
_CHECKED = 1 << 20
"""So many steps are checked before the run, the others when they are drawn."""


class VariedBatches(Source):
    """The examples of another source, in its order, with another number of them in each step.

    The other source is one stream of examples; what changes in it over its steps (a pacing, the
    shares of a mixture) counts those that it would have taken.

    Args:
        source: `Shuffle` with ``tail="wrap"``, `Curriculum`, `Mixture` or any other that does not
            listen to the run and has no epochs.
        global_batch: Examples of each step, over all ranks and accumulated micro-batches: a
            schedule, an array with one number per step, or a function of the step.
        steps: Length of the run; by default that of the array, or until the source ends.
        multiple: Of what the sizes are multiples: ranks * accumulation.
        round: ``nearest`` takes the nearest multiple; None refuses other numbers.
        shape: What `Shapes` takes, to travel with the examples.
        units_per_step: The schedules' units per step, if they do not count steps.

    >>> from trainplan.data import Shuffle
    >>> varied = VariedBatches(Shuffle(10, 4), [2, 2, 4])
    >>> [varied.size(t) for t in range(3)], varied.position(2), varied.examples(2, 0, 4).tolist()
    ([2, 2, 4], 4, [6, 7, 2, 1])
    """

    uneven = True

    def __init__(
        self,
        source: Source,
        global_batch: Any,
        *,
        steps: int | None = None,
        multiple: int = 1,
        round: Round = None,
        shape: Any = None,
        units_per_step: float = 1.0,
    ) -> None:
        if source.lag is not None or source.steps_per_epoch is not None or source.uneven:
            raise PlanError(
                "batches of changing size need one stream of examples, without epochs, that does "
                "not listen to the run",
                place="source",
                value=type(source).__name__,
                remedy="Give Shuffle(..., tail='wrap'), or a Curriculum or Mixture on schedules",
            )
        self.source, self.n, self.seed = source, source.n, source.seed
        given = None if steps is None else count(steps, "steps")
        self.sizes = StepNumbers(
            global_batch,
            "global_batch",
            multiple=multiple,
            round=round,
            steps=given,
            units_per_step=units_per_step,
        )
        self._ends: Indices = np.zeros(1, np.int64)
        """Examples before each step, as far as they were asked for."""
        self.steps = self.sizes.length if given is None else given
        self._reach(min(self.steps or 0, _CHECKED))
        self.steps = self._within(source)
        self.global_batch = self.sizes(0)
        self.shapes = (
            shape
            if shape is None or isinstance(shape, Shapes)
            else Shapes(shape, steps=self.steps, units_per_step=units_per_step)
        )

    def _within(self, source: Source) -> int | None:
        """Steps that the source has examples for."""
        if source.steps is None:
            return self.steps
        whole = source.position(source.steps)
        while self._ends[-1] <= whole and (self.steps is None or self._ends.size <= self.steps):
            self._reach(self._ends.size)
        fit = int(np.searchsorted(self._ends, whole, side="right")) - 1
        return fit if self.steps is None else min(fit, self.steps)

    def _reach(self, step: int) -> None:
        """Know how many examples come before a step."""
        known = self._ends.size - 1
        if step <= known:
            return
        last = max(step, 2 * known, _BLOCK)
        last = last if self.steps is None else max(min(last, self.steps), step)
        more = np.cumsum(self.sizes.on(np.arange(known, last)))
        self._ends = np.concatenate([self._ends, self._ends[-1] + more])

    def size(self, step: int) -> int:
        self._reach(step + 1)
        return int(self._ends[step + 1] - self._ends[step])

    def position(self, step: int) -> int:
        self._reach(step)
        return int(self._ends[step])

    def step_at(self, position: int) -> int:
        while self._ends[-1] < position:
            self._reach(self._ends.size)
        step = int(np.searchsorted(self._ends, position))
        if self._ends[step] != position:
            raise PlanError(
                "no step begins there",
                place="position",
                value=position,
                remedy=f"The nearest are {self._ends[step - 1]} and {self._ends[step]}",
            )
        return step

    def check_parts(self, parts: int) -> None:
        """Whether every step can be shared out evenly, as far as that is known before the run.

        Raises:
            PlanError: If one cannot; the first is named, and the nearest sizes.
        """
        self._reach(min(self.steps or _BLOCK, _CHECKED))
        sizes = np.diff(self._ends)[: self.steps]
        wrong = sizes % parts != 0
        if wrong.any():
            step = int(wrong.argmax())
            raise PlanError(
                f"step {step} cannot be shared out evenly among {parts} micro-batches",
                place="global_batch",
                value=int(sizes[step]),
                remedy=nearest_multiples(int(sizes[step]), parts)
                + f"; or give multiple={parts}, round='nearest'",
            )

    def examples(self, step: int, first: int, last: int) -> Indices:
        return self.source.stretch(self.position(step) + first, last - first)

    def state(self, step: int) -> dict[str, Any]:
        return self.source.state(self.position(step) // self.source.global_batch)

    def load(self, state: dict[str, Any], step: int) -> None:
        self.source.load(state, self.position(step) // self.source.global_batch)

    def settings(self) -> dict[str, Any]:
        return {
            "source": "varied",
            "of": [self.source.settings(), self.source.global_batch],
            "sizes": [self.sizes.digest, self.sizes.multiple, self.sizes.round],
            "steps": self.steps,
        }
