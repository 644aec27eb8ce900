"""Phases of training, one after the other, each with data, batch, rate and optimizer of its own.

The recipe of SteloCoder (Pan et al., 2023, arXiv 2310.15539): short examples first, then long ones,
with a lower peak rate in every phase, and an optimizer that begins each phase without a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.hashing import checked_seed, key, stream_of
from trainplan.data.sources import Shuffle, Source
from trainplan.errors import PlanError, located, nearest
from trainplan.plan import Plan
from trainplan.schedules import named
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration, Span
from trainplan.schedules.phases import Sequence as Pieces
from trainplan.schedules.phases import Take
from trainplan.schedules.values import count, finite, is_number

_SHAPES: dict[str, Callable[..., Schedule]] = {
    "cosine": named.cosine,
    "linear": named.linear,
    "constant": named.constant,
}
_STREAM = stream_of("phases")


@dataclass(frozen=True)
class Phase:
    """One phase.

    Args:
        data: Name of the data set.
        peak_lr: Learning rate after the warm-up.
        batch_size: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        epochs: Passes over the data.
        warmup: Length of the rise from 0: steps, or a share of the phase such as ``"5%"``.
        schedule: The rate within the phase: ``cosine`` and ``linear`` fall to 0 at its end,
            ``constant`` does not; or a function that makes a schedule from ``(peak_lr,
            warmup=...)``.
        reset_optimizer: Whether the phase begins without the moments of the one before.

    Raises:
        PlanError: If an argument cannot be meant.
    """

    data: str
    peak_lr: float
    batch_size: int
    epochs: int = 1
    warmup: int | str = 10
    schedule: str | Callable[..., Schedule] = "cosine"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        if finite(self.peak_lr, "peak_lr") <= 0:
            raise PlanError("must be above zero", place="peak_lr", value=self.peak_lr)
        object.__setattr__(self, "batch_size", count(self.batch_size, "batch_size"))
        object.__setattr__(self, "epochs", count(self.epochs, "epochs"))
        located("warmup", Duration.parse, self.warmup)
        if isinstance(self.schedule, str) and self.schedule not in _SHAPES:
            remedy = nearest(self.schedule, _SHAPES)
            raise PlanError("unknown", place="schedule", value=self.schedule, remedy=remedy)

    @property
    def lr(self) -> Schedule:
        """The rate, in steps of the phase."""
        make = _SHAPES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        return make(self.peak_lr, warmup=self.warmup)


class PhaseCurriculum(Source):
    """Phases as one run: which examples each step sees, and at which rate.

    Indices run through the data sets one after the other, in the order of ``sizes``: give the
    loader `Joined` data sets. With a trainer for each phase, as the authors have it, give the
    trainer phase k's data, ``sources[k]`` and ``plan(k)``: the order and the rates are the same.
    After the last phase the run ends.

    Args:
        phases: In order.
        sizes: Number of examples of each data set, by name; or the data sets themselves.
        seed: Of the shuffles; each phase and epoch has one of its own.
        tail: What becomes of the examples of an epoch that do not fill a step: ``drop`` leaves
            them out, ``short`` makes the last step smaller.

    Attributes:
        phases: In order.
        sources: The order within each phase, over indices of its own data set.
        lengths: Steps of each phase.
        starts: The first step of each phase.
        lr: The rate over the whole run, as a schedule.

    Raises:
        PlanError: If a phase names no data set, does not fill a step, or ends within its warm-up.

    >>> curriculum = PhaseCurriculum(
    ...     [Phase("snippets", 9e-5, 4, warmup=2), Phase("programs", 5e-5, 2, warmup=1)],
    ...     {"snippets": 18, "programs": 6},
    ... )
    >>> curriculum.lengths, curriculum.starts, curriculum.steps
    ([4, 3], [0, 4], 7)
    >>> curriculum.lr_at([1, 2, 4, 5]).tolist()
    [4.5e-05, 9e-05, 0.0, 5e-05]
    >>> curriculum.size(4), bool(curriculum.examples(4, 0, 2).min() >= 18)
    (2, True)
    """

    uneven = True

    def __init__(
        self,
        phases: Sequence[Phase],
        sizes: Mapping[str, Any],
        seed: int = 0,
        *,
        tail: Literal["drop", "short"] = "drop",
    ) -> None:
        self.phases = tuple(phases)
        if not self.phases:
            raise PlanError("there is no phase", place="phases", value=phases)
        if tail not in ("drop", "short"):
            remedy = nearest(str(tail), ("drop", "short"))
            raise PlanError("unknown", place="tail", value=tail, remedy=remedy)
        self.seed, self.tail = checked_seed(seed), tail
        self.sizes = {
            name: count(size if is_number(size) else len(size), f"sizes.{name}")
            for name, size in sizes.items()
        }
        self.sources = [self._source(k, tail) for k in range(len(self.phases))]
        self.n = sum(self.sizes.values())
        self.lengths = [source.steps or 0 for source in self.sources]
        self.starts = [0, *accumulate(self.lengths)][:-1]
        self.steps = sum(self.lengths)
        self.global_batch = self.phases[0].batch_size
        offsets = dict(zip(self.sizes, [0, *accumulate(self.sizes.values())], strict=False))
        self._offsets = [offsets[phase.data] for phase in self.phases]
        examples = [s.position(n) for s, n in zip(self.sources, self.lengths, strict=True)]
        self._before = [0, *accumulate(examples)]
        for k in range(len(self.phases)):
            self._check_warmup(k)
        pieces = [Take(p.lr, Duration(n)) for p, n in zip(self.phases, self.lengths, strict=True)]
        self.lr: Schedule = Pieces(*pieces)
        # As in a plan: warm-ups are whole steps.
        self._rates = self.lr.resolve(self.steps, unit="steps")

    def _source(self, k: int, tail: Literal["drop", "short"]) -> Shuffle:
        phase = self.phases[k]
        if phase.data not in self.sizes:
            raise PlanError(
                "no such data set",
                place=f"phases[{k}].data",
                value=phase.data,
                remedy=nearest(phase.data, self.sizes),
            )
        size, seed = self.sizes[phase.data], key(self.seed, _STREAM, k)
        options: dict[str, Any] = {"epochs": phase.epochs, "tail": tail}
        return located(f"phases[{k}]", Shuffle, size, phase.batch_size, seed, **options)

    def _check_warmup(self, k: int) -> None:
        steps, warmup = self.lengths[k], self.phases[k].warmup
        if Span.of(steps, "steps", {}).measure(Duration.parse(warmup)) >= steps:
            raise PlanError(
                f"the phase has {steps} steps and never reaches its peak",
                place=f"phases[{k}].warmup",
                value=warmup,
                remedy="Shorten the warm-up, take smaller batches or more epochs",
            )

    # Where a step is

    def phase_at(self, step: int) -> int:
        """The phase of a step, from 0; past the end, their number."""
        if step >= self.starts[-1] + self.lengths[-1]:
            return len(self.phases)
        return int(np.searchsorted(self.starts, step, side="right")) - 1

    def _place(self, step: int) -> tuple[int, int]:
        """The phase of a step, and the step within it; the end belongs to the last."""
        k = min(self.phase_at(step), len(self.phases) - 1)
        return k, step - self.starts[k]

    def lr_at(self, step: Any) -> Any:
        """The rate for one step, or for an array of them; 0-based over the whole run."""
        return self._rates(step if is_number(step) else np.asarray(step))

    def plan(self, k: int | None = None, **knobs: Any) -> Plan:
        """A plan for a phase, in its own steps; or for the whole run.

        Args:
            k: The phase; None is the whole run.
            **knobs: More of them, such as ``weight_decay``.
        """
        if k is None:
            return Plan(horizon=self.steps, lr=self.lr, **knobs)
        return Plan(horizon=self.lengths[k], lr=self.phases[k].lr, **knobs)

    def begin_step(self, step: int, optimizer: Any) -> bool:
        """Clear the optimizer's moments if a phase that asks for that begins with this step.

        Call it before every step of a loop over the whole run. Trainers of their own for each
        phase do so by themselves.

        Args:
            step: From 0.
            optimizer: Of PyTorch.

        Returns:
            Whether they were cleared.
        """
        k, inside = self._place(step)
        if inside or not step or not self.phases[k].reset_optimizer:
            return False
        optimizer.state.clear()
        return True

    # As a source

    def size(self, step: int) -> int:
        k, inside = self._place(step)
        return self.sources[k].size(inside)

    def position(self, step: int) -> int:
        k, inside = self._place(step)
        return self._before[k] + self.sources[k].position(inside)

    def step_at(self, position: int) -> int:
        k = int(np.searchsorted(self._before[1:-1], position, side="right"))
        return self.starts[k] + self.sources[k].step_at(position - self._before[k])

    def check_parts(self, parts: int) -> None:
        """Whether the steps of every phase can be shared out evenly."""
        for k, source in enumerate(self.sources):
            assert source.steps_per_epoch is not None  # noqa: S101 - neither tail wraps
            for size in (source.size(0), source.size(source.steps_per_epoch - 1)):
                if size % parts:
                    raise PlanError(
                        f"a step of {size} examples cannot be shared out evenly among {parts} "
                        "micro-batches",
                        place=f"phases[{k}].batch_size",
                        value=self.phases[k].batch_size,
                        remedy=f"Give a multiple of {parts}"
                        + (", or tail='drop'" if self.tail == "short" else ""),
                    )

    def examples(self, step: int, first: int, last: int) -> Indices:
        k, inside = self._place(step)
        return self._offsets[k] + self.sources[k].examples(inside, first, last)

    def settings(self) -> dict[str, Any]:
        return {
            "source": "phases",
            "sizes": list(self.sizes.items()),
            "phases": [[p.data, p.batch_size, p.epochs] for p in self.phases],
            "tail": self.tail,
        }
