"""Sort more numbers than the memory has room for, ties by a second number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Values = Callable[[int, int], Numbers]
Ties = Callable[[Indices], Indices]

BUCKET = 1 << 23
"""Examples sorted at a time: about 40 bytes each."""
_READ = 1 << 22
_SAMPLE = 1 << 16


def rank_into(ranked: Numbers, values: Values, ties: Ties, bucket: int = BUCKET) -> None:
    """Fill an array with examples, sorted by value and, where equal, by tie.

    Pairs of value and tie are divided at quantiles of a sample. Each part is found by reading all
    values again, and sorted.

    Args:
        ranked: (n,) of any integers, to be filled; it may be memory-mapped.
        values: ``values(first, last)`` gives those of a stretch of examples.
        ties: Of examples (k,): all different.
        bucket: How many examples are sorted at a time.

    >>> ranked, hard = np.empty(4, np.int64), np.array([2.0, 1, 1, 0])
    >>> rank_into(ranked, lambda a, b: hard[a:b], lambda examples: -examples, bucket=2)
    >>> ranked.tolist()
    [3, 2, 1, 0]
    """
    n, done = len(ranked), 0
    for low, high in _parts(n, values, ties, bucket):
        found = [
            _between(a, min(a + _READ, n), low, high, values, ties) for a in range(0, n, _READ)
        ]
        examples = np.concatenate([of_stretch for of_stretch, _ in found])
        numbers = np.concatenate([of_stretch for _, of_stretch in found])
        del found
        ranked[done : done + len(examples)] = examples[np.lexsort((ties(examples), numbers))]
        done += len(examples)


Pair = tuple[Any, int]


def _parts(
    n: int, values: Values, ties: Ties, bucket: int
) -> Iterator[tuple[Pair | None, Pair | None]]:
    """Edges between parts of about equal size; None where there is none."""
    parts = -(-n // bucket)
    edges: list[Pair | None] = [None]
    if parts > 1:
        chosen = np.unique(np.random.default_rng(0).integers(n, size=_SAMPLE))
        numbers = np.concatenate([values(i, i + 1) for i in chosen.tolist()])
        order = np.lexsort((ties(chosen), numbers))
        for k in range(1, parts):
            place = order[k * len(order) // parts]
            edges.append((numbers[place], int(ties(chosen[place : place + 1])[0])))
    edges.append(None)
    return pairwise(edges)


def _between(
    first: int, last: int, low: Pair | None, high: Pair | None, values: Values, ties: Ties
) -> tuple[Indices, Numbers]:
    """Examples of a stretch from one edge on and before another, and their values."""
    numbers = values(first, last)
    kept = np.ones(len(numbers), dtype=bool)
    for edge, after in ((low, True), (high, False)):
        if edge is None:
            continue
        number, tie = edge
        kept &= (numbers >= number) if after else (numbers <= number)
        equal = np.flatnonzero(kept & (numbers == number))
        kept[equal] = (ties(first + equal) >= tie) == after
    inside = np.flatnonzero(kept)
    return first + inside, numbers[inside]
