"""A number written as a sequence of tokens whose amounts add up to it, without loss.

Ma et al., 2024, "Generative Regression Based Watch Time Prediction for Short-Video
Recommendation", arXiv 2412.20211, let a decoder write a watch time as a sum of amounts, the largest
first. The amounts come from quantiles of the training values, so that few tokens suffice where
values are many. The curriculum from true to own tokens is `TwoPassSampling`; the network,
the loss and the amount that is read off are in `trainplan.models.token_regressor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

PAD: Final = 0
START: Final = 1
END: Final = 2
SPECIALS: Final = 3
"""The first ids stand for padding, the start and the end; amounts come after them."""

_MOST: Final = 2**53
"""Up to here every whole number is one of floating point."""

Ints = npt.NDArray[np.int64]


def quantile_amounts(
    values: npt.ArrayLike,
    start: float = 0.9999,
    end: float = 0.9,
    decay: float = 0.99,
    tolerance: float = 1e-6,
) -> list[int]:
    """Amounts that the quantiles of what is left of the values give, one after the other.

    The amount of a pass is the quantile q of the rests; it is subtracted from every rest that is at
    least as large, and q falls. As in the authors' code, the amount is cut to a whole number and
    what is subtracted is not, and an amount may occur twice.

    Args:
        values: Whole numbers, 0 or more.
        start: The first q, in (0, 1].
        end: q does not fall below it.
        decay: Factor on q from pass to pass, in (0, 1].
        tolerance: It ends when no rest is a larger share of its value, or the quantile is below 1.

    Returns:
        The amounts in the order of the passes.

    >>> quantile_amounts([1, 2, 3, 10])
    [9, 2, 1]
    """
    amounts, q = np.sort(_whole(values, 1.0).ravel())[::-1].astype(np.float64), start
    for name, share in {"start": start, "end": end, "decay": decay}.items():
        if not 0 < finite(share, name) <= 1:
            raise PlanError("outside of (0, 1]", place=name, value=share)
    rests, found = amounts.copy(), list[int]()
    error = np.inf if len(amounts) else 0.0
    while error > tolerance:
        amount = float(np.percentile(rests, 100 * q))
        if int(amount) == 0:
            break
        rests[rests >= amount] -= amount
        found.append(int(amount))
        error = float((rests / (amounts + 1e-10)).max())
        q = max(end, q * decay)
    return found


class QuantileVocabulary:
    """Ids of amounts, and numbers written in them, the largest amount first.

    Ids 0, 1 and 2 are padding, the start and the end; 3 is the largest amount. Every whole number
    of units can be written if 1 is among the amounts, also one above all values it was made from.

    Args:
        amounts: Whole numbers of units above 0; doubles are left out.
        unit: What an amount of 1 is worth: 0.001 for values in seconds and amounts in milliseconds.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> vocabulary = QuantileVocabulary([10, 4, 1])
    >>> vocabulary.encode([15, 0]).tolist()
    [[1, 3, 4, 5, 2], [1, 2, 0, 0, 0]]
    >>> vocabulary.decode([[1, 3, 4, 5, 2], [1, 2, 0, 0, 0]]).tolist()
    [15.0, 0.0]
    """

    def __init__(self, amounts: Sequence[int] | Ints, unit: float = 1.0) -> None:
        self.unit = _unit(unit)
        whole = np.unique(_whole(amounts, 1.0, "amounts"))[::-1]
        if not len(whole) or whole[-1] < 1:
            raise PlanError("needs amounts above 0", place="amounts", value=whole.tolist())
        self.amounts: Ints = whole

    @classmethod
    def fit(
        cls,
        values: npt.ArrayLike,
        unit: float = 1.0,
        *,
        start: float = 0.9999,
        end: float = 0.9,
        decay: float = 0.99,
        tolerance: float = 1e-6,
    ) -> QuantileVocabulary:
        """The vocabulary of training values; 1 is always among its amounts.

        Args:
            values: Finite, 0 or more; of the training examples alone. They are rounded to units.
            unit: See the class.
            start: See `quantile_amounts`, as the others.
            end: See there.
            decay: See there.
            tolerance: See there.
        """
        found = quantile_amounts(_whole(values, _unit(unit)), start, end, decay, tolerance)
        return cls([*found, 1], unit)

    def __len__(self) -> int:
        """Ids, with those of padding, start and end."""
        return len(self.amounts) + SPECIALS

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """What each id is worth (V,); padding, start and end are worth nothing."""
        return np.concatenate([np.zeros(SPECIALS), self.amounts * self.unit])

    def counts(self, values: npt.ArrayLike) -> tuple[Ints, Ints]:
        """How often each amount stands in each value (N, amounts), and what is left over (N,)."""
        rests = _whole(values, self.unit).ravel()
        found = np.empty((len(self.amounts), len(rests)), np.int64)
        for k, amount in enumerate(self.amounts):
            found[k], rests = np.divmod(rests, amount)
        return found.T, rests

    def encode(self, values: npt.ArrayLike) -> Ints:
        """Sequences of ids (N, T): the start, amounts that do not grow, the end, and padding.

        Args:
            values: (N,) finite, 0 or more; rounded to units.

        Raises:
            PlanError: If a value cannot be written, for want of the amount 1.
        """
        counts, rests = self.counts(values)
        if rests.any():
            remedy = "Add the amount 1, as fit() does"
            value = rests.max() * self.unit
            raise PlanError("a rest cannot be written", place="values", value=value, remedy=remedy)
        lengths = counts.sum(1)
        ids = np.full((len(counts), int(lengths.max(initial=0)) + 2), PAD, np.int64)
        column = np.arange(ids.shape[1] - 2)
        every = np.broadcast_to(np.arange(len(self.amounts)) + SPECIALS, counts.shape)
        ids[:, 0] = START
        ids[:, 1:-1][column < lengths[:, None]] = np.repeat(every.ravel(), counts.ravel())
        ids[np.arange(len(ids)), lengths + 1] = END
        return ids

    def decode(self, ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The number that each sequence (N, T) adds up to (N,)."""
        found = np.asarray(ids)
        if found.size and (found.min() < 0 or found.max() >= len(self)):
            value = [int(found.min()), int(found.max())]
            raise PlanError("unknown ids", place="ids", value=value, remedy=f"0 to {len(self) - 1}")
        whole = np.concatenate([np.zeros(SPECIALS, np.int64), self.amounts])
        total: npt.NDArray[np.float64] = whole[found.astype(np.int64)].sum(-1) * self.unit
        return total

    def state_dict(self) -> dict[str, Any]:
        """Amounts and unit, as plain numbers."""
        return {"amounts": self.amounts.tolist(), "unit": self.unit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take amounts and unit from a state.

        Raises:
            PlanError: If it is not a state.
        """
        if not isinstance(state, Mapping) or set(state) != {"amounts", "unit"}:
            raise PlanError("not the state of a vocabulary", place="state", value=type(state))
        read = QuantileVocabulary(**state)
        self.amounts, self.unit = read.amounts, read.unit


def xauc(values: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The share of pairs whose predictions are in the order of their values; ties count as wrong.

    Args:
        values: (N,) true values, of at least two examples.
        predictions: (N,).

    >>> round(xauc([1.0, 2.0, 3.0], [0.1, 0.3, 0.2]), 3)
    0.667
    """
    true, found = np.asarray(values, np.float64), np.asarray(predictions, np.float64)
    if true.ndim != 1 or true.shape != found.shape:
        value = [true.shape, found.shape]
        raise PlanError("not one for each value", place="predictions", value=value)
    n = count(len(true), "number of values", least=2)
    order = np.argsort(true, kind="stable")
    true, found = true[order], found[order]
    right = sum(
        int(np.count_nonzero((true[k + 1 :] > true[k]) & (found[k + 1 :] > found[k])))
        for k in range(n - 1)
    )
    return right / (n * (n - 1) / 2)


def _unit(value: float) -> float:
    unit = finite(value, "unit")
    if unit <= 0:
        raise PlanError("not above 0", place="unit", value=value)
    return unit


def _whole(values: npt.ArrayLike, unit: float, place: str = "values") -> Ints:
    given = np.asarray(values, np.float64)
    if not np.isfinite(given).all() or (given < 0).any():
        remedy = "Give finite numbers, 0 or more; shift values that may be negative"
        raise PlanError("cannot be written as a sum", place=place, value=given.min(), remedy=remedy)
    if place == "amounts" and (given != np.rint(given)).any():
        raise PlanError("not whole numbers", place=place, value=given.tolist())
    units = np.rint(given / unit)
    if units.max(initial=0) > _MOST:
        remedy = "Give a larger unit"
        raise PlanError("too many units", place=place, value=units.max(), remedy=remedy)
    return units.astype(np.int64)
