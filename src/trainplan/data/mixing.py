"""Mixtures: each batch from several data sets, in shares that may change while training.

The shares are schedules, stages (`trainplan.data.Stage`), or decided by what the run reports.
Each data set has its own order, which adding another does not change, and its own position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.curriculum import Curriculum
from trainplan.data.feedback import Feedback
from trainplan.data.hashing import hashed, key, stream_of
from trainplan.data.mixture import Stage, mixture_at
from trainplan.data.order import Order
from trainplan.data.quotas import (
    CHOICE,
    Counts,
    Floats,
    capped_counts,
    labels_at,
    quota_counts,
    turns,
)
from trainplan.data.sources import Source
from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Constant
from trainplan.schedules.values import count, digest_of, finite, is_number

Policy = Literal["repeat", "stop", "cover", "drop", "error"]
POLICIES = ("repeat", "stop", "cover", "drop", "error")
_SLOTS = 1
"""The stream of the seed by which the domains of a step are laid out over its places."""
_CHUNK = 1024
_LONGEST = 1 << 22
"""So many steps are gone through at most to find the end of a run."""


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
        weights: Mapping[str, Schedule | float] | Sequence[Stage] | Feedback,
        global_batch: int,
        seed: int = 0,
        *,
        steps: int | None = None,
        exact: bool = True,
        exhausted: Policy | Mapping[str, Policy] = "repeat",
        max_epochs: int | Mapping[str, int] | None = None,
        difficulty: Mapping[str, Any] | None = None,
        pacing: Schedule | float | None = None,
        hardest_first: bool = False,
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
        self.global_batch = count(global_batch, "global_batch")
        self.steps = None if steps is None else count(steps, "steps")
        self.exact, self.units_per_step = bool(exact), units_per_step
        self.exhausted = self._by_name(exhausted, "exhausted", "repeat")
        for name, policy in self.exhausted.items():
            if policy not in POLICIES:
                raise PlanError(
                    "unknown",
                    place=f"exhausted.{name}",
                    value=policy,
                    remedy=nearest(str(policy), POLICIES),
                )
        self.max_epochs = self._by_name(max_epochs, "max_epochs", None)
        self.weights = self._read(weights)
        self._offsets = np.cumsum(self.sizes) - self.sizes
        self._caps = self._limits()
        self._droppable = np.isfinite(self._caps) & np.array(
            [
                self.max_epochs[name] is not None or self.exhausted[name] == "drop"
                for name in self.names
            ]
        )
        self._cover = np.array([self.exhausted[name] == "cover" for name in self.names])
        self._starts = [np.zeros(len(self.names), np.int64)]
        self._chunks: dict[int, tuple[Counts, Floats]] = {}
        self._walked: dict[int, Counts] = {0: self._starts[0]}
        self._end: int | None = None
        self.courses = self._read_courses(difficulty, pacing, hardest_first)
        self._laid: tuple[int, Indices] = (-1, np.empty(0, np.int64))
        if self._finite and self.lag is None:
            self._find_end()

    def _by_name(self, given: Any, place: str, default: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.names, default if given is None else given)
        for name in given:
            if name not in self.names:
                raise PlanError(
                    "no such data set",
                    place=f"{place}.{name}",
                    value=given[name],
                    remedy=nearest(str(name), self.names),
                )
        return {name: given.get(name, default) for name in self.names}

    def _read(self, weights: Any) -> dict[str, Schedule] | tuple[Stage, ...] | Feedback:
        if isinstance(weights, Feedback):
            if weights.keys is None:
                weights.keys = self.names
            return weights
        if isinstance(weights, Mapping):
            given = self._by_name(weights, "weights", 0.0)
            return {name: self._schedule(name, value) for name, value in given.items()}
        stages = tuple(weights)
        for i, stage in enumerate(stages):
            self._by_name(stage.weights, f"weights[{i}]", 0.0)
        return stages

    def _schedule(self, name: str, value: Any) -> Schedule:
        if not isinstance(value, Schedule):
            return Constant(finite(value, f"weights.{name}"))
        if not value.needs_horizon:
            return value
        if self.steps is None:
            raise PlanError(
                "a share of the run needs its length",
                place=f"weights.{name}",
                value=value,
                remedy="Give steps=..., or the schedule's resolve(steps)",
            )
        horizon = self.steps * self.units_per_step
        return value.resolve(int(horizon) if float(horizon).is_integer() else horizon)

    def _read_courses(
        self, difficulty: Mapping[str, Any] | None, pacing: Any, hardest_first: bool
    ) -> dict[int, Curriculum]:
        """Curricula by the number of their data set."""
        given = self._by_name(difficulty or {}, "difficulty", None)
        courses: dict[int, Curriculum] = {}
        for k, (name, values) in enumerate(given.items()):
            if values is None:
                continue
            if self.lag is not None or self.exhausted[name] != "repeat" or self.max_epochs[name]:
                raise PlanError(
                    "a data set that opens from easy to hard is repeated, in shares that do not "
                    "depend on what the run reports",
                    place=f"difficulty.{name}",
                    value=self.exhausted[name],
                    remedy="Give exhausted='repeat' and weights that are schedules",
                )
            if pacing is None:
                raise PlanError("a difficulty needs a pacing", place="pacing", value=None)
            course = Curriculum(
                values,
                self._schedule("pacing", pacing),
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
            course.step_of = partial(self._step_of, k)
            courses[k] = course
        return courses

    def _step_of(self, k: int, cursor: int) -> int:
        """The step that shows the example of a data set at a cursor."""
        chunk = 0
        while self._chunk(chunk)[0][-1][k] <= cursor:
            chunk += 1
        inside = np.searchsorted(self._chunk(chunk)[0][:, k], cursor, side="right")
        return chunk * _CHUNK + int(inside) - 1

    def _limits(self) -> Floats:
        """(k,) examples of each data set that may be shown."""
        caps = np.full(len(self.names), np.inf)
        for k, name in enumerate(self.names):
            epochs = self.max_epochs[name]
            if epochs is not None:
                caps[k] = count(epochs, f"max_epochs.{name}") * self.sizes[k]
            elif self.exhausted[name] not in ("repeat", "cover"):
                caps[k] = self.sizes[k]
        return caps

    @property
    def _finite(self) -> bool:
        return bool(np.isfinite(self._caps).any() or self._cover.any())

    @property
    def lag(self) -> int | None:
        return self.weights.lag if isinstance(self.weights, Feedback) else None

    # Shares

    def shares(self, steps: Indices) -> Floats:
        """(t, k) share of each data set at steps (t,), as planned.

        Raises:
            PlanError: If a weight is below zero or no number, or all are zero.
        """
        if isinstance(self.weights, Feedback):
            rows = [self._decided(int(step)) for step in steps]
            weights = np.asarray(rows, dtype=np.float64)
        elif isinstance(self.weights, tuple):
            stages = [mixture_at(self.weights, t * self.units_per_step) for t in steps.tolist()]
            weights = np.array([[stage.get(n, 0.0) for n in self.names] for stage in stages])
        else:
            times = steps * self.units_per_step
            weights = np.stack(
                [np.asarray(self.weights[name](times)) for name in self.names], axis=1
            )
        bad = np.argwhere(~(np.isfinite(weights) & (weights >= 0)))
        if bad.size:
            t, k = bad[0]
            raise PlanError(
                f"must be a number not below zero at step {steps[t]}",
                place=f"weights.{self.names[k]}",
                value=float(weights[t, k]),
            )
        sums = weights.sum(axis=1, keepdims=True)
        if not sums.all():
            t = int(np.flatnonzero(sums == 0)[0])
            raise PlanError(f"all are zero at step {steps[t]}", place="weights", value=0.0)
        shares: Floats = weights / sums
        return shares

    def _decided(self, step: int) -> list[float]:
        assert isinstance(self.weights, Feedback)  # noqa: S101 - only then asked
        value = self.weights.decide(step)
        if isinstance(value, Mapping):
            value = [value.get(name, 0.0) for name in self.names]
        weights = np.asarray(value, dtype=np.float64).tolist()
        if not isinstance(weights, list) or len(weights) != len(self.names):
            raise PlanError(
                f"{len(self.names)} data sets need as many weights", place="weights", value=weights
            )
        return weights

    # Walking through the run

    def cursors(self, step: int) -> Counts:
        """(k,) examples of each data set that were shown before a step."""
        if self.lag is not None:
            return self._cursors_decided(step)
        chunk, inside = divmod(step, _CHUNK)
        cursors: Counts = self._chunk(chunk)[0][inside]
        return cursors

    def counts(self, step: int) -> Counts:
        """(k,) examples of each data set in a step."""
        return self.cursors(step + 1) - self.cursors(step)

    def epochs(self, steps: int) -> dict[str, float]:
        """How often each data set has been read after so many steps, known before the run."""
        return dict(
            zip(self.names, (self.cursors(steps) / self.sizes).round(6).tolist(), strict=True)
        )

    def _cursors_decided(self, step: int) -> Counts:
        if step not in self._walked:
            before = self._cursors_decided(step - 1) if step - 1 in self._walked else None
            if before is None:
                raise PlanError(
                    f"step {step} cannot be reached without those before it",
                    place="step",
                    value=step,
                    remedy="Load the state of that step",
                )
            taken = self._step(step - 1, before, self.shares(np.array([step - 1]))[0])
            after = before if taken is None else before + taken
            if taken is None:
                self._end = step - 1
            self._look_for_cover(step - 1, np.stack([before, after]))
            self._walked[step] = after
            kept = step - 2 * (self.lag or 0) - 8
            self._walked = {s: c for s, c in self._walked.items() if s >= kept}
        return self._walked[step]

    def _chunk(self, index: int) -> tuple[Counts, Floats]:
        """Cursors (_CHUNK + 1, k) at the steps of a chunk and after it; shares (_CHUNK, k)."""
        while len(self._starts) <= index + 1:
            last = len(self._starts) - 1
            self._keep(last)
            self._starts.append(self._chunks[last][0][-1])
        if index not in self._chunks:
            self._keep(index)
        return self._chunks[index]

    def _keep(self, index: int) -> None:
        first = index * _CHUNK
        shares = self.shares(np.arange(first, first + _CHUNK))
        walked = self._walk(first, self._starts[index], shares)
        self._chunks = {**dict(list(self._chunks.items())[-1:]), index: (walked, shares)}

    def _walk(self, first: int, before: Counts, shares: Floats) -> Counts:
        """Cursors at _CHUNK steps from ``first`` on, and after the last of them."""
        steps = np.arange(first, first + _CHUNK)
        cursors = np.empty((_CHUNK + 1, before.size), np.int64)
        cursors[0], done = before, 0
        while done < _CHUNK:
            if self._end is not None and first + done >= self._end:
                cursors[done + 1 :] = cursors[done]
                break
            good = self._undisturbed(steps[done:], cursors[done], shares[done:])
            cursors[done + 1 : done + 1 + len(good)] = good
            done += len(good)
            if done < _CHUNK:
                taken = self._step(first + done, cursors[done], shares[done])
                if taken is None:
                    self._end = first + done
                    continue
                cursors[done + 1] = cursors[done] + taken
                done += 1
        self._look_for_cover(first, cursors)
        return cursors

    def _undisturbed(self, steps: Indices, before: Counts, shares: Floats) -> Counts:
        """(t, k) cursors after each step, up to the first step that uses a data set up."""
        weights = np.where(self._dropped(before), 0.0, shares)
        some = weights.any(axis=1)
        number = len(steps) if some.all() else int(np.argmin(some))
        sums = before + np.cumsum(self._planned(steps[:number], weights[:number]), axis=0)
        used_up = (sums > self._caps) | (self._droppable & (sums >= self._caps))
        disturbed = (used_up & ~self._dropped(before)).any(axis=1)
        after: Counts = sums[: int(np.argmax(disturbed))] if disturbed.any() else sums
        return after

    def _dropped(self, cursors: Counts) -> Any:
        """(k,) which data sets are used up and go without."""
        return self._droppable & (cursors >= self._caps)

    def _look_for_cover(self, first: int, cursors: Counts) -> None:
        if self._end is not None or not self._cover.any():
            return
        covered = (cursors[1:] >= self.sizes)[:, self._cover].all(axis=1)
        if covered.any():
            self._end = first + int(np.argmax(covered)) + 1

    def _planned(self, steps: Indices, weights: Floats) -> Counts:
        """(t, k) counts if nothing runs out."""
        if self.exact:
            return quota_counts(self.global_batch, weights, turns(self.seed, steps))
        counts = np.empty(weights.shape, np.int64)
        for i, step in enumerate(steps.tolist()):
            labels = labels_at(self._bits(step), weights[i])
            counts[i] = np.bincount(labels, minlength=len(self.names))
        return counts

    def _bits(self, step: int) -> Any:
        first = step * self.global_batch
        positions = np.arange(first, first + self.global_batch, dtype=np.uint64)
        return hashed(positions, key(self.seed, CHOICE))

    def _step(self, step: int, cursors: Counts, shares: Floats) -> Counts | None:
        """(k,) counts of one step, in which data may run out; None if the run ends before it."""
        left = self._caps - cursors
        weights = np.where(self._dropped(cursors), 0.0, shares)
        if not weights.any():
            return None
        wanted = self._planned(np.array([step]), weights[None])[0]
        for k in np.flatnonzero((wanted > left) & ~self._droppable):
            if self.exhausted[self.names[k]] == "stop":
                return None
            raise PlanError(
                f"the data set is used up at step {step}",
                place=f"exhausted.{self.names[k]}",
                value="error",
                remedy="Train for fewer steps, give it less weight, or repeat it",
            )
        if self.exact:
            offset = float(turns(self.seed, np.array([step]))[0])
            return capped_counts(self.global_batch, weights, offset, left)
        labels = self._labels_drawn(step, weights, left)
        return None if labels is None else np.bincount(labels, minlength=len(self.names))

    def _labels_drawn(self, step: int, weights: Floats, left: Floats) -> Counts | None:
        """(global_batch,) independent draws; places that find nothing left draw among the rest."""
        if not weights.any():
            return None
        bits = self._bits(step)
        labels = labels_at(bits, weights)
        while True:
            over = np.zeros(labels.size, bool)
            for k in np.flatnonzero(np.bincount(labels, minlength=left.size) > left):
                over[np.flatnonzero(labels == k)[int(left[k]) :]] = True
                weights = np.where(np.arange(left.size) == k, 0.0, weights)
            if not over.any():
                return labels
            if not weights.any():
                return None
            labels[over] = labels_at(bits[over], weights)

    def _find_end(self) -> None:
        limit = _LONGEST if self.steps is None else self.steps
        step = 0
        while self._end is None and step < limit:
            self._chunk(step // _CHUNK)
            step += _CHUNK
        if self._end is not None:
            self.steps = self._end if self.steps is None else min(self.steps, self._end)

    def exists(self, step: int) -> bool:
        if not super().exists(step):
            return False
        if self._finite:
            self.cursors(step + 1)
        return self._end is None or step < self._end

    # What is drawn

    def labels(self, step: int) -> Counts:
        """(global_batch,) data set of each place of a step, by its number."""
        before = self.cursors(step)
        if not self.exact:
            left = self._caps - before
            weights = np.where(self._dropped(before), 0.0, self._shares_at(step))
            drawn = self._labels_drawn(step, weights, left)
            assert drawn is not None  # noqa: S101 - else the run had ended
            return drawn
        in_turn = np.repeat(np.arange(len(self.names)), self.counts(step))
        places = Order(self.global_batch, self.seed, stream=_SLOTS)
        return in_turn[places.stretch(step, 0, self.global_batch)]

    def _shares_at(self, step: int) -> Floats:
        chunk, inside = divmod(step, _CHUNK)
        listens = self.lag is not None
        table = self.shares(np.array([step])) if listens else self._chunk(chunk)[1]
        shares: Floats = table[0 if listens else inside]
        return shares

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
            self._walked, self._end = {step: cursors}, None
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
        weights = self.weights
        if isinstance(weights, Feedback):
            plain = getattr(weights.decider, "plain", None)
            told: Any = [plain() if plain else type(weights.decider).__name__, weights.lag]
        elif isinstance(weights, tuple):
            told = [[stage.length, dict(stage.weights)] for stage in weights]
        else:
            told = [[name, schedule.digest] for name, schedule in weights.items()]
        courses = {
            "courses": [
                [self.names[k], course.ranking.digest, course.settings()["pacing"]]
                for k, course in self.courses.items()
            ]
        }
        return (courses if self.courses else {}) | {
            "source": "mixture",
            "sizes": [list(self.names), self.sizes.tolist()],
            "weights": digest_of(told),
            "exact": self.exact,
            "exhausted": [self.exhausted, self.max_epochs],
            "units_per_step": self.units_per_step,
        }


def temperature_weights(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Weights that favour small data sets: size^(1/T), normalised.

    T = 1 takes each in proportion to its size, a large T all alike.

    >>> temperature_weights({"web": 900, "math": 100}, 2.0)
    {'web': 0.75, 'math': 0.25}
    """
    from trainplan.data.mixture import normalised

    power = 1 / finite(temperature, "temperature")
    return normalised({name: finite(size, name) ** power for name, size in sizes.items()})
