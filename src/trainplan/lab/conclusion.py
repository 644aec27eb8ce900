"""Say in plain words what a comparison found, and where it found nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainplan.lab.statistics import paired_p_value

if TYPE_CHECKING:
    from trainplan.lab.results import Comparison, Summary

LEVEL = 0.05
"""A difference is called one if its p-value, adjusted for the number of arms, is at most this."""


def conclude(comparison: Comparison) -> list[str]:
    """The conclusion as a few sentences, the most important first."""
    summaries = comparison.summaries
    sentences = [
        *_against_first(summaries),
        *_best(summaries),
        *_diverged(summaries),
        *_at_the_edge(comparison),
    ]
    if len(summaries) > 1:
        sentences.append(_scope(comparison))
    return sentences


def differs(summary: Summary) -> bool:
    """Whether an arm's final loss is detectably different from the first arm's."""
    return summary.p_value is not None and summary.p_value <= LEVEL


def _against_first(summaries: Sequence[Summary]) -> list[str]:
    first, others = summaries[0], summaries[1:]
    seeds = len(first.finals)
    if not others:
        return [f"{first.arm}: final validation loss {_mean(first)} ({_seeds(seeds)})."]
    if seeds < 2:
        return [
            "No difference detectable: one seed cannot tell arms apart, because another seed may "
            "order them differently. Run at least five."
        ]
    lower = [s for s in others if differs(s) and _estimate(s) < 0]
    higher = [s for s in others if differs(s) and _estimate(s) > 0]
    undecided = [s for s in others if not differs(s) and not s.diverged]
    sentences = []
    if lower:
        sentences.append(f"Lower final validation loss than {first.arm}: {_listed(lower)}.")
    if higher:
        sentences.append(f"Higher final validation loss than {first.arm}: {_listed(higher)}.")
    if undecided:
        names = ", ".join(s.arm for s in undecided)
        sentences.append(f"No difference detectable from {first.arm}: {names} ({_seeds(seeds)}).")
    return sentences


def _best(summaries: Sequence[Summary]) -> list[str]:
    """The lowest mean, and which arms it cannot be told apart from."""
    sound = sorted((s for s in summaries if not s.diverged), key=lambda s: s.mean.estimate)
    if len(sound) < 2 or len(sound[0].finals) < 2:
        return []
    best, rest = sound[0], sound[1:]
    # Every arm could have been the best one, so each pair of arms counts as a look.
    looks = len(sound) * (len(sound) - 1) / 2
    close = [s for s in rest if paired_p_value(s.finals, best.finals) * looks > LEVEL]
    sentence = f"Lowest mean: {best.arm} ({_mean(best)})"
    if not close:
        return [f"{sentence}, detectably lower than every other arm."]
    names = ", ".join(s.arm for s in close)
    return [
        f"{sentence}; taking every pair of arms into account, no difference is detectable between "
        f"it and {names}."
    ]


def _diverged(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{s.arm} diverged on {len(s.diverged)} of {_seeds(len(s.finals))} (seeds "
        f"{', '.join(map(str, s.diverged))}): its loss was no longer finite."
        for s in summaries
        if s.diverged
    ]


def _at_the_edge(comparison: Comparison) -> list[str]:
    grid = comparison.grid
    edge = [a for a, f in comparison.factors.items() if len(grid) > 1 and f in (grid[0], grid[-1])]
    if not edge:
        return []
    return [
        f"The best peak of {', '.join(edge)} is the smallest or largest that was tried, so a "
        "better one may lie beyond."
    ]


def _scope(comparison: Comparison) -> str:
    peaks = (
        "each arm at its best peak of one grid"
        if comparison.factors
        else "all arms as written, none with a peak tuned for it (--tune-peak does that)"
    )
    workload = comparison.experiment.workload.path
    return f"This holds for the workload {workload} at this budget, with {peaks}."


def _listed(summaries: Sequence[Summary]) -> str:
    ordered = sorted(summaries, key=_estimate)
    return ", ".join(f"{s.arm} ({_difference(s)})" for s in ordered)


def _difference(summary: Summary) -> str:
    difference = summary.difference
    if difference is None:
        return "the reference"
    return (
        f"{difference.estimate:+.4f}, 95% interval {difference.low:+.4f} to {difference.high:+.4f}"
    )


def _estimate(summary: Summary) -> float:
    return 0.0 if summary.difference is None else summary.difference.estimate


def _mean(summary: Summary) -> str:
    mean = summary.mean
    if len(summary.finals) < 2:
        return f"{mean.estimate:.4f}"
    return f"{mean.estimate:.4f}, 95% interval {mean.low:.4f} to {mean.high:.4f}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
