"""Disturb the order of clips, sentences or any other items, more or less.

Blocks of ``max(1, n // r)`` items are reversed or shuffled, or all but so many items are dropped:
the larger the factor r, the finer the blocks and the easier the difference is to tell. TEMPLE (Li
et al., 2025, arXiv 2503.16929) makes preference pairs with r = 16, 8, 4 and 2.

Functions that take a generator accept NumPy's, or ``random.Random``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count

T = TypeVar("T")
Generator = np.random.Generator | random.Random

_TRIES: Final = 1000


def block_size(n: int, r: int) -> int:
    """Items of a block, and items that a drop keeps: ``max(1, n // r)``.

    >>> block_size(23, 4), block_size(7, 16)
    (5, 1)
    """
    return max(1, count(n, "n") // count(r, "r"))


def blocks(items: Sequence[T], r: int) -> list[Sequence[T]]:
    """Items in consecutive blocks, the last of which may be short; there may be more than r.

    >>> blocks("abcdefg", 2)
    ['abc', 'def', 'g']
    """
    size = block_size(len(items), r)
    return [items[i : i + size] for i in range(0, len(items), size)]


def _flat(parts: Sequence[Sequence[T]]) -> list[T]:
    return [item for part in parts for item in part]


def block_reverse(items: Sequence[T], r: int) -> list[T]:
    """The blocks in reverse order, each as it is.

    >>> block_reverse([0, 1, 2, 3, 4, 5], 3)
    [4, 5, 2, 3, 0, 1]
    """
    return _flat(blocks(items, r)[::-1])


def block_shuffle(
    items: Sequence[T], r: int, generator: Generator, *, allow_identity: bool = False
) -> list[T]:
    """The blocks in random order, each as it is.

    Args:
        items: At least two.
        r: Factor.
        generator: Draws the order.
        allow_identity: Whether the order may stay as it is. With two blocks, that is so every other
            time, and a pair made of it has no better half. The authors allow it.

    Raises:
        PlanError: If there is one block, which has no other order.

    >>> block_shuffle([0, 1, 2, 3], 2, np.random.default_rng(0))
    [2, 3, 0, 1]
    """
    parts = blocks(items, r)
    places = list(range(len(parts)))
    if len(parts) == 1 and not allow_identity:
        remedy = "Give two items or more, and r of 2 or more"
        raise PlanError("one block has no other order", place="items", value=1, remedy=remedy)
    for _ in range(_TRIES):
        generator.shuffle(places)
        if allow_identity or places != sorted(places):
            return _flat([parts[place] for place in places])
    raise PlanError(
        f"the order stayed as it was {_TRIES} times", place="generator", value=generator
    )


def _kept(items: Sequence[T], dropped: Any) -> list[T]:
    out = set(np.asarray(dropped, dtype=np.int64).tolist())
    return [item for i, item in enumerate(items) if i not in out]


def random_drop(items: Sequence[T], r: int, generator: Generator) -> list[T]:
    """``max(1, n // r)`` items in their order, the others dropped at random.

    >>> random_drop("abcdefgh", 4, np.random.default_rng(0))
    ['f', 'h']
    """
    n = len(items)
    leave = n - block_size(n, r)
    if isinstance(generator, random.Random):
        return _kept(items, generator.sample(list(range(n)), leave))
    return _kept(items, generator.choice(n, leave, replace=False))


def group_drop(
    items: Sequence[T], groups: Sequence[int], r: int, generator: np.random.Generator
) -> list[T]:
    """Whole groups of similar items dropped in random order, until at most n // r are left.

    At least one group stays, so more may be left. Of a scene that comes twice, both are dropped.

    Args:
        items: In order.
        groups: Group of each, such as `similarity_groups`.
        r: Factor.
        generator: Draws the order of the groups.

    >>> sorted(set(group_drop("aabbcc", [0, 0, 1, 1, 2, 2], 3, np.random.default_rng(0))))
    ['b']
    """
    marks = np.asarray(groups)
    _check_size(marks.shape == (len(items),), "groups", marks.shape)
    order = generator.permutation(np.unique(marks))
    left, gone = len(items), []
    for group in order[:-1]:
        if left <= block_size(len(items), r):
            break
        gone.append(group)
        left -= int((marks == group).sum())
    return _kept(items, np.flatnonzero(np.isin(marks, gone)))


def similar_drop(
    items: Sequence[T], similarity: npt.ArrayLike, r: int, generator: np.random.Generator
) -> list[T]:
    """Items dropped one by one, rather those that are similar to what was dropped before.

    The first is drawn evenly, every other in proportion to its mean similarity to those dropped;
    values below 0 count as 0.

    Args:
        items: In order.
        similarity: (n, n).
        r: Factor; ``max(1, n // r)`` items stay.
        generator: Draws.

    >>> similar_drop("ab", [[1, 0.5], [0.5, 1]], 2, np.random.default_rng(0))
    ['a']
    """
    n = len(items)
    close = np.clip(np.asarray(similarity, dtype=np.float64), 0.0, None)
    _check_size(close.shape == (n, n), "similarity", close.shape)
    dropped: list[int] = []
    for _ in range(n - block_size(n, r)):
        weights = close[:, dropped].mean(axis=1) if dropped else np.ones(n)
        weights[dropped] = 0.0
        if not weights.any():  # nothing left is similar at all
            weights = np.ones(n)
            weights[dropped] = 0.0
        dropped.append(int(generator.choice(n, p=weights / weights.sum())))
    return _kept(items, dropped)


def _check_size(fits: bool, place: str, value: Any) -> None:
    if not fits:
        remedy = "Give one for each item"
        raise PlanError("not the size of the items", place=place, value=value, remedy=remedy)


def inversions(order: npt.ArrayLike) -> int:
    """Pairs that stand the wrong way round: the Kendall distance from ascending order.

    >>> inversions([2, 3, 0, 1])
    4
    """
    values = np.asarray(order)
    if values.ndim != 1:
        raise PlanError("not one order", place="order", value=values.shape)
    return int(np.triu(values[:, None] > values[None, :], 1).sum())


PERTURBATIONS: dict[str, Callable[..., list[Any]]] = {
    "drop": random_drop,
    "reverse": lambda items, r, generator: block_reverse(items, r),
    "shuffle": block_shuffle,
}
"""The three of the paper, each called with (items, r, generator)."""


def perturbation_distance(order: npt.ArrayLike, n: int) -> float:
    """How far an order of some of ``n`` items is from all of them in order, from 0 to 1.

    The share of pairs of items that do not stand in it, or the wrong way round.

    Args:
        order: Different items of 0..n-1.
        n: At least 2.

    >>> perturbation_distance([2, 3, 0, 1], 4), perturbation_distance([0, 1], 4)
    (0.6666666666666666, 0.8333333333333334)
    """
    kept = np.asarray(order).size
    pairs, left = count(n, "n", least=2) * (n - 1) / 2, kept * (kept - 1) / 2
    return float((pairs - left + inversions(order)) / pairs)
