"""Preference pairs from disturbed input, and a schedule from easy pairs to hard ones.

TEMPLE (Li et al., 2025, arXiv 2503.16929): the chosen answer comes from items in their order, the
rejected one from items that were reversed, shuffled or dropped. Pairs that are easy to tell apart
come first; every stage starts from the last one's model and takes it as its reference; supervised
fine-tuning comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainplan.data.hashing import checked_seed
from trainplan.data.perturbations import PERTURBATIONS, perturbation_distance
from trainplan.data.phases import Phase, PhaseCurriculum
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import finite

KINDS = tuple(PERTURBATIONS)


@dataclass(frozen=True)
class PairFilter:
    """Which pairs to keep, by their lengths in characters.

    Where items were dropped the chosen answer must be longer; where they were moved, neither may be
    much longer. A chosen answer that is part of the rejected one is never kept.

    Args:
        ratio: The longer of the two may be so many times the shorter, where items were moved.

    >>> PairFilter().keep("reverse", "a cat, then a dog", "a dog, then a cat")
    True
    """

    ratio: float = 1.5

    def __post_init__(self) -> None:
        if finite(self.ratio, "ratio") < 1:
            raise PlanError("below 1 nothing is kept", place="ratio", value=self.ratio)

    def keep(self, kind: str, chosen: str, rejected: str) -> bool:
        """Whether to keep a pair.

        Args:
            kind: ``drop``, ``reverse`` or ``shuffle``.
            chosen: The better answer.
            rejected: The other one.
        """
        if kind not in KINDS:
            raise PlanError("unknown", place="kind", value=kind, remedy=nearest(kind, KINDS))
        if chosen in rejected:
            return False
        a, b = len(chosen), len(rejected)
        return a > b if kind == "drop" else max(a, b) <= self.ratio * min(a, b)


def preference_pairs(
    prompts: Sequence[str],
    items: Sequence[Sequence[Any]],
    answer: Callable[[list[Any]], str],
    r: int,
    *,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    keep: PairFilter | None = PairFilter(),
) -> dict[str, list[Any]]:
    """Pairs of one factor, as columns that TRL reads.

    Args:
        prompts: What is asked of each example.
        items: The items of each example, in order, at least two.
        answer: Makes an answer from items, such as a model that is given their captions.
        r: Factor: the larger, the easier.
        kinds: ``drop``, ``reverse``, ``shuffle``; each makes a pair of each example.
        seed: Of what is shuffled and dropped, by example: others do not change it.
        keep: Which pairs to keep; None keeps all.

    Returns:
        ``prompt``, ``chosen``, ``rejected``, ``kind``, and ``distance``, of the disturbed items
        from all in order (`perturbation_distance`).

    >>> pairs = preference_pairs(["What happens?"], ["abcd"], "".join, 2, kinds=["reverse"])
    >>> pairs["chosen"], pairs["rejected"]
    (['abcd'], ['cdab'])
    """
    if len(prompts) != len(items):
        remedy = "Give items for each prompt"
        raise PlanError("sizes differ", place="items", value=len(items), remedy=remedy)
    rows: list[tuple[Any, ...]] = []
    for i, (prompt, own) in enumerate(zip(prompts, items, strict=True)):
        if len(own) < 2:
            raise PlanError("has no order", place=f"items[{i}]", value=own, remedy="Leave it out")
        generator = np.random.default_rng((checked_seed(seed), r, i))
        chosen = answer(list(own))
        for kind in kinds:
            if kind not in KINDS:
                raise PlanError("unknown", place="kinds", value=kind, remedy=nearest(kind, KINDS))
            order = PERTURBATIONS[kind](range(len(own)), r, generator)
            rejected = answer([own[k] for k in order])
            if keep is None or keep.keep(kind, chosen, rejected):
                distance = perturbation_distance(order, len(own))
                rows.append((prompt, chosen, rejected, kind, distance))
    names = ("prompt", "chosen", "rejected", "kind", "distance")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


class ProgressivePreferenceSchedule(PhaseCurriculum):
    """Stages of preference optimisation, easy pairs first, and then supervised fine-tuning.

    All kinds of pairs of a stage are pooled and shuffled. It is a `PhaseCurriculum`: ``sources[k]``
    is the order of stage k and ``plan(k)`` its rates. `trainplan.trl.train_stages` runs TRL's
    trainers with it, and takes care of the reference models.

    Args:
        pairs: The data set of each factor, or its number of pairs.
        stages: Factors, in order.
        sft: Examples of the fine-tuning that follows, or their number; None ends without.
        batch_size: Examples of an optimizer step, over all ranks and accumulated micro-batches.
        epochs: Passes over each stage's pairs.
        peak_lr: Of every stage.
        sft_lr: Of the fine-tuning.
        warmup: Of every stage, and of the fine-tuning.
        schedule: See `Phase`.
        refresh_reference: Whether each stage's reference is the model that it starts from. Else
            the first stage's stays.
        seed: Of the shuffles.

    Attributes:
        factors: Of the stages, in order.

    >>> schedule = ProgressivePreferenceSchedule({16: 81, 8: 42, 4: 65, 2: 78}, sft=100)
    >>> schedule.lengths, schedule.sft_starts_at, schedule.factor_at(6)
    ([6, 3, 5, 5, 7], 19, 8)
    """

    def __init__(
        self,
        pairs: Mapping[int, Any],
        stages: Sequence[int] = (16, 8, 4, 2),
        *,
        sft: Any = None,
        batch_size: int = 16,
        epochs: int = 1,
        peak_lr: float = 5e-6,
        sft_lr: float = 1e-4,
        warmup: int | str = "5%",
        schedule: str | Callable[..., Any] = "cosine",
        refresh_reference: bool = True,
        seed: int = 0,
    ) -> None:
        self.factors = tuple(stages)
        missing = [r for r in self.factors if r not in pairs]
        if missing or len(set(self.factors)) < len(self.factors) or not self.factors:
            raise PlanError(
                f"there are no pairs of factor {missing[0]}" if missing else "each factor once",
                place="stages",
                value=stages,
                remedy=f"Known: {sorted(pairs)}",
            )
        self.refresh_reference = refresh_reference
        sizes = {f"r{r}": pairs[r] for r in self.factors}
        phases = [Phase(name, peak_lr, batch_size, epochs, warmup, schedule) for name in sizes]
        if sft is not None:
            sizes["sft"] = sft
            phases.append(Phase("sft", sft_lr, batch_size, 1, warmup, schedule))
        super().__init__(phases, sizes, seed, tail="short")

    @property
    def sft_starts_at(self) -> int:
        """Steps of preference optimisation, all stages together."""
        return sum(self.lengths[: len(self.factors)])

    def factor_at(self, step: int) -> int | None:
        """The factor of the pairs that a step sees; None after the stages."""
        k = self.phase_at(step)
        return self.factors[k] if k < len(self.factors) else None
