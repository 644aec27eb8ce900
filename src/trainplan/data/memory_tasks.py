"""Tasks whose answer depends on the last N bits of a sequence, for any number of N at once.

N-parity: whether the sum of the last N bits is odd. N-delayed match: whether the bit N - 1 steps
ago equals the last one. Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius and Levina, 2023,
arXiv 2309.12927, train recurrent networks on them with growing N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

Bits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def parity(bits: Any, n: int) -> Labels:
    """(B,) whether the sum of the last n of (T, B) bits is odd.

    >>> parity([[1], [1], [0]], 2).tolist(), parity([[1], [1], [0]], 3).tolist()
    ([1], [0])
    """
    odd: Labels = _read(bits, n)[-n:].sum(axis=0) % 2
    return odd


def delayed_match(bits: Any, n: int) -> Labels:
    """(B,) whether the bit n - 1 steps before the last of (T, B) bits equals the last.

    >>> delayed_match([[1], [1], [0]], 2).tolist(), delayed_match([[0], [1], [0]], 3).tolist()
    ([0], [1])
    """
    read = _read(bits, n)
    equal: Labels = (read[-n] == read[-1]).astype(np.int64)
    return equal


def _read(bits: Any, n: int) -> Labels:
    read = np.asarray(bits).astype(np.int64)
    if read.ndim != 2 or not 1 <= n <= len(read):
        remedy = "Give (T, B) bits with T at least N"
        raise PlanError("too short", place="bits", value=read.shape, remedy=remedy)
    return read


TASKS: dict[str, Callable[[Any, int], Labels]] = {
    "parity": parity,
    "delayed-match": delayed_match,
}


def length_range(longest: int) -> tuple[int, int]:
    """From which to below which length sequences are drawn: N + 2 to 4 N + 2 for the largest N.

    Sequences must be longer than N, or all that was seen since the start would answer.

    >>> length_range(5)
    (7, 22)
    """
    n = count(longest, "longest")
    return n + 2, 4 * n + 2


@dataclass(frozen=True)
class MemoryTask:
    """Batches of bits and their labels, each a function of its number.

    For parity every sequence draws how often its bits are 1, from none to all; without that, it is
    much harder to begin. All sequences of a batch have one length.

    Args:
        kind: ``parity`` or ``delayed-match``.
        batch_size: Sequences in a batch.
        seed: Of everything random; the batches of another use need another one.

    >>> task = MemoryTask("parity", batch_size=4)
    >>> bits, labels = task.batch(0, [2, 3])
    >>> bits.shape[1:], sorted(labels), labels[3].shape
    ((4, 1), [2, 3], (4,))
    """

    kind: str = "parity"
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in TASKS:
            remedy = nearest(self.kind, TASKS)
            raise PlanError("unknown", place="kind", value=self.kind, remedy=remedy)
        object.__setattr__(self, "batch_size", count(self.batch_size, "batch_size"))
        checked_seed(self.seed)

    def batch(self, step: int, horizons: Iterable[int]) -> tuple[Bits, dict[int, Labels]]:
        """Batch ``step`` for some N.

        Returns:
            Bits (T, B, 1), and labels (B,) for each N.
        """
        wanted = [count(n, "horizons") for n in horizons]
        if not wanted:
            raise PlanError("there is no N", place="horizons", value=wanted)
        random = np.random.default_rng((self.seed, count(step, "step", least=0)))
        low, high = length_range(max(wanted))
        length = int(random.integers(low, high))
        share = random.random(self.batch_size) if self.kind == "parity" else 0.5
        bits = (random.random((length, self.batch_size)) < share).astype(np.float32)
        return bits[:, :, None], {n: TASKS[self.kind](bits, n) for n in wanted}


class Horizons(Protocol):
    """Whatever says which N are trained now, such as a `HorizonCurriculum`."""

    @property
    def active(self) -> Sequence[int]:
        """N in ascending order."""
        ...


@dataclass(frozen=True)
class MemoryStream:
    """A task under a curriculum as a map-style data set: item ``step`` is that step's batch.

    Give it to a ``DataLoader`` with ``batch_size=None`` and no workers, which would not hear of
    the curriculum's changes.

    Args:
        task: What is asked.
        horizons: Which N; read when a batch is made.
        steps: Number of batches.

    >>> from trainplan.data import HorizonCurriculum
    >>> stream = MemoryStream(MemoryTask(batch_size=4), HorizonCurriculum("cumulative"), 10)
    >>> len(stream), sorted(stream[3][1])
    (10, [2])
    """

    task: MemoryTask
    horizons: Horizons
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Bits, dict[int, Labels]]:
        if not 0 <= step < self.steps:
            raise IndexError(f"steps lie in 0 to {self.steps - 1}")
        return self.task.batch(step, self.horizons.active)
