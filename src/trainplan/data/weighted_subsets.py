"""Train in rounds, each on a part of the data that is drawn anew by weight.

A curriculum that always opens the easiest examples shows the same ones again and again. Here a
round's examples are drawn without replacement with weights, say from the losses of a model that
was trained before, so that hard examples come too, only less often. With sizes that go up and down
(`trainplan.data.cyclic_sizes`) this is Kesgin and Amasyali, 2023, "Cyclical Curriculum Learning",
IEEE TNNLS, arXiv 2202.05531.

Successive draws without replacement take the k smallest of the keys E_i / w_i with independent
exponential E_i (Efraimidis and Spirakis, 2006, "Weighted random sampling with a reservoir").
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Indices
from trainplan.data.draws import checked_weights
from trainplan.data.hashing import priorities
from trainplan.data.order import Order
from trainplan.data.sources import Source, between_steps
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

Weights = npt.NDArray[np.float64]
_DRAW = 6
"""The stream of the seed by which a round's examples are drawn; stream 0 shuffles them."""
_TAILS = ("short", "drop")


class WeightedSubsets(Source):
    """Rounds of one pass each over examples that are drawn by weight, without replacement.

    What a round shows is a function of (seed, round) and the weights, so that any step is reached
    without a state. Every round is shuffled, and its batches end with it.

    Args:
        weights: (n,) weight of each example, in any unit, none below 0: `loss_weights`.
        sizes: How much each round draws: fractions of n as floats, of which ``int(n * size)``
            are drawn, or numbers of examples as integers.
        global_batch: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        seed: Of draws and shuffles.
        tail: What becomes of the examples of a round that do not fill a step: ``short`` makes
            its last step smaller, ``drop`` leaves them out, in each round others.

    Attributes:
        counts: (rounds,) examples that each round shows.
        ends: (rounds,) the step after the last one of each round.

    >>> from trainplan.data import cyclic_sizes
    >>> source = WeightedSubsets([1e-6] * 4 + [1.0] * 4, cyclic_sizes(budget=2), 2)
    >>> source.counts.tolist(), source.ends.tolist(), source.steps
    ([2, 4, 8, 4], [1, 3, 7, 9], 9)
    >>> sorted(np.concatenate([source.examples(1, 0, 2), source.examples(2, 0, 2)]).tolist())
    [4, 5, 6, 7]
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        sizes: npt.ArrayLike,
        global_batch: int = 1,
        seed: int = 0,
        *,
        tail: Literal["short", "drop"] = "short",
    ) -> None:
        values = np.asarray(weights, dtype=np.float64)
        values = checked_weights(values, count(values.size, "weights"))
        self.n = values.size
        self.seed = Order(self.n, seed).seed
        self.global_batch = count(global_batch, "global_batch")
        if tail not in _TAILS:
            raise PlanError("unknown", place="tail", value=tail, remedy=nearest(str(tail), _TAILS))
        self.tail = tail
        drawn = round_counts(self.n, sizes)
        steps = drawn // self.global_batch if tail == "drop" else -(-drawn // self.global_batch)
        short = np.flatnonzero(steps == 0)
        if short.size:
            raise PlanError(
                f"round {short[0]} draws {drawn[short[0]]} examples, too few for a step",
                place="sizes",
                value=int(drawn[short[0]]),
                remedy="Draw more, or give a smaller global_batch, or tail='short'",
            )
        self._drawn = drawn
        self.counts: Indices = steps * self.global_batch if tail == "drop" else drawn
        # Steps and examples before each round, and after the last.
        self._steps_before = np.cumsum([0, *steps.tolist()])
        self._before = np.cumsum([0, *self.counts.tolist()])
        self.ends: Indices = self._steps_before[1:]
        self.steps = int(self.ends[-1])
        self._digest = hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()
        self._weights: list[tuple[int, Weights]] = [(0, self._check(values, 0))]
        """Weights, and from which round on they count."""
        self._held: tuple[int, Indices] = (-1, np.empty(0, np.int64))

    def _check(self, weights: npt.ArrayLike, since: int) -> Weights:
        values = checked_weights(weights, self.n)
        positive, needed = int((values > 0).sum()), int(self._drawn[since:].max())
        if positive < needed:
            raise PlanError(
                f"a round draws {needed} different examples, and {positive} have a weight above 0",
                place="weights",
                value=positive,
                remedy="Give all examples some weight, or draw fewer",
            )
        return values

    # Rounds

    def round_at(self, step: int) -> int:
        """The round that a step belongs to."""
        return int(np.searchsorted(self.ends, step, side="right"))

    def drawn(self, number: int) -> Indices:
        """The examples of a round, in the order in which they are shown."""
        if self._held[0] != number:
            self._held = (number, self._draw(number))
        return self._held[1]

    def _draw(self, number: int) -> Indices:
        k = int(self._drawn[number])
        chosen = np.arange(self.n)
        if k < self.n:
            # Uniform in (0, 1), never an end. Logarithms of the keys, as tiny weights overflow.
            bits = priorities(self.n, self.seed, _DRAW, number) >> np.uint64(12)
            weights = self._weights[self._in_force(number)][1]
            with np.errstate(divide="ignore"):
                keys = np.log(-np.log((bits + 0.5) * 2.0**-52)) - np.log(weights)
            chosen = np.sort(np.argpartition(keys, k - 1)[:k])
        shuffled: Indices = chosen[Order(k, self.seed).stretch(number, 0, k)]
        return shuffled[: self.counts[number]]

    def _in_force(self, number: int) -> int:
        """Which of the weights count in a round."""
        return bisect_right(self._weights, number, key=lambda item: item[0]) - 1

    def set_weights(self, weights: npt.ArrayLike, at: int) -> None:
        """Draw by other weights from a round on, such as those of the model as it is now.

        These weights go into the state, as nothing else could tell them after an interruption.

        Args:
            weights: (n,) weight of each example.
            at: The first round they are for; none that a loader has begun to draw.

        Raises:
            PlanError: If the round was drawn, or the weights will not do.
        """
        at = count(at, "at", least=0, most=len(self.counts) - 1)
        reached = max(self._held[0], self._weights[-1][0])
        if at <= reached:
            raise PlanError(
                f"the weights of round {reached} are in use",
                place="at",
                value=at,
                remedy="Set those of a later round; a loader that reads ahead draws early",
            )
        self._weights.append((at, self._check(weights, at)))

    # Steps

    def _place(self, step: int) -> tuple[int, int]:
        """Round of a step, and how many of its examples come before."""
        number = self.round_at(step)
        return number, (step - int(self._steps_before[number])) * self.global_batch

    def examples(self, step: int, first: int, last: int) -> Indices:
        number, offset = self._place(step)
        return self.drawn(number)[offset + first : offset + last].copy()

    def size(self, step: int) -> int:
        number, offset = self._place(step)
        return min(self.global_batch, int(self.counts[number]) - offset)

    def position(self, step: int) -> int:
        number, offset = self._place(min(step, int(self.ends[-1])))
        return int(self._before[number]) + offset

    def step_at(self, position: int) -> int:
        number = int(np.searchsorted(self._before, position, side="right")) - 1
        steps, inside = divmod(position - int(self._before[number]), self.global_batch)
        if inside:
            raise between_steps(position, self.global_batch)
        return int(self._steps_before[number]) + steps

    # State

    def state(self, step: int) -> dict[str, Any]:
        used = self._in_force(self.round_at(step))
        later = [[at, values.tolist()] for at, values in self._weights[max(used, 1) :]]
        return {"weights": later} if later else {}

    def load(self, state: dict[str, Any], step: int) -> None:
        later = [(int(at), self._check(w, int(at))) for at, w in state.get("weights", [])]
        self._weights = [self._weights[0], *later]
        self._held = (-1, self._held[1])

    def settings(self) -> dict[str, Any]:
        return {
            "source": "weighted subsets",
            "weights": self._digest,
            "sizes": self._drawn.tolist(),
            "tail": self.tail,
        }


def round_counts(n: int, sizes: npt.ArrayLike) -> Indices:
    """(rounds,) examples of each round, from fractions of ``n`` (floats) or numbers (integers).

    >>> round_counts(1001, [0.3, 0.5, 1.0]).tolist()
    [300, 500, 1001]
    """
    given = np.asarray(sizes)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "fiu":
        raise PlanError(
            "needs a number for each round",
            place="sizes",
            value=sizes,
            remedy="Give trainplan.data.cyclic_sizes(budget=...)",
        )
    with np.errstate(invalid="ignore"):  # what is no number is refused below
        counts: Indices = (n * given if given.dtype.kind == "f" else given).astype(np.int64)
    bad = np.flatnonzero(~((counts >= 1) & (counts <= n)))
    if bad.size:
        raise PlanError(
            f"a round draws 1 to {n} examples",
            place=f"sizes[{bad[0]}]",
            value=given[bad[0]].item(),
            remedy="Write fractions of the data as floats, such as 1.0 for all",
        )
    return counts
