"""What an order will show, known before the run: how often, which part, and what never."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainplan.data.curriculum import Curriculum
from trainplan.data.sources import Source
from trainplan.errors import PlanError
from trainplan.schedules.values import count


@dataclass(frozen=True)
class Exposure:
    """How often examples are seen in a stretch of a run.

    Attributes:
        samples: Examples shown, repeats included.
        never: Examples that are not shown.
        most: How often the most frequent example is shown.
        deciles: (10,) mean number of times that an example of each tenth is shown; tenths from
            easy to hard for a curriculum, else in the order of the data.
    """

    samples: int
    never: int
    most: int
    deciles: tuple[float, ...]

    @property
    def seen(self) -> float:
        """Mean number of times that an example is shown."""
        return float(np.mean(self.deciles))


def exposures(source: Source, steps: int | None = None) -> npt.NDArray[np.int64]:
    """(n,) how often each example is shown in the first ``steps`` steps.

    Raises:
        PlanError: If the source listens to the run, so that nobody knows yet.
    """
    if source.lag is not None:
        raise PlanError(
            "what this order shows depends on what the run reports", place="source", value=source
        )
    steps = source.steps if steps is None else count(steps, "steps", least=0)
    if steps is None:
        raise PlanError("a run without an end", place="steps", value=None, remedy="Give steps=")
    counts = np.zeros(source.n, np.int64)
    for step in range(steps):
        if not source.exists(step):
            break
        np.add.at(counts, source.examples(step, 0, source.size(step)), 1)
    return counts


def describe(source: Source, steps: int | None = None) -> Exposure:
    """Sum up what a source will show in its first ``steps`` steps (by default all of its run).

    >>> from trainplan.data import Curriculum, Shuffle
    >>> describe(Shuffle(100, 10, epochs=2)).deciles[0]
    2.0
    >>> describe(Curriculum(range(100), 0.2, 10), steps=10)
    Exposure(samples=100, never=80, most=5, deciles=(5.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    """  # noqa: E501 - a doctest's output cannot be broken
    counts = exposures(source, steps)
    ranked = counts[source.ranking.examples] if isinstance(source, Curriculum) else counts
    tenths = [part.mean() if part.size else 0.0 for part in np.array_split(ranked, 10)]
    return Exposure(
        samples=int(counts.sum()),
        never=int((counts == 0).sum()),
        most=int(counts.max()),
        deciles=tuple(float(tenth) for tenth in tenths),
    )
