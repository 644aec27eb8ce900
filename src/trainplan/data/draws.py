"""Draws with replacement, computed from the position: nothing is listed beforehand.

Weighted draws use an alias table (Walker, 1977, "An efficient method for generating discrete
random variables with general distributions"; built as by Vose, 1991), without a limit on the
number of weights and in double precision throughout.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed, hashed, key, mix, scaled
from trainplan.errors import PlanError
from trainplan.schedules.values import count

_STREAM = 5
_LARGEST = 1 << 48


class Draws:
    """Independent draws from n examples: the draw at a position is a function of (seed, position).

    Args:
        n: Number of examples, 1 to 2^48.
        seed: 0 to 2^128 - 1.
        weights: (n,) weight of each example, in any unit, none below 0; None draws evenly.

    >>> Draws(10**9)[:2].shape, Draws(3, weights=[0, 1, 0])[:4].tolist()
    ((2,), [1, 1, 1, 1])
    """

    def __init__(self, n: int, seed: int = 0, *, weights: npt.ArrayLike | None = None) -> None:
        self.n = count(n, "n", most=_LARGEST)
        self.seed = checked_seed(seed)
        self.weights = None if weights is None else checked_weights(weights, self.n)
        self._key = key(self.seed, _STREAM)

    def __getitem__(self, position: Any) -> Any:
        """The example, or examples, drawn at positions."""
        if isinstance(position, slice):
            return self.block(position.start or 0, position.stop - (position.start or 0))
        if isinstance(position, np.ndarray):
            return self._draw(position.astype(np.uint64))
        return int(self.block(position, 1)[0])

    def block(self, first: int, number: int) -> npt.NDArray[np.int64]:
        """``number`` draws from position ``first`` on."""
        return self._draw(np.arange(first, first + number, dtype=np.uint64))

    def _draw(self, positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        cells = scaled(hashed(positions, self._key), self.n)
        if self.weights is None:
            return cells
        # A second, unrelated hash decides between the cell and its alias.
        coin = (hashed(positions, mix(self._key)) >> np.uint64(11)) * 2.0**-53
        keep, alias = self._table
        return np.where(coin < keep[cells], cells, alias[cells])

    @cached_property
    def _table(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        assert self.weights is not None  # noqa: S101 - only weighted draws ask
        return alias_table(self.weights)


def alias_table(
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Cells of equal size, each shared by two examples: its own and an alias.

    Returns:
        (n,) probability that a cell keeps its own example, and (n,) alias of each cell.

    >>> keep, alias = alias_table(np.array([1.0, 3.0]))
    >>> keep.tolist(), alias.tolist()
    ([0.5, 1.0], [1, 1])
    """
    n = weights.size
    # Put the lacks of the light examples and the surpluses of the heavy ones end to end on one
    # line: the alias of a light cell is the heavy example whose surplus covers its lack. A heavy
    # example whose surplus ends inside a lack is itself completed by the next heavy one.
    share = weights / weights.sum() * n
    keep, alias = np.minimum(share, 1.0), np.arange(n)
    light, heavy = np.flatnonzero(share < 1), np.flatnonzero(share >= 1)
    surplus_ends = np.cumsum(share[heavy] - 1)
    lack_ends = np.cumsum(1 - share[light])
    if not heavy.size or not light.size:
        return np.ones(n), alias
    # A light cell is given to the heavy example that holds the start of its lack.
    starts = np.concatenate([[0.0], lack_ends[:-1]])
    owner = np.minimum(np.searchsorted(surplus_ends, starts, side="right"), heavy.size - 1)
    alias[light] = heavy[owner]
    # What an owner gave beyond its surplus comes back from the next heavy example.
    given = np.searchsorted(owner, np.arange(heavy.size), side="right")
    reached = np.concatenate([[0.0], lack_ends])[given]
    over = np.maximum(reached - surplus_ends, 0.0)
    over[-1] = 0.0
    keep[heavy] = np.clip(1 - over, 0.0, 1.0)
    alias[heavy[:-1]] = heavy[1:]
    return keep, alias


def checked_weights(weights: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """(n,) weights as float64, or an error that names the first bad one."""
    values = np.ascontiguousarray(weights, dtype=np.float64)
    if values.shape != (n,):
        raise PlanError(f"{n} examples need as many weights", place="weights", value=values.shape)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise PlanError(
            "a weight must be a number not below zero",
            place=f"weights[{bad[0]}]",
            value=float(values[bad[0]]),
        )
    total = float(values.sum())
    if not 0 < total < np.inf:
        raise PlanError("the weights have no finite sum above zero", place="weights", value=total)
    return values
