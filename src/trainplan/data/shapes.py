"""Shapes that change over a run: length of sequences, crop of images, frames of clips.

The shape of a step travels with the numbers of its examples, so that a loader's workers, which
are some batches ahead of the training, make every example in the shape of its own step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

from trainplan.data.batches import Batch, Indices
from trainplan.data.step_numbers import Round, StepNumbers
from trainplan.errors import PlanError
from trainplan.schedules.values import is_number

Shape = int | dict[str, int]
"""One number, or several by name."""

Item = tuple[int, Shape]
"""Number of an example, and its shape."""


class Shapes:
    """The shape of each step, a function of the step alone.

    Args:
        values: What changes: a number, a schedule, an array with one number per step, a function
            of the step, or an object with ``value(step)``; or several of them by name.
        multiple: Of what they are multiples (32 for many networks), for all or by name.
        round: ``nearest`` takes the nearest multiple; None refuses other numbers.
        steps: Length of the run, for schedules with shares of it.
        units_per_step: The schedules' units per step, if they do not count steps.

    >>> from trainplan.schedules import linear
    >>> shapes = Shapes({"crop": linear(96, 224, duration=4), "frames": 8}, multiple={"crop": 32})
    >>> shapes(0), shapes(3)
    ({'crop': 96, 'frames': 8}, {'crop': 192, 'frames': 8})
    >>> Shapes([16, 16, 32])(2)
    32
    """

    def __init__(
        self,
        values: Any,
        *,
        multiple: int | Mapping[str, int] = 1,
        round: Round = "nearest",
        steps: int | None = None,
        units_per_step: float = 1.0,
    ) -> None:
        self.named = isinstance(values, Mapping)
        parts = dict(values) if self.named else {"shape": values}
        multiples = (
            dict(multiple) if isinstance(multiple, Mapping) else dict.fromkeys(parts, multiple)
        )
        if not parts or not set(multiples) <= set(parts):
            raise PlanError(
                f"the shape has {sorted(parts)}", place="multiple", value=sorted(multiples)
            )
        self.parts = {
            name: StepNumbers(
                value,
                f"shape.{name}" if self.named else name,
                multiple=multiples.get(name, 1),
                round=round,
                steps=steps,
                units_per_step=units_per_step,
            )
            for name, value in parts.items()
        }

    @classmethod
    def of(cls, values: Any, steps: int | None = None) -> Shapes | None:
        """From whatever `Shapes` takes, or from such, or from none."""
        return values if values is None or isinstance(values, Shapes) else cls(values, steps=steps)

    def __call__(self, step: int) -> Shape:
        """The shape of a step."""
        shape = {name: numbers(step) for name, numbers in self.parts.items()}
        return shape if self.named else shape["shape"]

    def on(self, steps: Indices) -> dict[str, Indices]:
        """(t,) the numbers at some steps, by name; without names, of ``shape``."""
        return {name: numbers.on(steps) for name, numbers in self.parts.items()}

    def settings(self) -> Any:
        """What the shapes depend on, as plain data."""
        return {n: [part.digest, part.multiple, part.round] for n, part in self.parts.items()}


class ShapedBatch(Sequence[Item]):
    """A `Batch` whose items are pairs: number of an example, and shape.

    Attributes:
        batch: The examples.
        shape: That of all of them.

    >>> from trainplan.data import BatchSampler, Shuffle
    >>> batch = BatchSampler(Shuffle(10, 2), shape=16).batch(0)
    >>> list(batch), batch.indices.tolist()
    ([(5, 16), (4, 16)], [5, 4])
    """

    __slots__ = ("batch", "shape")

    def __init__(self, batch: Batch, shape: Shape) -> None:
        self.batch = batch
        self.shape = shape

    def known(self) -> ShapedBatch:
        """A batch of the same examples, which are not computed anew."""
        return ShapedBatch(self.batch.known(), self.shape)

    @property
    def indices(self) -> Indices:
        """(len,) the examples as an array."""
        return self.batch.indices

    @property
    def step(self) -> int:
        """The optimizer step."""
        return self.batch.step

    @property
    def first(self) -> int:
        """Place of the first example in the step's global batch."""
        return self.batch.first

    def __len__(self) -> int:
        return len(self.batch)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: Any) -> Any:
        found = self.batch[place]
        return [(i, self.shape) for i in found] if isinstance(place, slice) else (found, self.shape)

    def __iter__(self) -> Iterator[Item]:
        return ((i, self.shape) for i in self.batch)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (ShapedBatch, list, tuple)):
            return len(self) == len(other) and list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return ShapedBatch, (self.batch, self.shape)

    def __repr__(self) -> str:
        return f"ShapedBatch({self.batch!r}, {self.shape!r})"


class Shaped:
    """A map-style data set that makes each example in the shape that comes with its number.

    Args:
        dataset: Any map-style data set; whole batches are passed on to those that take them.
        fit: Makes an example (of ``dataset``) fit a shape; it runs in the loader's workers. If the
            shape must be known to read an example (frames of a video), give ``read`` instead.
        read: Reads an example of a shape: ``read(dataset, index, shape)``.
        default: The shape of examples that come without one, as in an evaluation.

    >>> texts = Shaped(["a long text", "another"], lambda text, length: text[:length], default=6)
    >>> texts[0, 4], texts[1], texts.__getitems__([(1, 3), (0, 3)])
    ('a lo', 'anothe', ['ano', 'a l'])
    """

    def __init__(
        self,
        dataset: Any,
        fit: Callable[[Any, Any], Any] | None = None,
        *,
        read: Callable[[Any, int, Any], Any] | None = None,
        default: Shape | None = None,
    ) -> None:
        if (fit is None) == (read is None):
            raise PlanError(
                "who makes an example fit?",
                place="fit",
                value=fit,
                remedy="Give fit(example, shape), or read(dataset, index, shape)",
            )
        self.dataset, self.fit, self.read, self.default = dataset, fit, read, default

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Any) -> Any:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Any) -> list[Any]:
        """The examples of a `ShapedBatch`, or of a list of pairs or numbers."""
        if isinstance(items, ShapedBatch):
            indices: Sequence[int] = items.batch
            shapes: Sequence[Shape] = [items.shape] * len(items)
        else:
            pairs = [self._pair(item) for item in items]
            indices, shapes = [i for i, _ in pairs], [shape for _, shape in pairs]
        if self.read is not None:
            read = self.read
            return [read(self.dataset, i, s) for i, s in zip(indices, shapes, strict=True)]
        assert self.fit is not None  # noqa: S101 - there is one of the two
        take = getattr(self.dataset, "__getitems__", None)
        examples = take(indices) if take is not None else [self.dataset[i] for i in indices]
        return [self.fit(example, s) for example, s in zip(examples, shapes, strict=True)]

    def _pair(self, item: Any) -> Item:
        if not is_number(item):
            return int(item[0]), item[1]
        if self.default is None:
            raise PlanError(
                "it came without a shape",
                place="index",
                value=item,
                remedy="Give BatchSampler(..., shape=...), or Shaped(..., default=...)",
            )
        return int(item), self.default
