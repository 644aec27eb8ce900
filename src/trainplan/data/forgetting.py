"""How often a model forgets an example that it had learned, as a difficulty.

Toneva et al., 2019, "An Empirical Study of Example Forgetting during Deep Neural Network Learning",
arXiv 1812.05159: each time an example is shown, note whether the model has it right; an example is
forgotten when it was right the time before and is wrong now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.difficulty import Difficulty
from trainplan.errors import PlanError


class Forgetting:
    """Counts forgetting events while a model trains.

    Args:
        n: Number of examples.

    Attributes:
        events: (n,) how often each example was forgotten.
        learned: (n,) whether the model ever had it right.

    Raises:
        PlanError: If there are no examples.

    >>> forgetting = Forgetting(3)
    >>> for right in ([True, True, False], [False, True, False], [True, True, False]):
    ...     forgetting.observe([0, 1, 2], right)
    >>> forgetting.difficulty().tolist()
    [1.0, 0.0, inf]
    """

    def __init__(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise PlanError("needs at least one example", place="n", value=n)
        self.events = np.zeros(n, np.int64)
        self.learned = np.zeros(n, bool)
        self._right = np.zeros(n, bool)

    def observe(self, examples: npt.ArrayLike, right: npt.ArrayLike) -> None:
        """Note what the model had right in a batch, in the order of training.

        Args:
            examples: (b,) indices; one that stands there twice is right if it is each time.
            right: (b,) whether the model's answer was right, before the update.

        Raises:
            PlanError: If the lengths differ, or an index is not of the data.
        """
        indices, now = np.asarray(examples), np.asarray(right, dtype=bool)
        if indices.ndim != 1 or indices.shape != now.shape:
            raise PlanError("needs one answer per example", place="right", value=now.shape)
        if not indices.size:
            return
        if not np.issubdtype(indices.dtype, np.integer):
            raise PlanError("not indices", place="examples", value=indices.dtype)
        outside = indices[(indices < 0) | (indices >= self.events.size)]
        if outside.size:
            raise PlanError(
                f"not one of {self.events.size} examples", place="examples", value=int(outside[0])
            )
        shown, places = np.unique(indices, return_inverse=True)
        all_right = np.ones(shown.size, bool)
        np.logical_and.at(all_right, places, now)
        self.events[shown] += self._right[shown] & ~all_right
        self.learned[shown] |= all_right
        self._right[shown] = all_right

    def difficulty(self) -> Difficulty:
        """(n,) number of times forgotten; infinite for examples that were never right."""
        return np.where(self.learned, self.events.astype(np.float64), np.inf)

    def state_dict(self) -> dict[str, Any]:
        """The counts, as arrays."""
        return {
            "events": self.events.copy(),
            "learned": self.learned.copy(),
            "right": self._right.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved counts.

        Raises:
            PlanError: If they are of another number of examples.
        """
        loaded = [np.array(state[name]) for name in ("events", "learned", "right")]
        for array in loaded:
            if array.shape != self.events.shape:
                raise PlanError(
                    f"the state is not of {self.events.size} examples",
                    place="state",
                    value=array.shape,
                    remedy="Load it with the data it was saved with",
                )
        self.events = loaded[0].astype(np.int64)
        self.learned, self._right = (array.astype(bool) for array in loaded[1:])
