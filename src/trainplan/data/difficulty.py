"""How hard each example is, and the ranking from easy to hard.

A difficulty is an array of one number per example, smaller is easier; memory-mapped files are
fine. `Ranking` sorts it once, at four bytes per example, and keeps the result on disk if asked.
The helpers below make difficulties from what is at hand; `trainplan.data.score` has a function
rate every example of a data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed, priorities
from trainplan.data.order import Order
from trainplan.data.ranks import rank_into
from trainplan.errors import PlanError

Difficulty = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
_TIES = 3
_CHUNK = 1 << 24


class Ranking:
    """Examples from easy to hard, equally hard ones in random order.

    Ties are shuffled because files tend to be grouped by source. Sorting takes 400 MB and, for
    10^8 numbers, a minute: give ``cache``, a directory, for large data.

    Args:
        difficulty: (n,) of any real type, smaller is easier; infinities are fine.
        seed: Shuffles ties.
        hardest_first: Turn the ranking round (anti-curriculum).
        cache: A directory in which rankings are kept, by the digest of what they are made from.

    Attributes:
        examples: (n,) examples by rank; memory-mapped if they are cached.

    >>> ranking = Ranking([0.5, 0.1, 0.9])
    >>> ranking.examples.tolist(), ranking.open_at(0.5)
    ([1, 0, 2], 2)
    """

    def __init__(
        self,
        difficulty: npt.ArrayLike,
        seed: int = 0,
        *,
        hardest_first: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        self.difficulty = checked_difficulty(difficulty)
        self.n = self.difficulty.size
        self.seed = checked_seed(seed)
        self.hardest_first = hardest_first
        self.digest = self._digest()
        self.examples = self._sort() if cache is None else self._cached(Path(cache))

    def _digest(self) -> str:
        told = f"{self.difficulty.dtype.str} {self.n} {self.seed} {self.hardest_first}"
        digest = hashlib.blake2b(told.encode(), digest_size=8)
        for i in range(0, self.n, _CHUNK):
            digest.update(np.ascontiguousarray(self.difficulty[i : i + _CHUNK]).data)
        return digest.hexdigest()

    def _sort(self, path: Path | None = None) -> npt.NDArray[Any]:
        kind = np.uint32 if self.n <= 1 << 32 else np.int64
        ranked: npt.NDArray[Any] = (
            np.empty(self.n, kind)
            if path is None
            else np.lib.format.open_memmap(path, "w+", kind, (self.n,))
        )
        wide = _signed(self.difficulty.dtype)
        order = Order(self.n, self.seed, stream=_TIES)

        def values(first: int, last: int) -> npt.NDArray[Any]:
            part = np.asarray(self.difficulty[first:last])
            return np.negative(part, dtype=wide) if self.hardest_first else part

        rank_into(ranked, values, order.at_offsets)
        return ranked

    def _cached(self, directory: Path) -> npt.NDArray[Any]:
        path = directory / f"ranking-{self.digest}.npy"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part.npy")
            self._sort(part)
            part.replace(path)
        ranked: npt.NDArray[Any] = np.load(path, mmap_mode="r")
        return ranked

    def open_at(self, threshold: float) -> int:
        """How many examples are at most as hard as a threshold (at least, if hardest first)."""
        low, high = 0, self.n
        while low < high:
            middle = (low + high) // 2
            value = self.difficulty[self.examples[middle]]
            if (value >= threshold) if self.hardest_first else (value <= threshold):
                low = middle + 1
            else:
                high = middle
        return low


def checked_difficulty(difficulty: npt.ArrayLike, n: int | None = None) -> Difficulty:
    """(n,) difficulties as an array, which is not copied.

    Raises:
        PlanError: If they are no numbers, or not one per example.
    """
    values = difficulty if isinstance(difficulty, np.ndarray) else np.asarray(difficulty)
    if values.ndim != 1 or not values.size:
        raise PlanError("needs one number per example", place="difficulty", value=values.shape)
    if not np.issubdtype(values.dtype, np.integer) and not np.issubdtype(values.dtype, np.floating):
        raise PlanError("not an array of numbers", place="difficulty", value=values.dtype)
    if n is not None and values.size != n:
        raise PlanError(
            f"{values.size} difficulties for {n} examples",
            place="difficulty",
            value=values.size,
            remedy="Give one per example, in the order of the data set",
        )
    number, first = 0, -1
    for i in range(0, values.size, _CHUNK):
        bad = np.flatnonzero(np.isnan(values[i : i + _CHUNK]))
        first = i + int(bad[0]) if bad.size and not number else first
        number += bad.size
    if number:
        raise PlanError(
            f"{number} difficulties are not numbers",
            place=f"difficulty[{first}]",
            value=float("nan"),
            remedy="Score these examples, or leave them out",
        )
    return values


def _signed(kind: np.dtype[Any]) -> np.dtype[Any]:
    """A type that holds the negative of every number of another one."""
    if kind == np.uint64:
        return np.dtype(np.float64)
    return np.dtype(f"i{2 * kind.itemsize}") if np.issubdtype(kind, np.unsignedinteger) else kind


# Difficulties from what is at hand


def length_difficulty(items: Iterable[Any]) -> Difficulty:
    """The length of each text or token list.

    >>> length_difficulty(["a", "abc"]).tolist()
    [1, 3]
    """
    return np.fromiter((len(item) for item in items), dtype=np.int64)


def rarity_difficulty(items: Sequence[Sequence[Any]]) -> Difficulty:
    """How rare an example's tokens are: the sum of -log of each token's share of the corpus.

    Platanios et al., 2019, "Competence-based Curriculum Learning for Neural Machine Translation",
    arXiv 1903.09848, equation 2. Texts are split at white space.

    >>> rarity_difficulty([["a", "a"], ["a", "b"]]).round(3).tolist()
    [0.575, 1.674]
    """
    tokens = [item.split() if isinstance(item, str) else item for item in items]
    numbers: dict[Any, int] = {}
    for token in (token for item in tokens for token in item):
        numbers[token] = numbers.get(token, 0) + 1
    whole = sum(numbers.values())
    cost = {token: -float(np.log(number / whole)) for token, number in numbers.items()}
    return np.asarray([sum(cost[token] for token in item) for item in tokens], dtype=np.float64)


def column_difficulty(dataset: Any, column: str, rows: int = 65536) -> Difficulty:
    """A numeric column of a Hugging Face data set, of a table or of a mapping; else its lengths."""
    names = getattr(dataset, "column_names", None) or list(getattr(dataset, "keys", list)())
    if column not in names:
        from trainplan.errors import nearest

        raise PlanError(
            "the data set has no such column",
            place="difficulty.column",
            value=column,
            remedy=nearest(column, [str(name) for name in names]),
        )
    if not hasattr(dataset, "select"):
        return _numbers(dataset[column])
    parts = [dataset[i : i + rows][column] for i in range(0, len(dataset), rows)]
    return np.concatenate([_numbers(part) for part in parts])


def _numbers(values: Any) -> Difficulty:
    first = values[0] if len(values) else 0.0
    return length_difficulty(values) if hasattr(first, "__len__") else np.asarray(values)


def group_difficulty(groups: Any, order: Sequence[Any]) -> Indices:
    """(n,) place of each example's group (class, domain, source) in an order of the groups.

    ``Curriculum(group_difficulty(labels, order), within="sorted")`` shows one class after another.

    Args:
        groups: (n,) group of each example.
        order: All groups, first ones first; those in a list of their own share a place.

    Raises:
        PlanError: If a group is not in the order, or stands in it twice.

    >>> group_difficulty(["b", "a", "c"], ["c", ["a", "b"]]).tolist()
    [1, 1, 0]
    """
    place: dict[Any, int] = {}
    for k, entry in enumerate(order):
        for name in entry if isinstance(entry, (list, tuple)) else (entry,):
            if name in place:
                raise PlanError("stands in the order twice", place=f"order[{k}]", value=name)
            place[name] = k
    named = np.asarray(groups.cpu() if hasattr(groups, "cpu") else groups)
    names, codes = np.unique(named, return_inverse=True)
    lost = [name for name in names.tolist() if name not in place]
    if lost:
        remedy = "Name every group of the data"
        raise PlanError(f"has no place for {lost[0]!r}", place="order", value=order, remedy=remedy)
    return np.asarray([place[name] for name in names.tolist()], np.int64)[codes]


def random_difficulty(n: int, seed: int = 0) -> Difficulty:
    """No difficulty at all, as a control: the same pacing over a random ranking.

    >>> random_difficulty(4).shape
    (4,)
    """
    return (priorities(n, seed, _TIES) >> np.uint64(11)) * 2.0**-53


Control = Literal["curriculum", "anti", "random"]


def controls(difficulty: npt.ArrayLike, seed: int = 0) -> dict[Control, Ranking]:
    """The three arms of a fair comparison: easy first, hard first, and a random ranking.

    With the same pacing, number of steps and seed all three see as many samples, and equally many
    different ones.

    >>> {name: r.examples.tolist() for name, r in controls([3, 1, 2]).items()}["anti"]
    [0, 2, 1]
    """
    values = checked_difficulty(difficulty)
    return {
        "curriculum": Ranking(values, seed),
        "anti": Ranking(values, seed, hardest_first=True),
        "random": Ranking(random_difficulty(values.size, seed), seed),
    }
