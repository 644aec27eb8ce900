"""A training loop around four functions of yours, with the learning rate searched as it goes.

For `AutoLRS` (Jin et al., 2021, arXiv 2105.10762) in a loop that trains some steps at a time; one
that takes single steps can attach the controller instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trainplan.errors import PlanError
from trainplan.schedules.autolrs import AutoLRS
from trainplan.schedules.values import count


def train_with_search(
    lr: AutoLRS,
    *,
    train: Callable[[float, int], Sequence[float]],
    save: Callable[[], object],
    restore: Callable[[], object],
    validate: Callable[[], float] | None = None,
    after: Callable[[AutoLRS], object] | None = None,
    longest: int = 1000,
) -> AutoLRS:
    """Train to the end of the search with four functions of yours.

    Args:
        lr: The search, new or with a loaded state; it needs ``steps``.
        train: ``train(rate, steps)`` takes so many optimizer steps at that rate and returns the
            loss of each. It may return early after a loss that is not finite.
        save: Keeps the state of training: model, optimizer, data position, random state.
        restore: Brings it back.
        validate: Measures a validation loss.
        after: Called after every call of ``train`` with the search in a state that can be saved:
            write ``lr.state_dict()``, the present and the kept state into one checkpoint there.
        longest: Steps of one call of ``train`` at most, and so between two chances to save.

    Returns:
        The same search, finished.

    Raises:
        PlanError: If ``train`` returns the wrong number of losses, or every rate diverges.

    Example: a loss that no rate changes is trained for 40 steps, and searched for 30.

    >>> lr = AutoLRS(0.01, 1.0, steps=40, trials=3, trial_steps=5, stage_steps=20, search="grid")
    >>> def train(rate, steps):
    ...     return [1.0] * steps
    >>> train_with_search(lr, train=train, save=lambda: None, restore=lambda: None).cost
    Cost(exploited=40, searched=30)
    """
    if lr.steps is None:
        raise PlanError("the search has no end", place="steps", value=None, remedy="Give it steps")
    lr.connect(save=save, restore=restore, validate=validate)
    while not lr.finished:
        steps = min(lr.due, count(longest, "longest"))
        losses = [float(loss) for loss in train(lr.value(0), steps)]
        broken = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if broken is not None:
            losses = losses[: broken + 1]
        elif len(losses) != steps:
            raise PlanError(
                f"train was asked for {steps} steps and must return as many losses",
                place="train",
                value=len(losses),
            )
        for loss in losses:
            lr.observe(0, **{lr.signal: loss})
        if after is not None:
            after(lr)
    return lr
