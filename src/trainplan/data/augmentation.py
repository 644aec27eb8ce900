"""Augmentation whose strength follows a schedule, also in workers that never hear of it.

A loader's workers hold copies of the data set, persistent ones for the whole run: a strength that
is set on the data set's transform never reaches them. Here it travels with the examples' numbers,
as their shape does:

    sampler = tp.data.BatchSampler(source, shape=tp.data.Strengths(plan["magnitude"]))
    data = tp.data.Shaped(images, tp.data.Augment(tp.data.rand_augment))

So it is exact for any number of workers and any look-ahead, and a resumed run has the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainplan._extras import require
from trainplan.data.batches import Indices
from trainplan.data.shapes import Shape, Shapes
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count


class Strengths(Shapes):
    """The strength of each step, a whole number from 0; for ``BatchSampler(..., shape=)``.

    Args:
        schedule: Of the strength, over steps: a knob of a plan in steps. The nearest whole number
            is taken.

    Raises:
        PlanError: If the schedule needs a horizon.

    >>> from trainplan.schedules import linear
    >>> strengths = Strengths(linear(0, end=9, duration=4))
    >>> [strengths(step) for step in range(6)]
    [0, 2, 5, 7, 9, 9]
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule + 1)  # shapes begin with 1

    def __call__(self, step: int) -> Shape:
        """The strength of a step."""
        return self.parts["shape"](step) - 1

    def on(self, steps: Indices) -> dict[str, Indices]:
        """(t,) the strengths at some steps, under ``shape``."""
        return {"shape": super().on(steps)["shape"] - 1}


class Augment:
    """Transforms the image of an example as strongly as its step says; for ``Shaped(data, fit)``.

    An example is the image, or a tuple that begins with it.

    Args:
        transform: Makes the transform of a strength (`rand_augment`); called once for each, in
            every worker.

    >>> augment = Augment(lambda strength: lambda image: image * strength)
    >>> augment((2.0, "label"), 3), augment(2.0, 4)
    ((6.0, 'label'), 8.0)
    """

    def __init__(self, transform: Callable[[int], Callable[[Any], Any]]) -> None:
        self.transform = transform
        self._made: dict[int, Callable[[Any], Any]] = {}

    def __call__(self, example: Any, strength: int) -> Any:
        """The example with its image transformed."""
        if strength not in self._made:
            self._made[strength] = self.transform(strength)
        if isinstance(example, tuple):
            return self._made[strength](example[0]), *example[1:]
        return self._made[strength](example)


def rand_augment(magnitude: float) -> Any:
    """Torchvision's RandAugment, at a magnitude on the authors' scale from 0 to 10.

    torchvision counts 31 strengths by default; here they are 11, so that the numbers mean the
    same. The authors' other settings (timm's ``mstd0.5-inc1``) are not torchvision's: use
    ``timm.data.auto_augment.rand_augment_transform(f"rand-m{int(m)}-mstd0.5-inc1", {})`` for them.

    Args:
        magnitude: A whole number.

    Raises:
        MissingExtraError: If torchvision is not installed.
    """
    strength = count(magnitude, "magnitude", least=0, most=10)
    v2 = require("torchvision.transforms.v2", extra="vision")
    return v2.RandAugment(magnitude=strength, num_magnitude_bins=11)


def weak_and_strong_views(size: int) -> tuple[Any, Any]:
    """Two views of an unlabelled image or clip, for a teacher and for its student.

    Weak: a random crop of half the area at least, resized, and a flip. Strong: in addition, jitter
    of colours in 80 % and no colours in 20 %. They are torchvision's, and change all frames of a
    (..., T, C, H, W) clip alike.

    Args:
        size: Pixels a side.

    Raises:
        MissingExtraError: If torchvision is not installed.
    """
    side = count(size, "size")
    v2 = require("torchvision.transforms.v2", extra="vision")
    weak = [v2.RandomResizedCrop(side, scale=(0.5, 1.0)), v2.RandomHorizontalFlip()]
    jitter = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
    return v2.Compose(weak), v2.Compose([*weak, jitter, v2.RandomGrayscale(0.2)])
