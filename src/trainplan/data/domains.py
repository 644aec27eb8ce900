"""Open domains from near to far: cameras, sites, scanners, sessions without labels.

Domains join in ascending order of their distance to the labelled source, so that pseudo-labels are
first made where the model is still right. Lee et al., 2023, "Camera-Driven Representation Learning
for Unsupervised Domain Adaptive Person Re-identification", ICCV 2023, arXiv 2308.11901. Only the
abstract says so much: the estimator, the stages and the handling of small domains are our design.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.difficulty import group_difficulty
from trainplan.data.feedback import Tally
from trainplan.data.mixture import Stage, normalised
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.phases import Constant, Hold
from trainplan.schedules.phases import Sequence as Phases
from trainplan.schedules.values import count, finite

Indices = npt.NDArray[np.int64]


def near_to_far(distances: Mapping[Any, float]) -> list[Any]:
    """Domains in ascending order of distance, equally far ones by name.

    >>> near_to_far({"b": 0.5, "a": 0.5, "c": 0.1})
    ['c', 'a', 'b']
    """
    names = sorted(distances)
    values = np.asarray([finite(distances[name], f"distances[{name!r}]") for name in names])
    # Equal up to rounding is equal.
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    return [names[i] for i in np.argsort(np.round(values / scale, 12), kind="stable")]


def stages_open(stages: int, epochs: int, final_epochs: int | None, epoch: Any) -> Any:
    """How many stages are open at an epoch, or at each of an array of epochs.

    All epochs but the final ones are shared out evenly among the stages; in the final ones, and
    past the end, all are open. If there are fewer epochs than stages, some open together.

    Args:
        stages: Number of stages.
        epochs: Length of the run.
        final_epochs: Epochs at the end that are kept for all; by default a sixth, at least one.
        epoch: From 0.

    Raises:
        PlanError: If a number cannot be meant.

    >>> stages_open(6, 50, 8, np.array([0, 7, 41, 49, 60])).tolist()
    [1, 2, 6, 6, 6]
    """
    number, length = count(stages, "stages"), count(epochs, "epochs")
    final = max(1, length // 6) if final_epochs is None else final_epochs
    main = length - count(final, "final_epochs", least=0, most=length)
    times = np.asarray(epoch, dtype=np.int64)
    if times.size and times.min() < 0:
        raise PlanError("epochs count from 0", place="epoch", value=int(times.min()))
    early = np.minimum(number, 1 + times * number // max(main, 1))
    opened = np.where(times < main, early, number)
    return opened if times.ndim else int(opened)


class DomainCurriculum:
    """Which domains are open at each epoch, nearest first.

    It feeds whatever reads data: `members` are the examples to pseudo-label; `mixture` is a list of
    stages for a `Mixture` of named data sets; `difficulty` and `pacing` are those of a `Curriculum`
    over one data set with a column of domains; as the decider of a `Feedback` it follows distances
    that the run reports.

    Args:
        distances: Distance to the source by domain, such as `domain_distances`.
        epochs: Length of the run.
        final_epochs: Epochs at the end with all domains; by default a sixth, at least one.
        sizes: Examples by domain. Domains below ``least`` open together with the next one, the last
            with the one before. Needed for `mixture`.
        least: See above.
        steps_per_epoch: Optimizer steps of an epoch, for everything that counts steps.
        always: Shares of other data sets that a mixture reads throughout, such as the labelled
            source; less than 1 in sum.

    Attributes:
        stages: The domains that each stage opens, in order.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> curriculum = DomainCurriculum({"night": 0.9, "day": 0.1, "dusk": 0.4}, epochs=8)
    >>> [curriculum.active(epoch) for epoch in (0, 3, 7)]
    [['day'], ['day', 'dusk'], ['day', 'dusk', 'night']]
    """

    def __init__(
        self,
        distances: Mapping[Any, float],
        epochs: int,
        *,
        final_epochs: int | None = None,
        sizes: Mapping[Any, int] | None = None,
        least: int = 16,
        steps_per_epoch: int = 1,
        always: Mapping[str, float] | None = None,
    ) -> None:
        if not distances:
            raise PlanError("there are no domains", place="distances", value=dict(distances))
        self.epochs, self.final_epochs = count(epochs, "epochs"), final_epochs
        self.least = count(least, "least", least=0)
        self.steps_per_epoch = count(steps_per_epoch, "steps_per_epoch")
        self.sizes = None if sizes is None else _sizes(distances, sizes)
        shares = always or {}
        self.always = {name: finite(share, f"always.{name}") for name, share in shares.items()}
        if min(self.always.values(), default=0.0) < 0 or sum(self.always.values()) >= 1:
            remedy = "Leave something for the domains"
            raise PlanError("no such shares", place="always", value=self.always, remedy=remedy)
        self.distances = dict(distances)
        self.stages = self._stages(near_to_far(distances))
        self.opened(0)  # checks the epochs

    def _stages(self, order: Iterable[Any]) -> list[list[Any]]:
        stages: list[list[Any]] = []
        waiting: list[Any] = []
        for name in order:
            waiting.append(name)
            if self.sizes is None or self.sizes[name] >= self.least:
                stages.append(waiting)
                waiting = []
        if waiting and stages:
            stages[-1] += waiting
        return stages or [waiting]

    @property
    def order(self) -> list[Any]:
        """All domains, in the order in which they open."""
        return [name for stage in self.stages for name in stage]

    def opened(self, epoch: Any) -> Any:
        """How many stages are open at an epoch, or at each of an array of epochs."""
        return stages_open(len(self.stages), self.epochs, self.final_epochs, epoch)

    def active(self, epoch: int) -> list[Any]:
        """The domains that are open at an epoch."""
        return [name for stage in self.stages[: self.opened(epoch)] for name in stage]

    # What reads it

    def difficulty(self, domains: Any) -> Indices:
        """(n,) stage that opens each example, from 0: the difficulty of a `Curriculum`.

        Args:
            domains: (n,) domain of each example.
        """
        return group_difficulty(domains, self.stages)

    def members(self, epoch: int, domains: Any) -> Indices:
        """The examples that are open at an epoch."""
        return np.flatnonzero(self.difficulty(domains) < self.opened(epoch))

    def changes(self) -> list[int]:
        """The epochs at which something opens, 0 among them."""
        opened = self.opened(np.arange(self.epochs))
        return np.flatnonzero(np.diff(opened, prepend=0)).tolist()

    def pacing(self) -> Schedule:
        """The last open stage over the steps, for ``Curriculum(..., by="value")``.

        >>> DomainCurriculum({"a": 1.0, "b": 2.0}, 4, steps_per_epoch=10).pacing()([0, 19, 20])
        array([0., 0., 1.])
        """
        changes = self.changes()
        last = [float(self.opened(epoch) - 1) for epoch in changes]
        if len(changes) == 1:
            return Constant(last[0])
        ends = [Duration(epoch * self.steps_per_epoch) for epoch in changes[1:]]
        holds = [Hold(value, until=end) for value, end in zip(last[:-1], ends, strict=True)]
        return Phases(*holds, Hold(last[-1]))

    def mixture(self) -> list[Stage]:
        """Stages for a `Mixture` of data sets by name, each in proportion to its size.

        >>> sizes = {"near": 300, "far": 100}
        >>> distances, share = {"near": 0.1, "far": 0.9}, {"source": 0.5}
        >>> found = DomainCurriculum(distances, 4, sizes=sizes, always=share).mixture()
        >>> [stage.length for stage in found], dict(found[1].weights)
        ([2.0, 2.0], {'source': 0.5, 'near': 0.375, 'far': 0.125})
        """
        changes = self.changes()
        ends = [*changes[1:], self.epochs]
        return [
            Stage((end - begin) * self.steps_per_epoch, self._weights(begin))
            for begin, end in zip(changes, ends, strict=True)
        ]

    def _weights(self, epoch: int) -> dict[str, float]:
        if self.sizes is None:
            remedy = "Give sizes={domain: number of examples}"
            raise PlanError("not known", place="sizes", value=None, remedy=remedy)
        rest = 1 - sum(self.always.values())
        shares = normalised({name: self.sizes[name] for name in self.active(epoch)})
        return self.always | {str(name): rest * share for name, share in shares.items()}

    # Distances that change

    def update(self, epoch: int, distances: Mapping[Any, float]) -> None:
        """Rank the domains anew that are not open before an epoch; the others stay.

        With features of the current model this is the greedy order: at every change of stage, the
        nearest of the remaining domains comes next.

        Args:
            epoch: The first one that may see the change.
            distances: By domain, of all that are still closed; others are ignored.

        Raises:
            PlanError: If one is missing.
        """
        kept = self.stages[: self.opened(epoch - 1) if epoch else 0]
        waiting = [name for stage in self.stages[len(kept) :] for name in stage]
        missing = [name for name in waiting if name not in distances]
        if missing:
            remedy = f"Give the distance of {missing[0]!r}"
            raise PlanError("not all are given", place="distances", value=missing, remedy=remedy)
        self.distances |= {name: float(distances[name]) for name in waiting}
        if waiting:
            order = near_to_far({name: distances[name] for name in waiting})
            self.stages = kept + self._stages(order)

    def value(self, t: float) -> dict[str, float]:
        """The shares at step ``t``, as the decider of a mixture's `Feedback`."""
        return self._weights(int(t) // self.steps_per_epoch)

    def observe(self, t: float, **signals: Any) -> None:
        """Hear what step ``t`` reported: only ``distance``, by domain, counts."""
        told = signals.get("distance")
        if isinstance(told, Tally):
            found = dict(zip(told.keys, told.means.tolist(), strict=True))
            self.update(int(t + 1) // self.steps_per_epoch, found)

    def plain(self) -> Any:
        """What the order began with, as plain data."""
        return {
            "domains": sorted(map(str, self.distances)),
            "epochs": [self.epochs, self.final_epochs, self.steps_per_epoch],
            "sizes": None if self.sizes is None else sorted(map(list, self.sizes.items()), key=str),
            "least": self.least,
            "always": self.always,
        }

    def state_dict(self) -> dict[str, Any]:
        """The stages and the distances, which only `update` changes."""
        return {
            "stages": [list(stage) for stage in self.stages],
            "distances": [[name, value] for name, value in self.distances.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If it is of other domains.
        """
        stages = state.get("stages", [])
        if {name for stage in stages for name in stage} != set(self.distances):
            raise PlanError("the state is of other domains", place="state.stages", value=stages)
        self.stages = [list(stage) for stage in stages]
        self.distances = {name: float(value) for name, value in state["distances"]}


def _sizes(distances: Mapping[Any, float], sizes: Mapping[Any, int]) -> dict[Any, int]:
    for name in distances:
        if name not in sizes:
            remedy = f"Give the size of {name!r}"
            raise PlanError("not all are given", place="sizes", value=dict(sizes), remedy=remedy)
    return {name: count(sizes[name], f"sizes[{name!r}]") for name in distances}
