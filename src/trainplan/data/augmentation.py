"""Augmentation whose strength follows a schedule, also in workers that never hear of it.

A loader's workers hold copies of the data set, persistent ones for the whole run: a strength that
is set on the data set's transform never reaches them. Here it travels with the indices: the batch
sampler knows the step that will use a batch, reads the schedule there, and hands every index to the
worker together with the value. So it is exact for any number of workers and any look-ahead, and a
resumed run has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainplan._extras import require
from trainplan.data.batches import Batch
from trainplan.data.sampler import BatchSampler
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count

Item = tuple[int, float]
"""An index, and the schedule's value for it."""


class ValuedBatch(Sequence[Item]):
    """A batch whose indices carry a value; as lazy as the `Batch` that it is made of."""

    __slots__ = ("batch", "value")

    def __init__(self, batch: Batch, value: float) -> None:
        self.batch, self.value = batch, value

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, place: Any) -> Any:
        found = self.batch[place]
        if isinstance(place, slice):
            return [(index, self.value) for index in found]
        return found, self.value

    def __iter__(self) -> Iterator[Item]:
        return ((index, self.value) for index in self.batch)

    def __reduce__(self) -> tuple[Any, ...]:
        return ValuedBatch, (self.batch, self.value)


class ValuedBatches:
    """Give it to a loader as ``batch_sampler=``, with a `ValuedDataset`.

    Args:
        sampler: What decides which examples come when; its state is the state.
        schedule: Of the value, over steps: a knob of a plan in steps (``plan["magnitude"]``).

    Raises:
        PlanError: If the schedule needs a horizon.

    >>> import trainplan as tp
    >>> rising = tp.schedules.linear(1, end=9).resolve(2)
    >>> list(map(list, ValuedBatches(BatchSampler(tp.data.Shuffle(4, 2, epochs=1)), rising)))
    [[(0, 1.0), (2, 1.0)], [(1, 5.0), (3, 5.0)]]
    """

    def __init__(self, sampler: BatchSampler, schedule: Schedule) -> None:
        if schedule.needs_horizon:
            raise PlanError(
                "the schedule needs a horizon",
                place="schedule",
                value=schedule,
                remedy="Give plan['magnitude']",
            )
        self.sampler, self.schedule = sampler, schedule
        self.batch_size, self.drop_last = sampler.batch_size, sampler.drop_last

    def __iter__(self) -> Iterator[ValuedBatch]:
        # Not a generator: the sampler looks for its reader among the callers.
        return map(self._valued, iter(self.sampler))

    def _valued(self, batch: Batch) -> ValuedBatch:
        return ValuedBatch(batch, self.schedule(batch.step))

    def __len__(self) -> int:
        return len(self.sampler)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """That of the sampler."""
        return self.sampler.state_dict(*args, **kwargs)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.sampler.load_state_dict(state)


class ValuedDataset:
    """A map-style data set whose examples are transformed as strongly as their index says.

    Args:
        data: Gives the image, or a tuple that begins with it.
        transform: Makes the transform of a strength (`rand_augment`); called once for each.

    >>> data = ValuedDataset([(2.0, "label")], lambda strength: lambda image: image * strength)
    >>> data[0, 3], len(data)
    ((6.0, 'label'), 1)
    """

    def __init__(self, data: Any, transform: Callable[[float], Callable[[Any], Any]]) -> None:
        self.data, self.transform = data, transform
        self._made: dict[float, Callable[[Any], Any]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: Item) -> Any:
        if not isinstance(item, tuple):
            raise PlanError(
                "an index without a value",
                place="item",
                value=item,
                remedy="Read it through ValuedBatches, or as data[index, value]",
            )
        index, value = item
        if value not in self._made:
            self._made[value] = self.transform(value)
        example = self.data[index]
        if isinstance(example, tuple):
            return self._made[value](example[0]), *example[1:]
        return self._made[value](example)


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
