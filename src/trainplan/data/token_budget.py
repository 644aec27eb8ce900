"""Steps of about as many tokens each, from examples of known lengths: memory stays level."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Indices
from trainplan.data.sources import Source
from trainplan.data.varied_batches import VariedBatches
from trainplan.errors import PlanError
from trainplan.schedules.values import count

_BLOCK = 4096


class TokenBudget(VariedBatches):
    """The examples of another source, in its order, as many in each step as a budget holds.

    Which examples a step has depends on the source and the budget alone, not on ranks or workers.
    What does not fill a last step is left out.

    Args:
        source: As for `VariedBatches`; its own batch size plays no part.
        lengths: (n,) tokens of each example.
        tokens_per_step: The budget, over all ranks and accumulated micro-batches.
        steps: Length of the run; by default until the source ends.
        multiple: Of what the numbers of examples are multiples: ranks * accumulation.
        padded: Whether all examples of a step count as long as the longest one.

    Attributes:
        longest: (steps,) tokens of each step's longest example; ``BatchSampler(source,
            shape=source.longest)`` has it travel with the examples.

    Raises:
        PlanError: If so many examples as ``multiple`` are over the budget; the step is named.

    >>> from trainplan.data import Shuffle
    >>> source = TokenBudget(Shuffle(6, 2, epochs=1, tail="wrap"), [9, 1, 2, 3, 4, 5], 10)
    >>> [source.size(t) for t in range(source.steps)], source.longest.tolist()
    ([2, 1], [5, 9])
    """

    longest: Indices

    def __init__(
        self,
        source: Source,
        lengths: npt.ArrayLike,
        tokens_per_step: int,
        *,
        steps: int | None = None,
        multiple: int = 1,
        padded: bool = True,
    ) -> None:
        self.budget, self.padded = count(tokens_per_step, "tokens_per_step"), bool(padded)
        self.multiple = count(multiple, "multiple")
        self.lengths = _checked(lengths, source.n)
        if steps is None and source.steps is None:
            raise PlanError(
                "neither the run nor its data end",
                place="steps",
                value=None,
                remedy="Give steps=..., or a source with epochs",
            )
        packed = list(self._pack(source, None if steps is None else count(steps, "steps")))
        if not packed:
            raise PlanError(
                "the data do not fill a step", place="tokens_per_step", value=self.budget
            )
        sizes, longest = zip(*packed, strict=True)
        self.longest = np.array(longest)
        super().__init__(source, np.array(sizes), multiple=self.multiple)

    def _pack(self, source: Source, steps: int | None) -> Iterator[tuple[int, int]]:
        """Number of examples and longest one of each step."""
        known, begin, window = self._read(source, 0), 0, 64
        step = read = 0
        while steps is None or step < steps:
            ahead = known[begin : begin + window]
            fit = self._fit(ahead)
            if fit == window:
                window *= 2
                continue
            if fit == len(ahead):  # what is known ends before the budget does
                read += 1
                more = self._read(source, read)
                if not more.size:
                    return
                known, begin = np.concatenate([known[begin:], more]), 0
                continue
            taken = fit - fit % self.multiple
            if not taken:
                raise PlanError(
                    f"step {step} cannot hold {self.multiple} examples of up to "
                    f"{ahead[: self.multiple].max()} tokens",
                    place="tokens_per_step",
                    value=self.budget,
                    remedy="Raise it, cut the longest examples, or lower multiple",
                )
            yield taken, int(ahead[:taken].max())
            begin, step, window = begin + taken, step + 1, max(64, 2 * taken)

    def _fit(self, lengths: Indices) -> int:
        """How many of the next examples the budget holds."""
        if self.padded:
            tokens = np.maximum.accumulate(lengths) * np.arange(1, lengths.size + 1)
        else:
            tokens = np.cumsum(lengths)
        return int(np.searchsorted(tokens, self.budget, side="right"))

    def _read(self, source: Source, block: int) -> Indices:
        """The lengths of a block of the stream; the last block is shorter."""
        first, size = block * _BLOCK, _BLOCK
        if source.steps is not None:
            size = max(min(size, source.position(source.steps) - first), 0)
        return self.lengths[source.stretch(first, size)]


def _checked(lengths: npt.ArrayLike, n: int) -> Indices:
    found = np.asarray(lengths)
    if found.shape != (n,) or found.dtype.kind not in "iu" or found.min() < 1:
        raise PlanError(
            f"not the lengths of {n} examples",
            place="lengths",
            value=found.shape,
            remedy="Give (n,) whole numbers, 1 or more",
        )
    return found.astype(np.int64)
