"""Find the stages of bandwidth for your own data, first stage first.

Wang et al., 2023, EfficientTrain, arXiv 2211.09703, find theirs so. Every size that is tried costs
a whole run: search with a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite


@dataclass(frozen=True)
class GreedySearch:
    """What `greedy_bandwidths` found.

    Attributes:
        bandwidths: The smallest of each stage that keep the score.
        baseline: Score with the full size throughout.
        scores: Of every run that was made, by its bandwidths.
    """

    bandwidths: tuple[int, ...]
    baseline: float
    scores: dict[tuple[int, ...], float]


def greedy_bandwidths(
    stages: int,
    candidates: Sequence[int],
    evaluate: Callable[[tuple[int, ...]], float],
    tolerance: float = 0.0,
) -> GreedySearch:
    """Find the smallest bandwidth of each stage that keeps the final score, first stage first.

    All stages begin at the full size. Each in turn takes the smallest candidate, not below that of
    the stage before, with which the whole run scores at least the baseline less ``tolerance``.

    Args:
        stages: Number of equal stages.
        candidates: Bandwidths to try; the largest is the full size.
        evaluate: Trains with a bandwidth for each stage and returns the score, higher is better.
        tolerance: How much score may be lost.

    >>> found = greedy_bandwidths(3, (96, 160, 192, 224), lambda run: min(sum(run), 500))
    >>> found.bandwidths, len(found.scores)
    ((96, 192, 224), 6)
    """
    sizes = sorted({count(c, "candidates", least=2) for c in candidates})
    if not sizes:
        raise PlanError("there is nothing to try", place="candidates", value=candidates)
    chosen = [sizes[-1]] * count(stages, "stages")
    baseline = finite(float(evaluate(tuple(chosen))), "evaluate")
    scores = {tuple(chosen): baseline}
    least = baseline - finite(tolerance, "tolerance")
    for i in range(stages):
        for size in (s for s in sizes[:-1] if i == 0 or s >= chosen[i - 1]):
            run = (*chosen[:i], size, *chosen[i + 1 :])
            scores[run] = float(evaluate(run))
            if scores[run] >= least:
                chosen[i] = size
                break
    return GreedySearch(tuple(chosen), baseline, scores)
