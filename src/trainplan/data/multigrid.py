"""Many coarse clips first, few fine ones last, over and over at the same cost per step.

Wu, Girshick, He, Feichtenhofer and Krähenbühl, 2020, "A Multigrid Method for Efficiently Training
Video Models", arXiv 1912.00998. Batch size times frames times pixels is constant: the long cycle
goes from short small clips in large batches to long large ones in small batches within every stage
of the learning rate, the short cycle through three crops from step to step. For images the batch
is traded for pixels alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from trainplan.data.short_cycle import SHORT, short_cycle_sizes
from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite, rate

HALF: Final = 0.5**0.5
LONG: Final = ((0.25, HALF), (0.5, HALF), (0.5, 1.0), (1.0, 1.0))
"""Factors of frames and crop in the phases of the long cycle."""


@dataclass(frozen=True)
class GridPhase:
    """Epochs with one shape of the long cycle.

    Attributes:
        stage: Stage of the learning rate, from 0.
        factor: Batch size, as a multiple of the ordinary one.
        frames: Of a clip; 1 for images.
        crop: Pixels a side.
        end: Epoch after the last; not above the end of the phase before if it was rounded away.
        mean_factor: Mean batch size over the short cycle, as a multiple of the ordinary one.
    """

    stage: int
    factor: int
    frames: int
    crop: int
    end: int
    mean_factor: float


@dataclass(frozen=True)
class Normalisation:
    """How to normalise batches so that statistics are always of as many examples.

    Attributes:
        kind: ``sub``: each device normalises ``splits`` parts of its batch apart (see
            `trainplan.models.SubBatchNorm3d`); ``sync``: ``devices`` share statistics; ``plain``.
    """

    kind: Literal["sub", "sync", "plain"]
    splits: int = 1
    devices: int = 1


@dataclass(frozen=True)
class MultigridSchedule:
    """Shapes, batch sizes and learning rates of a run; made by `from_step_schedule`.

    Attributes:
        phases: Of the long cycle, in order.
        boundaries: Epochs at which the learning rate changes, from 0.
        relative_rates: Learning rate from each boundary on, as a multiple of the ordinary one.
        epochs: Length of the run.
        frames: Of an ordinary clip.
        crop: Ordinary pixels a side.
        short: Factors of the crop in the short cycle; none without one.
        baseline_epochs: Length of the run that this one replaces.
    """

    phases: tuple[GridPhase, ...]
    boundaries: tuple[int, ...]
    relative_rates: tuple[float, ...]
    epochs: int
    frames: int
    crop: int
    short: tuple[float, ...]
    baseline_epochs: int

    @classmethod
    def from_step_schedule(
        cls,
        steps: Sequence[int],
        epochs: int,
        *,
        crop: int,
        frames: int = 1,
        gamma: float = 0.1,
        epoch_factor: float = 1.5,
        long_cycle: bool = True,
        short_cycle: bool = True,
        long_factors: Sequence[tuple[float, float]] = LONG,
        short_factors: Sequence[float] = SHORT,
    ) -> MultigridSchedule:
        """From an ordinary run whose learning rate falls in steps.

        Args:
            steps: Epochs at which the ordinary run's rate changes, from 0: [0, 94, 154, 196].
            epochs: Its length.
            crop: Its pixels a side.
            frames: Its frames of a clip; 1 for images.
            gamma: By what its rate is multiplied at each change.
            epoch_factor: How many times as many epochs to train. Most of their steps are of large
                batches, so that there are fewer steps nevertheless.
            long_cycle: Whether shapes change over epochs.
            short_cycle: Whether crops change from step to step.
            long_factors: Factors of frames and crop of the long cycle; those of frames are left
                out for images.
            short_factors: Factors of the crop of the short cycle.

        Raises:
            PlanError: If an argument cannot be meant.

        >>> grid = MultigridSchedule.from_step_schedule(
        ...     [0, 94, 154, 196], 239, crop=224, frames=32
        ... )
        >>> [phase.end for phase in grid.phases][:4], grid.epochs
        ([73, 110, 142, 158], 358)
        >>> [(p.factor, p.frames, p.crop) for p in grid.phases][:4]
        [(8, 8, 158), (4, 16, 158), (2, 16, 224), (1, 32, 224)]
        >>> round(grid.fewer_steps, 2)
        3.42
        """
        edges = [count(step, "steps", least=0) for step in steps]
        whole = count(epochs, "epochs")
        if len(edges) < 2 or edges[0] or any(a >= b for a, b in pairwise([*edges, whole])):
            raise PlanError(
                "no stages of a learning rate",
                place="steps",
                value=steps,
                remedy="Give rising epochs from 0 to below epochs, such as [0, 8, 12]",
            )
        if not (long_cycle or short_cycle):
            raise PlanError(
                "nothing changes",
                place="short_cycle",
                value=False,
                remedy="Have a long cycle, a short one, or both",
            )
        full = (count(frames, "frames"), count(crop, "crop"))
        short = tuple(rate(f, "short_factors") for f in short_factors) if short_cycle else ()
        decay, more = finite(gamma, "gamma"), rate(epoch_factor, "epoch_factor")
        if long_cycle:
            phases = _long_phases(edges, whole, _shapes(full, long_factors), full, short, more)
            ends = [phase.end for phase in phases]
            # The last phase has the rate of the one before in its first half.
            rates = [decay**phase.stage * phase.factor for phase in phases]
            boundaries = [0, *ends[:-1], (ends[-2] + ends[-1]) // 2]
            relative = [*rates[:-1], rates[-2], rates[-1]]
        else:
            ends = [int(edge * more) for edge in (*edges[1:], whole)]
            factor = _mean_factor(full, full, short)
            phases = [GridPhase(j, 1, *full, end, factor) for j, end in enumerate(ends)]
            boundaries = [0, *ends[:-1]]
            relative = [decay**phase.stage for phase in phases]
        return cls(tuple(phases), tuple(boundaries), tuple(relative), ends[-1], *full, short, whole)

    def at(self, epoch: float) -> GridPhase:
        """The phase of an epoch, from 0; past the end, the last."""
        place = bisect_right([phase.end for phase in self.phases], epoch)
        return self.phases[min(place, len(self.phases) - 1)]

    def relative_rate(self, epoch: float) -> float:
        """The learning rate at an epoch, as a multiple of the ordinary one, without warm-up."""
        return self.relative_rates[bisect_right(self.boundaries, epoch) - 1]

    def rate_at(
        self, epoch: float, peak: float, *, warmup: float = 0.0, start: float = 0.0
    ) -> float:
        """The learning rate at an epoch.

        For ``LambdaLR`` give a function of the epoch and a peak of 1.

        Args:
            epoch: From 0; parts of epochs count.
            peak: The ordinary rate.
            warmup: Epochs over which it rises from ``start``, to what it then is: several times the
                peak if the batch is.
            start: Where it rises from.
        """
        if epoch >= warmup:
            return self.relative_rate(epoch) * peak
        return start + epoch * (self.relative_rate(warmup) * peak - start) / warmup

    def cycle(self, phase: GridPhase, batch: int = 1) -> list[tuple[int, int]]:
        """Batch size and crop of each step of the short cycle, for an ordinary batch size.

        >>> grid = MultigridSchedule.from_step_schedule([0, 8], 12, crop=224, frames=8)
        >>> grid.cycle(grid.phases[3], 4), grid.cycle(grid.phases[0], 4)
        ([(16, 112), (8, 158), (4, 224)], [(64, 112), (32, 158), (32, 158)])
        """
        base = count(batch, "batch") * phase.factor
        return short_cycle_sizes(base, phase.crop, self.crop, self.short)

    @property
    def fewer_steps(self) -> float:
        """By what the number of steps falls against the ordinary run."""
        steps = sum((end - start) / phase.mean_factor for phase, start, end in self.spans())
        return self.baseline_epochs / steps

    def spans(self) -> Iterator[tuple[GridPhase, int, int]]:
        """Each phase, its first epoch, and the one after its last."""
        ends = [phase.end for phase in self.phases]
        return zip(self.phases, [0, *ends[:-1]], ends, strict=True)

    def normalisation(
        self, phase: GridPhase, batch: int, devices: int = 1, base: int = 8
    ) -> Normalisation:
        """How to normalise in a phase.

        Args:
            phase: Of this schedule.
            batch: The ordinary batch size, over all devices.
            devices: How many there are.
            base: Of how many examples statistics should be.

        >>> grid = MultigridSchedule.from_step_schedule([0, 8], 12, crop=16, frames=8)
        >>> grid.normalisation(grid.phases[0], batch=16)
        Normalisation(kind='sub', splits=16, devices=1)
        """
        on_each = count(batch, "batch") * phase.factor / count(devices, "devices")
        share = on_each / count(base, "base")
        if share < 1:
            return Normalisation("sync", devices=int(1 / share))
        return Normalisation("sub", splits=int(share)) if share > 1 else Normalisation("plain")

    def largest_stride(self, phase: GridPhase, stride: int) -> int:
        """Clips of fewer frames take every k-th frame, k drawn from ``stride`` to this.

        >>> grid = MultigridSchedule.from_step_schedule([0, 8], 12, crop=16, frames=8)
        >>> [grid.largest_stride(phase, 2) for phase in grid.phases[:4]]
        [8, 4, 4, 2]
        """
        return count(stride, "stride") * (self.frames // phase.frames)

    def clip_frames(
        self, length: int, frames: int, stride: int, random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """(frames,) which frames of a video a clip shows, with a random stride and start.

        Args:
            length: Frames of the video; the stride is less where it is too short.
            frames: Of the clip, as its shape says.
            stride: Of an ordinary clip.
            random: Decides; seed it with the number of the example, and a run can be repeated.
        """
        least = count(stride, "stride")
        longest = max((count(length, "length") - 1) // max(frames - 1, 1), 1)
        step = min(int(random.integers(least, least * max(self.frames // frames, 1) + 1)), longest)
        first = int(random.integers(max(length - (frames - 1) * step, 1)))
        return np.minimum(first + step * np.arange(frames), length - 1)

    def shortest_side(self, smallest: int, crop: int) -> int:
        """To what the shorter side is scaled at least, before a crop: its field of view stays."""
        return round(count(smallest, "smallest") * crop / self.crop)

    @property
    def evaluations(self) -> list[int]:
        """Epochs, from 0, after which to evaluate: about three in each phase, and at its end.

        >>> MultigridSchedule.from_step_schedule([0, 8], 12, crop=16, frames=8).evaluations
        [0, 3, 6, 7, 9, 10, 12, 13, 14, 15, 17]
        """
        found: list[int] = []
        for _, start, end in self.spans():
            period = (end - start) // 3 + 1
            found += [e for e in range(start, end) if (end - 1 - e) % period == 0]
        return found


def _shapes(full: tuple[int, int], factors: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Frames and crop of each phase of the long cycle; for images crops alone, each once."""
    given = [(rate(t, "long_factors"), rate(s, "long_factors")) for t, s in factors]
    if not given:
        raise PlanError("there is no phase", place="long_factors", value=factors)
    if full[0] > 1:
        return [(max(round(full[0] * t), 1), round(full[1] * s)) for t, s in given]
    return [(1, round(full[1] * s)) for s in dict.fromkeys(s for _, s in given)]


def _factor(full: tuple[int, int], frames: int, crop: float) -> int:
    return max(round(full[0] * full[1] ** 2 / (frames * crop * crop)), 1)


def _mean_factor(full: tuple[int, int], shape: tuple[int, int], short: Sequence[float]) -> float:
    frames, crop = shape
    crops = [*(full[1] * f for f in short), crop]
    return sum(_factor(full, frames, c) for c in crops) / len(crops)


def _long_phases(
    edges: list[int],
    epochs: int,
    shapes: list[tuple[int, int]],
    full: tuple[int, int],
    short: Sequence[float],
    epoch_factor: float,
) -> list[GridPhase]:
    """The long cycle in each stage of the rate, in proportion to its length, and a last phase."""
    means = [_mean_factor(full, shape, short) for shape in shapes]
    stages = [(j, b - a) for j, (a, b) in enumerate(pairwise(edges))]
    rows = [
        (j, shape, mean, length * mean / sum(means))
        for j, length in stages
        for shape, mean in zip(shapes, means, strict=True)
    ]
    saving = edges[-1] / sum(length / mean for _, _, mean, length in rows)
    # The last stage saves as many steps as the others, though it has one shape.
    last = (epochs - edges[-1]) / saving * means[-1]
    rows.append((len(stages), shapes[-1], means[-1], last))
    stretch = epochs * epoch_factor / sum(length for *_, length in rows)
    ends = accumulate(length * stretch for *_, length in rows)
    return [
        GridPhase(j, _factor(full, *shape), *shape, round(end), mean)
        for (j, shape, mean, _), end in zip(rows, ends, strict=True)
    ]
