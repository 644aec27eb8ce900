"""Mixtures: each batch from several data sets, in shares that may change while training.

The shares are schedules, stages (`trainplan.data.Stage`), or decided by what the run reports.
Each data set has its own order, which adding another does not change, and its own position.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.curriculum import Curriculum
from trainplan.data.feedback import Feedback
from trainplan.data.hashing import stream_of
from trainplan.data.mixture_replay import REPLAY, Buffer, Replay
from trainplan.data.mixture_walk import Policy, Walk
from trainplan.data.order import Order
from trainplan.data.quotas import Counts
from trainplan.data.shares import Shares, Weights, by_name, resolved
from trainplan.data.sources import Source
from trainplan.data.step_numbers import nearest_multiples
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count, finite, is_number

_SLOTS = 1
"""The stream of the seed by which the domains of a step are laid out over its places."""


class Mixture(Source):
    """Batches from several data sets.

    Indices run through the data sets one after the other, in the order of ``sizes``: give the
    loader `Joined` data sets, or a concatenation.

    Args:
        sizes: Number of examples of each data set, by name; or the data sets themselves.
        weights: Weight of each at each step: schedules or numbers by name, in any unit; a list of
            `Stage`; or a `Feedback` whose decider gives one weight per data set, in their order.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: Of everything random.
        steps: Length of the run; None goes on until the data end, if they do.
        exact: Whether each step has the exact quotas; else each example's data set is drawn
            independently, for methods that assume so.
        per: What has the exact quotas. ``step``: a step as a whole, so that the order is the same
            on any number of ranks. A number: each of so many equal parts of a step. With that of
            its micro-batches, ranks * accumulation, each of them has the mixture, for losses that
            compare the examples of a micro-batch; the order then depends on this number.
        exhausted: What to do when a data set has been seen to its end, for all or by name:
            ``repeat`` it, shuffled anew [Hugging Face: nothing like it]; ``stop`` the run before
            the first step that would lack an example [first_exhausted]; ``cover``: repeat until
            every data set was seen once, then stop [all_exhausted]; ``drop`` it and go on with
            the others [all_exhausted_without_replacement]; ``error``.
        max_epochs: Drop a data set that is repeated so many times, for all or by name.
        difficulty: One number per example, by name, for data sets that open from easy to hard
            (see `Curriculum`); they are repeated for ever.
        pacing: Open share of those over time.
        hardest_first: Turn their rankings round.
        replay: Which examples come back, in a share that is the weight of ``replay``. As long as
            there are none, the others have its share.
        units_per_step: The schedules' units per step, if they do not count steps.

    >>> from trainplan.schedules import linear
    >>> mixture = Mixture(
    ...     {"web": 100, "math": 20}, {"web": linear(1.0, 0.5, duration=4), "math": 0.5}, 8
    ... )
    >>> [mixture.counts(t).tolist() for t in (0, 4)]
    [[5, 3], [4, 4]]
    >>> mixture.examples(0, 0, 8).shape, mixture.epochs(100)["math"]
    ((8,), 19.85)
    """

    def __init__(
        self,
        sizes: Mapping[str, Any],
        weights: Weights,
        global_batch: int,
        seed: int = 0,
        *,
        steps: int | None = None,
        exact: bool = True,
        per: Literal["step"] | int = "step",
        exhausted: Policy | Mapping[str, Policy] = "repeat",
        max_epochs: int | Mapping[str, int] | None = None,
        difficulty: Mapping[str, Any] | None = None,
        pacing: Schedule | float | None = None,
        hardest_first: bool = False,
        replay: Replay | None = None,
        units_per_step: float = 1.0,
    ) -> None:
        if not sizes:
            raise PlanError("a mixture needs a data set", place="sizes", value=sizes)
        self.names = tuple(sizes)
        self.sizes = np.array(
            [
                count(size if is_number(size) else len(size), f"sizes.{name}")
                for name, size in sizes.items()
            ],
            np.int64,
        )
        self.n = int(self.sizes.sum())
        self.orders = [
            Order(int(size), seed, stream=stream_of(name))
            for name, size in zip(self.names, self.sizes, strict=True)
        ]
        self.seed = self.orders[0].seed
        self.past = None if replay is None else Buffer(replay, self.orders, self.seed)
        if self.past is not None:
            self._add_replay(difficulty)
        self.global_batch = count(global_batch, "global_batch")
        self.parts = self._read_parts(per, exact)
        self.steps = None if steps is None else count(steps, "steps")
        self.exact, self.units_per_step = bool(exact), units_per_step
        horizon = None if self.steps is None else self.steps * units_per_step
        self.shares = Shares(self.names, weights, horizon, units_per_step)
        self.weights = self.shares.weights
        self.walk = Walk(
            self.shares,
            self.sizes,
            self.global_batch,
            self.seed,
            exact=self.exact,
            exhausted=exhausted,
            max_epochs=max_epochs,
            parts=self.parts,
            past=self.past,
        )
        self._offsets = np.cumsum(self.sizes) - self.sizes
        self.courses = self._read_courses(difficulty, pacing, hardest_first, horizon)
        self._laid: tuple[int, Indices] = (-1, np.empty(0, np.int64))
        if self.walk.finite and self.lag is None:
            self.steps = self.walk.find_end(self.steps)

    def _add_replay(self, difficulty: Any) -> None:
        """A last data set that has no examples of its own."""
        if REPLAY in self.names:
            raise PlanError("replay has this name", place=f"sizes.{REPLAY}", value=REPLAY)
        if difficulty:
            raise PlanError(
                "what was shown of data sets that open from easy to hard cannot be replayed",
                place="difficulty",
                value=sorted(difficulty),
            )
        self.names = (*self.names, REPLAY)
        self.sizes = np.append(self.sizes, 0)

    def _read_parts(self, per: Any, exact: bool) -> int:
        parts = 1 if per == "step" else count(per, "per")
        if self.global_batch % parts:
            raise PlanError(
                f"a step of {self.global_batch} examples has no {parts} equal parts",
                place="per",
                value=per,
                remedy=nearest_multiples(self.global_batch, parts),
            )
        if parts > 1 and not exact:
            raise PlanError(
                "independent draws have no quotas",
                place="per",
                value=per,
                remedy="Give exact=True, or leave per away",
            )
        return parts

    def check_parts(self, parts: int) -> None:
        if self.parts > 1 and self.parts % parts:
            raise PlanError(
                f"quotas are of {self.parts} parts of a step, which are not whole micro-batches "
                f"if there are {parts}",
                place="per",
                value=self.parts,
                remedy=f"Give per={parts} (ranks * accumulation), or per='step'",
            )

    def _read_courses(
        self,
        difficulty: Mapping[str, Any] | None,
        pacing: Any,
        hardest_first: bool,
        horizon: float | None,
    ) -> dict[int, Curriculum]:
        """Curricula by the number of their data set."""
        given = by_name(self.names, difficulty or {}, "difficulty", None)
        courses: dict[int, Curriculum] = {}
        for k, (name, values) in enumerate(given.items()):
            if values is None:
                continue
            if (
                self.lag is not None
                or self.walk.exhausted[name] != "repeat"
                or self.walk.max_epochs[name]
            ):
                raise PlanError(
                    "a data set that opens from easy to hard is repeated, in shares that do not "
                    "depend on what the run reports",
                    place=f"difficulty.{name}",
                    value=self.walk.exhausted[name],
                    remedy="Give exhausted='repeat' and weights that are schedules",
                )
            if pacing is None:
                raise PlanError("a difficulty needs a pacing", place="pacing", value=None)
            course = Curriculum(
                values,
                resolved(pacing, "pacing", horizon),
                seed=self.seed,
                least=int(min(self.global_batch, self.sizes[k])),
                hardest_first=hardest_first,
                units_per_step=self.units_per_step,
            )
            if course.n != self.sizes[k]:
                raise PlanError(
                    f"{course.n} difficulties for {self.sizes[k]} examples",
                    place=f"difficulty.{name}",
                    value=course.n,
                )
            course.stream = stream_of(name)
            course.step_of = partial(self.walk.step_of, k)
            courses[k] = course
        return courses

    @property
    def lag(self) -> int | None:
        return self.shares.lag

    # What is drawn

    def cursors(self, step: int) -> Counts:
        """(k,) examples of each data set that were shown before a step."""
        return self.walk.cursors(step)

    def counts(self, step: int) -> Counts:
        """(k,) examples of each data set in a step."""
        return self.cursors(step + 1) - self.cursors(step)

    def epochs(self, steps: int) -> dict[str, float]:
        """How often each data set has been read after so many steps, known before the run."""
        own = len(self.orders)
        times = (self.cursors(steps)[:own] / self.sizes[:own]).round(6).tolist()
        return dict(zip(self.names, times, strict=False))

    def exists(self, step: int) -> bool:
        if not super().exists(step):
            return False
        if self.walk.finite:
            self.cursors(step + 1)
        return self.walk.end is None or step < self.walk.end

    def labels(self, step: int) -> Counts:
        """(global_batch,) data set of each place of a step, by its number."""
        if not self.exact:
            return self.walk.labels(step)
        size = self.global_batch // self.parts
        places, first = Order(size, self.seed, stream=_SLOTS), step * self.parts
        counts = self.counts(step)[None] if self.parts == 1 else self.walk.part_counts(step)
        numbers = np.arange(len(self.names))
        parts = [
            np.repeat(numbers, row)[places.stretch(first + part, 0, size)]
            for part, row in enumerate(counts)
        ]
        return np.concatenate(parts)

    def examples(self, step: int, first: int, last: int) -> Indices:
        if self._laid[0] != step:
            self._laid = (step, self._lay_out(step))
        return self._laid[1][first:last].copy()

    def _lay_out(self, step: int) -> Indices:
        labels, cursors = self.labels(step), self.cursors(step)
        indices = np.empty(labels.size, np.int64)
        for k, order in enumerate(self.orders):
            places = np.flatnonzero(labels == k)
            read = self.courses[k].take if k in self.courses else order.block
            indices[places] = self._offsets[k] + read(int(cursors[k]), places.size)
        again = np.flatnonzero(labels == len(self.orders))
        if self.past is not None and again.size:
            weights, drawn = self.walk.weights_at(step)[:-1], int(cursors[-1])
            indices[again] = self.past.draw(step, again.size, drawn, cursors[:-1], weights)
        return indices

    # State

    def state(self, step: int) -> dict[str, Any]:
        state: dict[str, Any] = {"cursors": self.cursors(step).tolist()}
        if isinstance(self.weights, Feedback):
            state["feedback"] = self.weights.state(step)
        return state

    def load(self, state: dict[str, Any], step: int) -> None:
        cursors = np.asarray(state.get("cursors", []), np.int64)
        if isinstance(self.weights, Feedback):
            if cursors.size != len(self.names) or "feedback" not in state:
                raise PlanError("not a state of this mixture", place="state.source", value=state)
            self.weights.load(state["feedback"])
            self.walk.go_on(step, cursors)
            self._laid = (-1, self._laid[1])
            return
        if not np.array_equal(cursors, self.cursors(step)):
            raise PlanError(
                f"other positions were reached at step {step}: {self.cursors(step).tolist()}",
                place="state.source.cursors",
                value=cursors.tolist(),
                remedy="Give the sizes and weights that the run began with",
            )

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "source": "mixture",
            "sizes": [list(self.names), self.sizes.tolist()],
            "weights": self.shares.told(),
            "exact": self.exact,
            "exhausted": [self.walk.exhausted, self.walk.max_epochs],
            "units_per_step": self.units_per_step,
        }
        if self.past is not None:
            settings["replay"] = self.past.replay.plain()
        if self.parts > 1:
            settings["per"] = self.parts
        if self.courses:
            settings["courses"] = [
                [self.names[k], course.ranking.digest, course.settings()["pacing"]]
                for k, course in self.courses.items()
            ]
        return settings


def temperature_weights(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Weights that favour small data sets: size^(1/T), normalised.

    T = 1 takes each in proportion to its size, a large T all alike.

    >>> temperature_weights({"web": 900, "math": 100}, 2.0)
    {'web': 0.75, 'math': 0.25}
    """
    from trainplan.data.mixture import normalised

    power = 1 / finite(temperature, "temperature")
    return normalised({name: finite(size, name) ** power for name, size in sizes.items()})
