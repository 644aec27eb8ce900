"""Use each batch of a slow loader several times: pieces of it are mixed into later ones.

Where small images make the steps cheap, reading them is what takes time. Wang et al., 2024,
"EfficientTrain++: Generalized Curriculum Learning for Efficient Visual Backbone Training", arXiv
2405.08768.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainplan.data.hashing import checked_seed
from trainplan.errors import PlanError
from trainplan.schedules.values import count


class BatchReplay:
    """Lengthens batches with pieces of recent ones.

    A fresh batch is cut into pieces, which join a queue of the latest; then ``replays - 1`` times
    as many are drawn from the queue, evenly and with replacement, and put behind the fresh batch.
    The loader's batch has to be so many times smaller. Mix images (mixup, cutmix) afterwards. What
    is drawn is a function of the seed and of how many batches there were.

    Args:
        replays: How often an example is used, on average; 1 changes nothing.
        batches: How many batches the queue holds (1920 for 4 replays, 256 for 2 in the authors'
            code); all of them are kept in memory, and in the state.
        pieces: Into how many a batch is cut; its size must be a multiple.
        seed: Of the draws.

    >>> replay = BatchReplay(replays=2, batches=4, pieces=2)
    >>> images, labels = replay(torch.zeros(4, 3, 8, 8), torch.arange(4))
    >>> images.shape, labels[:4].tolist()
    (torch.Size([8, 3, 8, 8]), [0, 1, 2, 3])
    """

    def __init__(
        self, replays: int, batches: int = 256, *, pieces: int = 32, seed: int = 0
    ) -> None:
        self.replays, self.pieces = count(replays, "replays"), count(pieces, "pieces")
        self.seed = checked_seed(seed)
        self._queue: deque[tuple[Tensor, ...]] = deque(maxlen=count(batches, "batches") * pieces)
        self._taken = 0

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The batch and what is replayed.

        Args:
            *batch: Tensors of one batch, examples first: images, labels, ...

        Raises:
            PlanError: If they are not of one length that is a multiple of ``pieces``.
        """
        sizes = {len(tensor) for tensor in batch}
        if len(sizes) != 1 or min(sizes) % self.pieces:
            raise PlanError(
                f"a batch must be a multiple of {self.pieces} examples",
                place="batch",
                value=[len(tensor) for tensor in batch],
                remedy="Drop the last batch, or give other pieces",
            )
        if self.replays == 1:
            return batch
        self._queue.extend(zip(*(tensor.chunk(self.pieces) for tensor in batch), strict=True))
        random = np.random.default_rng((self.seed, self._taken))
        self._taken += 1
        drawn = random.integers(len(self._queue), size=(self.replays - 1) * self.pieces)
        columns = zip(*(self._queue[i] for i in drawn), strict=True)
        return tuple(torch.cat([fresh, *old]) for fresh, old in zip(batch, columns, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """How many batches there were, and the queue as tensors with the oldest piece first."""
        columns = [torch.stack(column) for column in zip(*self._queue, strict=True)]
        return {"taken": self._taken, "queue": columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        if set(state) != {"taken", "queue"}:
            raise PlanError("not a state of replayed batches", place="state", value=sorted(state))
        self._taken = count(state["taken"], "state.taken", least=0)
        self._queue.clear()
        self._queue.extend(zip(*(column.unbind() for column in state["queue"]), strict=True))
