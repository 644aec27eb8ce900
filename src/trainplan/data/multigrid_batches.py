"""The batches, shapes and rates of a multigrid schedule, by optimizer step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from trainplan.data.multigrid import GridPhase, MultigridSchedule
from trainplan.data.shapes import Shapes
from trainplan.data.sources import Source
from trainplan.data.varied_batches import VariedBatches
from trainplan.schedules import phases
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration


class MultigridBatches(VariedBatches):
    """A source under a `MultigridSchedule`; a shape has ``crop`` and, for clips, ``frames``.

    A phase has as many steps as its epochs of examples need, at least one, and begins with the
    first shape of the short cycle.

    Args:
        source: One stream of examples, such as `Shuffle` without ``epochs``; its global batch is
            the ordinary one.
        grid: The schedule.

    >>> from trainplan.data import Shuffle
    >>> grid = MultigridSchedule.from_step_schedule([0, 8], 12, crop=16, frames=8)
    >>> batches = MultigridBatches(Shuffle(512, 16), grid)
    >>> batches.steps, [batches.size(t) for t in range(3)], batches.shapes(2)
    (128, [256, 128, 128], {'crop': 11, 'frames': 2})
    """

    def __init__(self, source: Source, grid: MultigridSchedule) -> None:
        self.grid = grid
        sizes: list[np.ndarray] = []
        shapes: list[np.ndarray] = []
        self.starts = [0]
        """The first step of each phase, and the one after the last phase."""
        for phase, start, end in grid.spans():
            cycle = np.array(grid.cycle(phase, source.global_batch))
            whole = (end - start) * source.n / cycle[:, 0].mean()
            number = max(round(whole), 1) if end > start else 0
            rows = cycle[np.arange(number) % len(cycle)]
            sizes.append(rows[:, 0])
            shapes.append(np.column_stack([rows[:, 1], np.full(number, phase.frames)]))
            self.starts.append(self.starts[-1] + number)
        each = np.concatenate(shapes)
        named = {"crop": each[:, 0]} | ({"frames": each[:, 1]} if grid.frames > 1 else {})
        super().__init__(source, np.concatenate(sizes), shape=Shapes(named))

    def phase_at(self, step: int) -> GridPhase:
        """The phase of a step; past the end, the last."""
        return self.grid.at(self.epoch_at(step))

    def step_of(self, epoch: float) -> int:
        """The step with which a (part of an) epoch begins."""
        ends = [0, *(phase.end for phase in self.grid.phases)]
        return round(float(np.interp(epoch, ends, self.starts)))

    def epoch_at(self, step: int) -> float:
        """The epoch in which a step is, in whole and parts."""
        place = int(np.searchsorted(self.starts[1:-1], step, side="right"))
        first, last = self.starts[place : place + 2]
        _, start, end = list(self.grid.spans())[place]
        return start + (end - start) * (step - first) / (last - first) if last > first else start

    def lr(self, peak: float, *, warmup: float = 0.0, start: float = 0.0) -> Schedule:
        """The learning rate in steps, as a knob of a plan.

        Args:
            peak: The ordinary rate; where the batch is k times as large, so is the rate.
            warmup: Epochs over which it rises from ``start``.
            start: Where it rises from.
        """

        def rate_at(epoch: float) -> float:
            return self.grid.rate_at(epoch, peak, warmup=warmup, start=start)

        edges = {e for e in (*(p.end for p in self.grid.phases), *self.grid.boundaries) if e}
        rising = sorted({0.0, *(float(e) for e in edges if e < warmup), float(warmup)})
        holding = sorted({float(warmup), *(float(e) for e in edges if e > warmup)})
        pieces: list[Any] = []
        for a, b in pairwise(rising):
            if length := self.step_of(b) - self.step_of(a):
                pieces.append(phases.Phase(rate_at(a), rate_at(b), Duration(length)))
        for a, b in pairwise(holding):
            if length := self.step_of(b) - self.step_of(a):
                pieces.append(phases.Hold(rate_at(a), Duration(length)))
        return phases.Sequence(*pieces)

    @property
    def evaluations(self) -> list[int]:
        """After how many steps to evaluate: about three times in each phase, and at its end."""
        return sorted({self.step_of(epoch + 1) for epoch in self.grid.evaluations})
