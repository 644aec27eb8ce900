"""The stages of AutoLRS, and what they cost.

A stage is ``trials`` short trainings of ``trial_steps`` and one of ``steps``. Stages double until
the trials have a tenth of the longest stage (Jin et al., 2021, arXiv 2105.10762).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trainplan.schedules.values import count

_VALIDATIONS = 16
_SHORTEST_TRIAL = 3


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        index: From 0.
        trial_steps: Steps of each trial (tau').
        steps: Steps that are trained with the winner (tau).
        validates: Whether validation losses are forecast rather than training losses.
    """

    index: int
    trial_steps: int
    steps: int
    validates: bool

    @property
    def validate_every(self) -> int:
        """Trial steps between two validation losses; 0, in short trials, is after every one."""
        return self.trial_steps // _VALIDATIONS


@dataclass(frozen=True)
class Cost:
    """Optimizer steps, by what they were for.

    A comparison at *equal exploited steps* asks whether the schedule is good; one at *equal total
    steps* asks whether finding it was worth it.

    Attributes:
        exploited: Steps of the training itself.
        searched: Steps of trials, all of them undone.
    """

    exploited: int
    searched: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.exploited + self.searched

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.exploited + other.exploited, self.searched + other.searched)


def stage_table(
    stages: int, *, trial_steps: int = 100, stage_steps: int = 1000, longest_stage: int = 8000
) -> tuple[Stage, ...]:
    """The first stages.

    >>> [(s.trial_steps, s.steps, s.validates) for s in stage_table(4, longest_stage=4000)]
    [(100, 1000, False), (200, 2000, False), (400, 4000, False), (400, 4000, True)]
    """
    table: list[Stage] = []
    trial, steps, validates = trial_steps, stage_steps, False
    for index in range(count(stages, "stages", least=0)):
        table.append(Stage(index, trial, steps, validates))
        if trial < longest_stage / 10:
            trial, steps = 2 * trial, 2 * steps
        else:
            validates = True
    return tuple(table)


def stages_within(
    steps: int, *, trial_steps: int = 100, stage_steps: int = 1000, longest_stage: int = 8000
) -> tuple[Stage, ...]:
    """The stages of a training of so many steps.

    The last stage is cut to fit and its trials in proportion; a rest that is shorter than one
    trial lengthens the stage before it instead.

    >>> [(s.trial_steps, s.steps) for s in stages_within(3500)]
    [(100, 1000), (200, 2000), (50, 500)]
    >>> [(s.trial_steps, s.steps) for s in stages_within(3150)]
    [(100, 1000), (200, 2150)]
    """
    sizes = {
        "trial_steps": trial_steps,
        "stage_steps": stage_steps,
        "longest_stage": longest_stage,
    }
    table: list[Stage] = []
    left = steps
    # No stage is shorter than the first, so this many are enough.
    for stage in stage_table(-(-max(steps, 0) // stage_steps), **sizes):
        if left <= 0:
            break
        length = left if left < stage.steps + stage.trial_steps else stage.steps
        trial = math.ceil(stage.trial_steps * min(length, stage.steps) / stage.steps)
        trial = min(max(trial, _SHORTEST_TRIAL), stage.trial_steps)
        table.append(Stage(stage.index, trial, length, stage.validates))
        left -= length
    return tuple(table)


def cost_of_stages(stages: Iterable[Stage], trials: int = 10) -> Cost:
    """What the stages cost if no rate diverges."""
    kept = list(stages)
    return Cost(sum(s.steps for s in kept), trials * sum(s.trial_steps for s in kept))
