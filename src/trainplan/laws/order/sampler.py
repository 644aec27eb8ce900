"""Feed a data loader in an order of batches, such as the one a search found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler

from trainplan.errors import PlanError
from trainplan.laws.order.training import full_order
from trainplan.schedules.values import count


class OrderedBatchSampler(Sampler[list[int]]):
    """Gives the same batches in another order; for ``DataLoader(..., batch_sampler=...)``.

    Batch ``j`` holds the examples ``j * batch_size`` to ``(j + 1) * batch_size``, the last one what
    is left: it is what ``DataLoader(batch_size=...)`` makes of the data without shuffling.

    Args:
        examples: How many there are.
        batch_size: Of each batch.
        order: A permutation of the batches; by default their own order.
        drop_last: Leave out a last batch that is smaller.

    Raises:
        PlanError: If the order is no permutation of the batches.

    Example:
        >>> sampler = OrderedBatchSampler(5, batch_size=2, order=[2, 0, 1])
        >>> list(sampler), sampler.indices()
        ([[4], [0, 1], [2, 3]], [4, 0, 1, 2, 3])
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        order: Sequence[int] | None = None,
        *,
        drop_last: bool = False,
    ) -> None:
        self.examples, self.batch_size = (
            count(examples, "examples"),
            count(batch_size, "batch_size"),
        )
        whole, left = divmod(self.examples, self.batch_size)
        number = whole + (1 if left and not drop_last else 0)
        if not number:
            raise PlanError("larger than the data", place="batch_size", value=batch_size)
        self.order = full_order(range(number) if order is None else order, number, number)
        self._position = 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[int]]:
        while self._position < len(self.order):
            j = self.order[self._position]
            self._position += 1
            begin = j * self.batch_size
            yield list(range(begin, min(begin + self.batch_size, self.examples)))
        self._position = 0

    def indices(self) -> list[int]:
        """The examples in order; for ``dataset.select`` of Hugging Face datasets."""
        size = self.batch_size
        return [i for j in self.order for i in range(j * size, min((j + 1) * size, self.examples))]

    def state_dict(self) -> dict[str, Any]:
        """The order and how many batches of the pass were given."""
        return {"order": list(self.order), "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in a pass that was stopped."""
        self.order = full_order(state["order"], len(self.order), len(self.order))
        self._position = int(state["position"])
