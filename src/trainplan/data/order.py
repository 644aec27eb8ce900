"""An order of examples that is computed, not stored.

`Order` gives any stretch of a random permutation of n examples at once, for any n up to 2^48, in
memory that does not depend on n. It is a pure function of (seed, epoch, position): nothing is
lost on resume, every rank computes the same one, and `position_of` inverts it.

Up to 65536 examples the permutation sorts examples by a hash, which is uniform even for five of
them. Above, it is a Feistel network on a near-square grid (Black and Rogaway, 2002, "Ciphers with
arbitrary finite domains"), with eight rounds of two multiplications: fewer fail statistical tests
(``benchmarks/data_order.py --quality``). It is meant for training, not for lotteries.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed, keys, priorities
from trainplan.errors import PlanError
from trainplan.schedules.values import count

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

VERSION: Final = 1
"""Of the algorithm; kept in states. Another output for any input would be another version."""
LARGEST: Final = 1 << 48
_SORTED: Final = 1 << 16
"""Up to so many examples the permutation is sorted, above it is computed."""
_BLOCK: Final = 1 << 14
"""Arrays of this length stay in the processor's cache, and are never given back to the system."""
_ROUNDS: Final = 8
_FIRST, _SECOND = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_32 = np.uint64(32)


class Order:
    """A permutation of 0..n-1 for every epoch, computed where it is read.

    Positions count samples from the start of the run: position p is example ``p % n`` of epoch
    ``p // n``, so that the order goes on without end and is shuffled anew in each epoch.

    Args:
        n: Number of examples, 1 to 2^48.
        seed: 0 to 2^128 - 1. Epoch 1 of seed 0 is not epoch 0 of seed 1.
        stream: Another use of the same seed, such as another data set; its orders are unrelated.
        reshuffle: Whether each epoch has an order of its own.

    >>> order = Order(10, seed=0)
    >>> order[0], order[:4].tolist()
    (5, [5, 4, 9, 0])
    >>> sorted(order[10:20].tolist()) == list(range(10))
    True
    >>> Order(10**12)[:2].tolist(), order.position_of(9)
    ([202112136842, 317912371066], 2)
    """

    __slots__ = ("_held", "_tables", "n", "reshuffle", "seed", "stream")

    def __init__(self, n: int, seed: int = 0, *, stream: int = 0, reshuffle: bool = True) -> None:
        self.n = count(n, "n", most=LARGEST)
        self.seed = checked_seed(seed)
        self.stream = stream
        self.reshuffle = reshuffle
        self._tables: dict[int, npt.NDArray[np.uint32]] = {}
        self._held: tuple[int, int, Indices] = (-1, -1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, position: int) -> int: ...
    @overload
    def __getitem__(self, position: slice | Indices) -> Indices: ...
    def __getitem__(self, position: Any) -> Any:
        """The example, or examples, at positions of the whole run."""
        if isinstance(position, slice):
            if position.step not in (None, 1) or position.stop is None:
                raise PlanError(
                    "an order has no end", place="position", value=position, remedy="Write a:b"
                )
            first = count(position.start or 0, "position", least=0)
            return self.block(first, max(count(position.stop, "position", least=0) - first, 0))
        if isinstance(position, np.ndarray):
            return self._scattered(position)
        return int(self.block(count(position, "position", least=0), 1)[0])

    def __iter__(self) -> Iterator[int]:
        """Examples as Python numbers, for ever."""
        return self.iterate(0)

    def iterate(self, position: int = 0) -> Iterator[int]:
        """Examples as Python numbers from a position on, for ever."""
        first = count(position, "position", least=0)
        blocks = (self.block(start, _BLOCK).tolist() for start in itertools.count(first, _BLOCK))
        return itertools.chain.from_iterable(blocks)

    def block(self, first: int, number: int) -> Indices:
        """The examples at ``number`` positions from ``first`` on, across epochs.

        Returns:
            (number,) examples; a new array.
        """
        epoch, offset = divmod(first, self.n)
        if offset + number <= self.n:
            return self.stretch(epoch, offset, number)
        parts = []
        while number > 0:
            taken = min(number, self.n - offset)
            parts.append(self.stretch(epoch, offset, taken))
            epoch, offset, number = epoch + 1, 0, number - taken
        return np.concatenate(parts)

    def stretch(self, epoch: int, offset: int, number: int) -> Indices:
        """The examples at ``number`` offsets from ``offset`` on, within one epoch."""
        if offset < 0 or number < 0 or offset + number > self.n:
            raise PlanError(
                f"an epoch has the offsets 0 to {self.n - 1}",
                place="offset",
                value=(offset, offset + number),
            )
        epoch = epoch if self.reshuffle else 0
        if self.n <= _SORTED:
            return self._table(epoch)[offset : offset + number].astype(np.int64)
        if number >= _BLOCK:
            out = np.empty(number, np.int64)
            for i in range(0, number, _BLOCK):
                part = out[i : i + _BLOCK]
                self._compute(epoch, offset + i, part)
            return out
        # A small stretch is cut out of a block that is kept, since a call costs as much as
        # some thousand examples.
        index, inside = divmod(offset, _BLOCK)
        piece = self._block_of(epoch, index)[inside : inside + number]
        if piece.size == number:
            return piece.copy()
        return np.concatenate([piece, self._block_of(epoch, index + 1)[: number - piece.size]])

    def position_of(self, example: Any, epoch: int = 0) -> Any:
        """Where in an epoch an example (or an array of them) stands: the inverse.

        >>> order = Order(10**9, seed=3)
        >>> order.position_of(order[123_456_789])
        123456789
        """
        one = not isinstance(example, np.ndarray)
        examples = np.atleast_1d(np.asarray(example))
        _check_range(examples, self.n, "example")
        epoch = epoch if self.reshuffle else 0
        if self.n <= _SORTED:
            inverse = np.empty(self.n, np.int64)
            inverse[self._table(epoch)] = np.arange(self.n)
            offsets = inverse[examples]
        else:
            offsets = examples.astype(np.int64).reshape(-1)
            permute_back(offsets, self.n, self._keys(epoch))
            offsets = offsets.reshape(examples.shape)
        return int(offsets[0]) if one else offsets

    def _scattered(self, positions: npt.NDArray[Any]) -> Indices:
        """Examples at any positions, in any order."""
        flat: Indices = np.asarray(positions, dtype=np.int64).reshape(-1)
        if flat.size and flat.min() < 0:
            raise PlanError("a position is below zero", place="position", value=int(flat.min()))
        epochs, offsets = np.divmod(flat, self.n)
        for epoch in np.unique(epochs).tolist():
            chosen = np.flatnonzero(epochs == epoch)
            offsets[chosen] = self.at_offsets(offsets[chosen], epoch)
        return offsets.reshape(positions.shape)

    def at_offsets(self, offsets: npt.NDArray[Any], epoch: int = 0) -> Indices:
        """The examples at any offsets (k,) of an epoch, each from 0 to n - 1."""
        _check_range(offsets, self.n, "offset")
        epoch = epoch if self.reshuffle else 0
        out: Indices = offsets.astype(np.int64)
        if self.n <= _SORTED:
            out[...] = self._table(epoch)[out]
            return out
        permute(out, self.n, self._keys(epoch))
        return out

    def _keys(self, epoch: int) -> tuple[int, ...]:
        return keys(_ROUNDS, self.seed, self.stream, epoch)

    def _compute(self, epoch: int, offset: int, out: Indices) -> None:
        np.add(_ramp()[: out.size], offset, out=out)
        permute(out, self.n, self._keys(epoch))

    def _block_of(self, epoch: int, index: int) -> Indices:
        held = self._held
        if held[:2] != (epoch, index):
            block = np.empty(min(_BLOCK, self.n - index * _BLOCK), np.int64)
            self._compute(epoch, index * _BLOCK, block)
            self._held = held = (epoch, index, block)
        return held[2]

    def _table(self, epoch: int) -> npt.NDArray[np.uint32]:
        table = self._tables.get(epoch)
        if table is None:
            hashes = priorities(self.n, self.seed, self.stream, epoch)
            table = np.argsort(hashes, kind="stable").astype(np.uint32)
            # Two epochs, as a batch may hold the end of one and the start of the next.
            self._tables = {**dict(list(self._tables.items())[-1:]), epoch: table}
        return table

    def shared(self) -> Order:
        """The equal order that all of this process uses, with what it has computed."""
        return _shared(*self._arguments())

    def _arguments(self) -> tuple[int, int, int, bool]:
        return (self.n, self.seed, self.stream, self.reshuffle)

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, self._arguments()

    def __eq__(self, other: object) -> bool:
        return self._arguments() == other._arguments() if isinstance(other, Order) else False

    def __hash__(self) -> int:
        return hash(self._arguments())

    def __repr__(self) -> str:
        stream = f", stream={self.stream}" if self.stream else ""
        same = "" if self.reshuffle else ", reshuffle=False"
        return f"Order({self.n}, seed={self.seed}{stream}{same})"


@lru_cache(maxsize=64)
def _shared(n: int, seed: int, stream: int, reshuffle: bool) -> Order:
    """One order per process: a loader's worker keeps what it has computed between batches."""
    return Order(n, seed, stream=stream, reshuffle=reshuffle)


def permute(numbers: Indices, n: int, round_keys: tuple[int, ...]) -> None:
    """Replace each number x < n by its image under the Feistel permutation of 0..n-1, in place."""
    _in_blocks(numbers, n, round_keys, _rounds)


def permute_back(numbers: Indices, n: int, round_keys: tuple[int, ...]) -> None:
    """Undo `permute`, in place."""
    _in_blocks(numbers, n, round_keys, _rounds_back)


def _in_blocks(numbers: Indices, n: int, round_keys: tuple[int, ...], rounds: Any) -> None:
    a, b = grid(n)
    words = numbers.view(np.uint64)
    for i in range(0, words.size, _BLOCK):
        block = words[i : i + _BLOCK]
        rounds(block, a, b, round_keys)
        # The grid has up to a - 1 cells too many. A number that lands there walks on until it
        # lands inside, which it must, because the walk is a cycle that began inside.
        outside = np.flatnonzero(block >= np.uint64(n))
        while outside.size:
            walking = block[outside]
            rounds(walking, a, b, round_keys)
            block[outside] = walking
            outside = outside[walking >= np.uint64(n)]


def grid(n: int) -> tuple[int, int]:
    """Sides a, b of the smallest near-square grid with at least n cells: a b - n < a."""
    a = math.isqrt(n - 1) + 1
    return a, -(-n // a)


def _rounds(x: Words, a: int, b: int, round_keys: tuple[int, ...]) -> None:
    left, right, h, spare = (buffer[: x.size] for buffer in _buffers())
    np.floor_divide(x, np.uint64(b), out=left)
    np.multiply(left, np.uint64(b), out=h)
    np.subtract(x, h, out=right)
    for i, round_key in enumerate(round_keys):
        moved, other, m = (left, right, np.uint64(a)) if i % 2 == 0 else (right, left, np.uint64(b))
        _scramble(other, round_key, m, h, spare)
        np.add(moved, h, out=moved)
        np.subtract(moved, m, out=h)
        # Modulo m without a division: what is below m has wrapped to a huge number in h.
        np.minimum(moved, h, out=moved)
    np.multiply(left, np.uint64(b), out=x)
    np.add(x, right, out=x)


def _rounds_back(x: Words, a: int, b: int, round_keys: tuple[int, ...]) -> None:
    left, right, h, spare = (buffer[: x.size] for buffer in _buffers())
    np.floor_divide(x, np.uint64(b), out=left)
    np.multiply(left, np.uint64(b), out=h)
    np.subtract(x, h, out=right)
    for i in reversed(range(len(round_keys))):
        moved, other, m = (left, right, np.uint64(a)) if i % 2 == 0 else (right, left, np.uint64(b))
        _scramble(other, round_keys[i], m, h, spare)
        np.subtract(moved, h, out=moved)
        np.add(moved, m, out=h)
        np.minimum(moved, h, out=moved)
    np.multiply(left, np.uint64(b), out=x)
    np.add(x, right, out=x)


def _scramble(q: Words, round_key: int, m: np.uint64, h: Words, spare: Words) -> None:
    """The round function, a number below m for each q, into ``h``."""
    np.add(q, np.uint64(round_key), out=h)
    np.multiply(h, _FIRST, out=h)
    np.right_shift(h, _32, out=spare)
    np.bitwise_xor(h, spare, out=h)
    np.multiply(h, _SECOND, out=h)
    np.right_shift(h, _32, out=h)
    np.multiply(h, m, out=h)
    np.right_shift(h, _32, out=h)


@lru_cache(maxsize=1)
def _ramp() -> Indices:
    """0 to the end of a block; shifted, it is any stretch of offsets."""
    return np.arange(_BLOCK)


_LOCAL = threading.local()


def _buffers() -> list[Words]:
    """Four work arrays of this thread, allocated once: new ones cost more than the arithmetic."""
    buffers: list[Words] | None = getattr(_LOCAL, "buffers", None)
    if buffers is None:
        buffers = _LOCAL.buffers = [np.empty(_BLOCK, np.uint64) for _ in range(4)]
    return buffers


def _check_range(numbers: npt.NDArray[Any], n: int, place: str) -> None:
    if numbers.size and not (int(numbers.min()) >= 0 and int(numbers.max()) < n):
        bad = numbers[(numbers < 0) | (numbers >= n)].reshape(-1)[0]
        raise PlanError(f"must lie in 0 to {n - 1}", place=place, value=int(bad))
