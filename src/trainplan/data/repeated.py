"""Every example of a step several times, and every step several times: what rollouts need."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainplan.data.batches import Indices
from trainplan.data.sources import Source
from trainplan.errors import PlanError
from trainplan.schedules.values import count


class Repeated(Source):
    """Another source's steps, each shown several times, with several copies of each example.

    Group-based policy optimization (Shao et al., 2024, "DeepSeekMath", arXiv 2402.03300) compares
    several completions of a prompt, which must be in one batch, and may use them for several
    micro-batches.

    Args:
        source: Whose steps all have one size.
        copies: How often an example is in a step.
        uses: How often a step is shown before the next one.

    >>> from trainplan.data import Shuffle
    >>> source = Repeated(Shuffle(10, global_batch=2, epochs=1), copies=2, uses=2)
    >>> [source.examples(step, 0, 4).tolist() for step in range(4)]
    [[5, 5, 4, 4], [5, 5, 4, 4], [9, 9, 0, 0], [9, 9, 0, 0]]
    """

    def __init__(self, source: Source, copies: int, uses: int = 1) -> None:
        self.source = source
        self.copies, self.uses = count(copies, "copies"), count(uses, "uses")
        last = (source.steps_per_epoch or 1) - 1
        if source.uneven or source.size(last) != source.global_batch:
            raise PlanError(
                "its steps are not of one size",
                place="source",
                value=type(source).__name__,
                remedy="Give a source of fixed steps, such as Shuffle with tail='drop'",
            )
        self.n, self.seed = source.n, source.seed
        self.global_batch = source.global_batch * self.copies
        self.steps = None if source.steps is None else source.steps * self.uses
        per_epoch = source.steps_per_epoch
        self.steps_per_epoch = None if per_epoch is None else per_epoch * self.uses

    @property
    def lag(self) -> int | None:
        lag = self.source.lag
        return None if lag is None else lag * self.uses

    def examples(self, step: int, first: int, last: int) -> Indices:
        begin = first // self.copies
        inner = self.source.examples(step // self.uses, begin, -(-last // self.copies))
        skipped = begin * self.copies
        return np.repeat(inner, self.copies)[first - skipped : last - skipped]

    def exists(self, step: int) -> bool:
        return self.source.exists(step // self.uses)

    def settings(self) -> dict[str, Any]:
        return {**self.source.settings(), "copies": self.copies, "uses": self.uses}

    def state(self, step: int) -> dict[str, Any]:
        return self.source.state(step // self.uses)

    def load(self, state: dict[str, Any], step: int) -> None:
        self.source.load(state, step // self.uses)
