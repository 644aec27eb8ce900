"""Curricula: the data opens from easy to hard as a pacing says, and is shuffled where it is open.

The order is a function of the step, the difficulty and the pacing alone. Bengio et al., 2009,
"Curriculum Learning", had the idea; `trainplan.data.pacing` names the usual pacings, and
`trainplan.data.controls` the two arms without which a curriculum's gain means little.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Indices
from trainplan.data.difficulty import Ranking, checked_difficulty
from trainplan.data.feedback import Feedback
from trainplan.data.order import Order
from trainplan.data.sources import Source
from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.phases import Constant
from trainplan.schedules.values import count, is_number

By = Literal["fraction", "value"]
Within = Literal["pass", "draw", "sorted"]
_BY, _WITHIN, _EMPTY = ("fraction", "value"), ("pass", "draw", "sorted"), ("error", "least")


class Curriculum(Source):
    """Batches from the open part of the data, easiest first.

    Args:
        difficulty: (n,) one number per example, smaller is easier; or a `Ranking`.
        pacing: The open fraction over time: a schedule (`trainplan.data.pacing`), a number, or a
            `Feedback` whose decider says it from what the run reports.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: Of ties and shuffles.
        steps: Length of the run, as a rule that of the baseline, so that both see as many
            samples; None goes on for ever.
        by: What the pacing means. ``fraction``: the easiest ceil(c n) examples are open.
            ``value``: those of at most that difficulty, so that ties open together.
        within: Which open example comes next. ``pass``: each open example once in random order,
            then again; what opens meanwhile waits for the next pass. ``draw``: each step draws
            its examples anew, all different; what has opened appears at once. ``sorted``: once
            from easy to hard (no pacing), then shuffled epochs.
        least: At least so many examples are open; by default a step's, for fractions.
        on_empty: What if no example is open, by value: ``error``, or ``least`` to open these.
        hardest_first: Open the hardest first (anti-curriculum).
        units_per_step: The pacing's units per step, if it does not count steps.

    Attributes:
        ranking: The ranking now in use.

    >>> from trainplan.data import pacing
    >>> course = Curriculum([3.0, 1, 2, 4], pacing("linear", 0.5, full_at=4), 2, steps=6)
    >>> [course.open_at(t) for t in range(5)]
    [2, 3, 3, 4, 4]
    >>> sorted(course.examples(0, 0, 2).tolist())
    [1, 2]
    """

    def __init__(
        self,
        difficulty: npt.ArrayLike | Ranking,
        pacing: Schedule | float | Feedback | None = None,
        global_batch: int = 1,
        seed: int = 0,
        *,
        steps: int | None = None,
        by: By = "fraction",
        within: Within = "pass",
        least: int | None = None,
        on_empty: Literal["error", "least"] = "error",
        hardest_first: bool = False,
        units_per_step: float = 1.0,
    ) -> None:
        for name, value, known in (
            ("by", by, _BY),
            ("within", within, _WITHIN),
            ("on_empty", on_empty, _EMPTY),
        ):
            if value not in known:
                raise PlanError("unknown", place=name, value=value, remedy=nearest(value, known))
        self.ranking = (
            difficulty
            if isinstance(difficulty, Ranking)
            else Ranking(difficulty, seed, hardest_first=hardest_first)
        )
        self.n, self.seed = self.ranking.n, Order(self.ranking.n, seed).seed
        self.global_batch = count(global_batch, "global_batch")
        self.steps = None if steps is None else count(steps, "steps")
        self.by, self.within, self.on_empty = by, within, on_empty
        self.least = count(
            min(self.global_batch, self.n) if least is None else least, "least", most=self.n
        )
        self.units_per_step = units_per_step
        self.pacing = self._read(pacing)
        self._rankings: list[tuple[int, Ranking]] = [(0, self.ranking)]
        self._passes = _Passes()
        self._orders: dict[int, Order] = {}
        self.stream = 0
        """Of the seed; a part of a mixture has its own."""
        self.step_of = self._step_of
        """The step of a position; in a mixture it depends on the shares."""

    def _read(self, pacing: Any) -> Schedule | Feedback:
        if (pacing is None) != (self.within == "sorted"):
            what = "takes no pacing" if pacing is not None else "needs a pacing"
            raise PlanError(
                f"within={self.within!r} {what}",
                place="pacing",
                value=pacing,
                remedy="Give trainplan.data.pacing(...), or within='sorted'",
            )
        if pacing is None or is_number(pacing):
            return Constant(1.0 if pacing is None else pacing)
        if isinstance(pacing, Schedule) and pacing.needs_horizon:
            if self.steps is None:
                raise PlanError(
                    "a share of the run needs its length",
                    place="pacing",
                    value=pacing,
                    remedy="Give steps=..., or pacing.resolve(steps)",
                )
            return pacing.resolve(_whole(self.steps * self.units_per_step))
        if not isinstance(pacing, (Schedule, Feedback)):
            raise PlanError(
                "neither a schedule nor a Feedback",
                place="pacing",
                value=pacing,
                remedy="Wrap a controller: Feedback(controller, lag=...)",
            )
        return pacing

    @property
    def lag(self) -> int | None:
        return self.pacing.lag if isinstance(self.pacing, Feedback) else None

    # What is open

    def open_at(self, step: int) -> int:
        """How many examples are open at a step.

        Raises:
            PlanError: If the pacing is not a number there, or nothing is open.
        """
        time = step * self.units_per_step
        c = self.pacing.decide(step) if isinstance(self.pacing, Feedback) else self.pacing(time)
        if not is_number(c) or math.isnan(c):
            raise PlanError(f"not a number at step {step}", place="pacing", value=c)
        if self.by == "fraction":
            share = min(max(c, 0.0), 1.0)
            return max(math.ceil(share * self.n), self.least)
        opened = self._ranking_at(step).open_at(c)
        if not opened and self.on_empty == "error":
            raise PlanError(
                f"no example is open at step {step}",
                place="pacing",
                value=c,
                remedy="Begin at a difficulty that some examples have, or give on_empty='least'",
            )
        return max(opened, self.least) if self.on_empty == "least" else opened

    def set_difficulty(self, difficulty: npt.ArrayLike | Ranking, at: int) -> None:
        """Rank anew from a step on: at once for ``draw``, from the next pass on for ``pass``.

        The state holds digest and step of each change; make the same changes before loading it.
        """
        at = count(at, "at", least=0)
        if at < self._rankings[-1][0]:
            raise PlanError(
                f"the difficulty was changed at step {self._rankings[-1][0]}", place="at", value=at
            )
        if not isinstance(difficulty, Ranking):
            values = checked_difficulty(difficulty, self.n)
            difficulty = Ranking(values, self.seed, hardest_first=self.ranking.hardest_first)
        self.ranking = difficulty
        self._rankings.append((at, difficulty))
        self._passes.forget_after(at * self.global_batch)

    def _ranking_at(self, step: int) -> Ranking:
        place = bisect_right(self._rankings, step, key=lambda item: item[0])
        return self._rankings[max(place - 1, 0)][1]

    # What is drawn

    def examples(self, step: int, first: int, last: int) -> Indices:
        if self.within == "draw":
            ranks, ranking = self._drawn(step)[first:last], self._ranking_at(step)
            return ranking.examples[ranks].astype(np.int64)
        start = step * self.global_batch
        if self.within == "sorted":
            ranks = self._sorted(start + first, last - first)
            return self.ranking.examples[ranks].astype(np.int64)
        return self.take(start + first, last - first)

    def take(self, position: int, number: int) -> Indices:
        """The ``number`` examples of the passes from a position on."""
        parts = [np.empty(0, np.int64)]
        while number > 0:
            k, begin, opened = self._pass_at(position)
            offset = position - begin
            taken = min(number, opened - offset)
            ranks = self._order(opened).stretch(k, offset, taken)
            ranking = self._ranking_at(self.step_of(begin))
            parts.append(ranking.examples[ranks].astype(np.int64))
            position, number = position + taken, number - taken
        return np.concatenate(parts)

    def _drawn(self, step: int) -> Indices:
        opened = self.open_at(step)
        if opened < self.global_batch:
            raise PlanError(
                f"{opened} examples are open at step {step}, too few for {self.global_batch} "
                "different ones",
                place="pacing",
                value=opened,
                remedy=f"Open at least {self.global_batch}, or use within='pass'",
            )
        return self._order(opened).stretch(step, 0, self.global_batch)

    def _sorted(self, position: int, number: int) -> Indices:
        order, rest = self._order(self.n), max(self.n - position, 0)
        ranks = np.arange(position, position + min(number, rest))
        if number <= rest:
            return ranks
        return np.concatenate([ranks, order.block(position + rest, number - rest)])

    def next_pass(self, step: int) -> int:
        """The step in which the pass ends that the last example of a step is in.

        What is open then is decided from what was observed before that step, less the lag.
        """
        _, begin, opened = self._pass_at((step + 1) * self.global_batch - 1)
        return self.step_of(begin + opened)

    def _pass_at(self, position: int) -> tuple[int, int, int]:
        """Number, begin and length of the pass that holds a position."""
        if position < self._passes.begins[0] and self.lag is None:
            self._passes = _Passes()
        passes = self._passes
        while passes.end <= position:
            passes.add(self.open_at(self.step_of(passes.end)))
        return passes.at(position)

    def _step_of(self, position: int) -> int:
        """The step in which a position is shown."""
        return position // self.global_batch

    def _order(self, opened: int) -> Order:
        order = self._orders.get(opened)
        if order is None:
            order = Order(opened, self.seed, stream=self.stream)
            # Two, as a batch may hold the end of one pass and the start of the next.
            self._orders = {**dict(list(self._orders.items())[-1:]), opened: order}
        return order

    # State

    def state(self, step: int) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if self.within == "pass" and step:
            # The pass of the last example before the step: the next may depend on what is heard.
            state["pass"] = list(self._pass_at(step * self.global_batch - 1))
        if isinstance(self.pacing, Feedback):
            state["feedback"] = self.pacing.state(step)
        if len(self._rankings) > 1:
            state["rankings"] = [[at, r.digest] for at, r in self._rankings[1:] if at <= step]
        return state

    def load(self, state: dict[str, Any], step: int) -> None:
        if ("feedback" in state) != isinstance(self.pacing, Feedback):
            what = "listens" if "feedback" in state else "does not listen"
            raise PlanError(
                f"the state is of an order that {what} to the run, and this one is not",
                place="state.source.feedback",
                value=sorted(state),
            )
        known = [[at, r.digest] for at, r in self._rankings[1:] if at <= step]
        if state.get("rankings", []) != known:
            raise PlanError(
                "the difficulty was changed otherwise before the state was saved",
                place="state.source.rankings",
                value=state.get("rankings", []),
                remedy="Call set_difficulty as before, at the same steps, and then load",
            )
        if isinstance(self.pacing, Feedback):
            self.pacing.load(state["feedback"])
        self._passes = _Passes(*state["pass"]) if "pass" in state else _Passes()

    def settings(self) -> dict[str, Any]:
        pacing = self.pacing
        if isinstance(pacing, Schedule):
            told: Any = pacing.digest
        else:
            plain = getattr(pacing.decider, "plain", None)
            told = [plain() if plain else type(pacing.decider).__name__, pacing.lag]
        return {
            "source": "curriculum",
            "difficulty": self._rankings[0][1].digest,
            "pacing": told,
            "by": self.by,
            "within": self.within,
            "least": [self.least, self.on_empty],
            "steps": self.steps,
            "units_per_step": self.units_per_step,
        }


def _whole(horizon: float) -> float:
    return int(horizon) if float(horizon).is_integer() else horizon


class _Passes:
    """Where passes begin, as far as they are known."""

    def __init__(self, first: int = 0, begin: int = 0, opened: int = 0) -> None:
        self.first = first
        self.begins = [begin]
        self.end = begin + opened
        if opened:
            self.begins.append(self.end)

    def add(self, opened: int) -> None:
        self.end += opened
        self.begins.append(self.end)

    def at(self, position: int) -> tuple[int, int, int]:
        k = bisect_right(self.begins, position) - 1
        if k < 0:
            raise PlanError(
                "lies before the point where the order was loaded", place="position", value=position
            )
        return self.first + k, self.begins[k], self.begins[k + 1] - self.begins[k]

    def forget_after(self, position: int) -> None:
        """Passes that begin at a position or later are to be made anew."""
        while len(self.begins) > 1 and self.begins[-2] >= position:
            self.begins.pop()
        self.end = self.begins[-1]
