"""Open the examples that are within the model's measured ability.

Difficulties and the ability are on one scale (`trainplan.data.fit_rasch`, `estimate_ability`);
before each epoch the ability is estimated anew from the answers to a validation set, and examples
up to it are shown. Meng, Zeng, Lalor and Yu, 2024, "A Psychology-based Unified Dynamic Framework
for Curriculum Learning", arXiv 2408.05326.

It is for fine-tuning. A model that knows nothing yet has an ability below nearly every example, is
shown the same few easiest ones, and may not get away from them within a run.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.difficulty import checked_difficulty
from trainplan.errors import PlanError, nearest
from trainplan.schedules.pacings import fraction
from trainplan.schedules.values import count, finite

Indices = npt.NDArray[np.int64]
Rule = Literal["best", "glue", "ag_news", "gsm8k"]
RULES = ("best", "glue", "ag_news", "gsm8k")
ORDERINGS = ("easiest", "hardest", "middleout")
COMPETENCES = {"linear": 1, "root": 2}
_LOWEST = -5.0
"""Where the released rules begin to compare."""


class AbilityPacing:
    """Decides up to which difficulty examples are open; for `trainplan.data.Feedback`.

    Report the ability before each epoch as the signal ``ability``; steps without it change
    nothing. The rules differ in what they do when it has not grown:

    - ``best``: the highest estimate so far opens at once. After ``patience`` epochs in a row
      without a new one, every such epoch opens ``increment`` more; it never closes again. The
      paper's text asks for a patience of 2.
    - ``glue``, ``ag_news``, ``gsm8k``: those of the released scripts. The first compares an
      estimate with that of the very same weights, so that without noise between the two it grows
      by the increment in every epoch, whatever is learned; the last leaps by 1 in most epochs.

    Args:
        start: Ability of the model before training.
        rule: One of the above.
        increment: Added to the level when the ability has not grown; by default 0.1, and 1.0 for
            ``gsm8k``.
        patience: Of ``best``: epochs without a new best estimate before it is added.
        full_after: Epochs after which all examples are open, to end the run on everything.
        upper: Added to the level in what is opened: above 0 for examples that are a bit too hard,
            or `trainplan.data.difficulty_at` (0, p) for those that succeed with probability p.

    Attributes:
        level: The difficulty up to which examples are open, without ``upper``.

    >>> pacing = AbilityPacing(start=-0.5)
    >>> [pacing.update(ability) for ability in (0.25, 0.0, 0.5)]
    [0.25, 0.35, 0.5]
    """

    def __init__(
        self,
        start: float,
        rule: Rule = "best",
        *,
        increment: float | None = None,
        patience: int = 1,
        full_after: int | None = None,
        upper: float = 0.0,
    ) -> None:
        if rule not in RULES:
            raise PlanError("unknown", place="rule", value=rule, remedy=nearest(str(rule), RULES))
        self.rule = rule
        default = 1.0 if rule == "gsm8k" else 0.1
        self.increment = finite(default if increment is None else increment, "increment")
        if self.increment < 0:
            raise PlanError("must not be below 0", place="increment", value=increment)
        self.patience = count(patience, "patience")
        self.full_after = None if full_after is None else count(full_after, "full_after")
        self.upper = finite(upper, "upper")
        self.level = 0.0
        self._best = _LOWEST
        self._stagnant = self._epochs = 0
        self.update(finite(start, "start"))

    def update(self, ability: float, after: float | None = None) -> float:
        """Take the estimate before an epoch, and return the level for it.

        Args:
            ability: The estimate.
            after: That after the epoch before, if another was made; the same by default.
        """
        estimate = finite(ability, "ability")
        if self.rule == "best":
            self._rise(estimate)
        elif self.rule == "gsm8k":
            leap = self._epochs > 0 and estimate <= self.level
            self.level = self.level + self.increment if leap else estimate
        else:
            if self._epochs:
                self._best = max(self._best, estimate if after is None else finite(after, "after"))
            self._compare(estimate)
        self._epochs += 1
        return self.level

    def _rise(self, estimate: float) -> None:
        if not self._epochs:
            self.level = self._best = estimate
        elif estimate > self._best:
            self._best, self._stagnant = estimate, 0
            self.level = max(self.level, estimate)
        else:
            self._stagnant += 1
            if self._stagnant >= self.patience:
                self.level += self.increment

    def _compare(self, estimate: float) -> None:
        if estimate > self._best:
            self.level = estimate
        elif self.rule == "glue":
            self.level += self.increment
        else:
            self.level = (0.0 if self._best == _LOWEST else self._best) + self.increment

    # As a decider

    def value(self, t: float) -> float:
        """The highest difficulty that is open."""
        if self.full_after is not None and self._epochs > self.full_after:
            return math.inf
        return self.level + self.upper

    def observe(self, t: float, **signals: Any) -> None:
        """Hear the ``ability`` (and ``after``) that a step reported, if it did."""
        if "ability" in signals:
            self.update(signals["ability"], signals.get("after"))

    def plain(self) -> dict[str, Any]:
        """The settings, without what was heard."""
        names = ("rule", "increment", "patience", "full_after", "upper")
        return {"ability": {name: getattr(self, name) for name in names}}

    def state_dict(self) -> dict[str, Any]:
        """Level, best estimate, epochs without a new one, and epochs."""
        return {
            "level": self.level,
            "best": self._best,
            "stagnant": self._stagnant,
            "epochs": self._epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        missing = [name for name in self.state_dict() if name not in state]
        if missing:
            raise PlanError(f"no {missing[0]!r} in it", place="state", value=state)
        self.level, self._best = float(state["level"]), float(state["best"])
        self._stagnant, self._epochs = int(state["stagnant"]), int(state["epochs"])


# For loops that choose each epoch's examples themselves


def ability_subset(
    difficulty: npt.ArrayLike,
    ability: float,
    *,
    lower: float = -math.inf,
    upper: float = 0.0,
    least: int = 1,
    strict: bool = False,
    ranking: Indices | None = None,
) -> Indices:
    """The examples of an epoch: those whose difficulty lies in a window around the ability.

    Args:
        difficulty: (n,) one number per example.
        ability: Or any other level, such as that of `AbilityPacing`.
        lower: The window goes from ability + lower, inclusive; 0 with ``upper=inf`` for the
            examples that are too hard.
        upper: To ability + upper.
        least: If fewer lie in it, this many of the first of the ranking are taken instead, or all.
        strict: Leave out what lies at the upper end exactly.
        ranking: (n,) an order of the examples, `rank_examples`; by default from easy to hard.

    Returns:
        (k,) examples in the order of the ranking; shuffle them for training.

    >>> ability_subset([0.3, -1.0, 2.0, 0.5], 0.5).tolist()
    [1, 0, 3]
    >>> ability_subset([0.3, -1.0, 2.0, 0.5], -2.0, least=2).tolist()
    [1, 0]
    """
    values = checked_difficulty(difficulty)
    order = rank_examples(values) if ranking is None else np.asarray(ranking)
    if order.shape != values.shape:
        raise PlanError(
            f"ranks {order.shape} examples of {values.shape}", place="ranking", value=order.shape
        )
    ranked, top = values[order], ability + upper
    inside = (ranked >= ability + lower) & ((ranked < top) if strict else (ranked <= top))
    chosen: Indices = order[inside]
    return chosen if chosen.size >= count(least, "least") else order[:least]


def rank_examples(
    difficulty: npt.ArrayLike,
    ordering: Literal["easiest", "hardest", "middleout"] = "easiest",
    labels: npt.ArrayLike | None = None,
) -> Indices:
    """Examples in the order of their difficulty, ties as they come.

    Args:
        difficulty: (n,) one number per example.
        ordering: Smallest first, largest first, or nearest to 0 first.
        labels: (n,) if given, the labels take turns, each in its own order; a label joins in at
            the place of its first example.

    >>> rank_examples([0.5, -2.0, 0.1], "middleout").tolist()
    [2, 0, 1]
    >>> rank_examples([1, 2, 3, 4], labels=["a", "a", "b", "b"]).tolist()
    [0, 2, 1, 3]
    """
    values = checked_difficulty(difficulty).astype(np.float64)
    if ordering not in ORDERINGS:
        remedy = nearest(str(ordering), ORDERINGS)
        raise PlanError("unknown", place="ordering", value=ordering, remedy=remedy)
    by = {"easiest": values, "hardest": -values, "middleout": np.abs(values)}[ordering]
    order = np.argsort(by, kind="stable")
    if labels is None:
        return order
    given = np.asarray(labels)
    if given.shape != values.shape:
        raise PlanError("needs one label per example", place="labels", value=given.shape)
    _, first, kinds = np.unique(given[order], return_index=True, return_inverse=True)
    by_label = np.argsort(kinds, kind="stable")
    begins = np.searchsorted(kinds[by_label], np.arange(first.size))
    turn = np.empty(order.size, np.int64)
    turn[by_label] = np.arange(order.size) - begins[kinds[by_label]]
    return order[np.lexsort((first[kinds], turn))]


def two_step_count(n: int, epoch: int, epochs: int) -> int:
    """How many of the easiest examples an epoch (from 0) shows that opens more every other one.

    A share of 2 / ``epochs`` is added in every second epoch, and all are open in the second half;
    one of the schedules that ability is compared with.

    >>> [two_step_count(100, epoch, 10) for epoch in range(6)]
    [20, 20, 60, 60, 100, 100]
    """
    share = count(n, "n") / (count(epochs, "epochs") / 2)
    odd = count(epoch, "epoch", least=0) % 2
    return min(int(share * (epoch if odd else epoch + 1)), n)


def competence_count(
    n: int,
    epoch: int,
    full_at: int,
    kind: Literal["linear", "root"] = "linear",
    start: float = 0.01,
) -> int:
    """How many of the easiest examples an epoch (from 0) shows if competence grows by the clock.

    int(c n), where c or its square rises evenly from ``start`` to 1 in ``full_at`` epochs
    (Platanios et al., 2019, arXiv 1903.09848), rounded as in the released code; in steps instead of
    epochs it is `trainplan.data.pacing`. The first epochs of small data may show none.

    >>> [competence_count(100, epoch, 5) for epoch in range(6)]
    [1, 20, 40, 60, 80, 100]
    """
    if kind not in COMPETENCES:
        remedy = nearest(str(kind), COMPETENCES)
        raise PlanError("unknown", place="kind", value=kind, remedy=remedy)
    power = COMPETENCES[kind]
    first = fraction(start, "start") ** power
    rise = (1 - first) / count(full_at, "full_at")
    share = count(epoch, "epoch", least=0) * rise + first
    return int(min(1.0, share if power == 1 else math.sqrt(share)) * count(n, "n"))
