"""How much of each image to show when: stages of bandwidth and of augmentation, both rising.

Wang et al., 2023, "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual
Backbones", arXiv 2211.09703, and EfficientTrain++, 2024, arXiv 2405.08768. One curve of the
learning rate runs over all stages, and every step has the same number of images: where they are
small, twice as many fit on a device and half as many batches are accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from trainplan.errors import PlanError
from trainplan.schedules import phases
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.named import cosine
from trainplan.schedules.phases import Hold, Take
from trainplan.schedules.values import count, finite

BANDWIDTHS = (160, 160, 160, 192, 224)
RESOLUTIONS = (96, 96, 160, 160, 160, 160, 224, 224, 224, 224)
DEIT_S_RESOLUTIONS = (96, 96, 160, 160, 160, 160, 192, 192, 224, 224)
"""Of EfficientTrain++ for DeiT-S; `RESOLUTIONS` is for other networks."""


@dataclass(frozen=True)
class BandwidthStage:
    """One stage.

    Attributes:
        start: First epoch, counted as if the whole run had this stage's size.
        end: Epoch after the last, counted alike.
        total: Epochs of such a run; the learning rate is at ``start / total`` of its curve.
        bandwidth: Pixels a side that are kept.
        magnitude: Strength of RandAugment, 0 to 10.
        warmup: Epochs of the curve's warm-up.
        fits: How many times the batch of the full size fits on a device.
        replays: How often a batch is used, see `trainplan.data.BatchReplay`.
    """

    start: int
    end: int
    total: int
    bandwidth: int
    magnitude: int
    warmup: int
    fits: int = 1
    replays: int = 1

    @property
    def epochs(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True)
class BandwidthStages:
    """The stages of a run, in order; made by `bandwidth_stages` or `equal_cost_stages`.

    Attributes:
        stages: The stages.
        base: Pixels a side of the full size.
    """

    stages: tuple[BandwidthStage, ...]
    base: int

    @property
    def epochs(self) -> int:
        """Epochs of the run: passes over the loader."""
        return sum(stage.epochs for stage in self.stages)

    def at(self, epoch: float) -> BandwidthStage:
        """The stage of an epoch of the run, from 0; past the end, the last."""
        ends = np.cumsum([stage.epochs for stage in self.stages])
        place = int(np.searchsorted(ends, epoch, side="right"))
        return self.stages[min(place, len(self.stages) - 1)]

    @property
    def bandwidth(self) -> Schedule:
        """Pixels a side over time; a plan in steps needs its ``steps_per_epoch``."""
        return self._steps([stage.bandwidth for stage in self.stages])

    @property
    def magnitude(self) -> Schedule:
        """Strength of RandAugment over time."""
        return self._steps([stage.magnitude for stage in self.stages])

    def _steps(self, values: Sequence[int]) -> Schedule:
        lengths = [Duration(stage.epochs, "epochs") for stage in self.stages]
        return phases.Sequence(*map(Hold, values, lengths))

    def lr(
        self, peak: float, end: float | str = 0.0, curve: Callable[..., Schedule] = cosine
    ) -> Schedule:
        """One curve of the learning rate over all stages, which does not begin anew with each.

        Where a stage's epochs are cheaper, the curve is stretched over more of them.

        Args:
            peak: Highest rate, after the warm-up.
            end: Rate at the end, or a share of the peak ("1%").
            curve: `trainplan.schedules.cosine`, ``linear`` or any that takes the same arguments.
        """
        pieces = []
        for (total, warmup), group in groupby(self.stages, lambda s: (s.total, s.warmup)):
            same = list(group)
            whole = curve(peak, end, warmup=f"{warmup} epochs", duration=f"{total} epochs")
            length = Duration(sum(stage.epochs for stage in same), "epochs")
            pieces.append(Take(whole, length, Duration(same[0].start, "epochs")))
        return phases.Sequence(*pieces)

    def batches(
        self, per_device: int, devices: int = 1, global_batch: int = 4096, *, halvings: int = 0
    ) -> list[tuple[int, int]]:
        """Images per device and batches to accumulate, for each stage.

        Args:
            per_device: Images that fit on a device at full size.
            devices: How many there are.
            global_batch: Images per optimizer step, the same in all stages.
            halvings: How often to halve the first and double the second, if memory ran out.

        Raises:
            PlanError: If the steps cannot have that size.

        >>> bandwidth_stages(300).batches(256, devices=8)
        [(512, 1), (512, 1), (512, 1), (512, 1), (256, 2)]
        """
        found = []
        for stage in self.stages:
            batch = count(per_device, "per_device") * stage.fits >> count(halvings, "halvings", 0)
            images = batch * count(devices, "devices")
            if not batch or global_batch % images:
                raise PlanError(
                    f"steps of {global_batch} images cannot be made of {devices} devices with "
                    f"{batch} each, as in the stage of {stage.bandwidth} pixels",
                    place="per_device",
                    value=per_device,
                    remedy="Give a divisor of global_batch / devices / 2",
                )
            found.append((batch, global_batch // images))
        return found

    @property
    def cost(self) -> float:
        """Compute relative to as many epochs at full size, if it goes with the pixels.

        >>> round(bandwidth_stages(300).cost, 4)
        0.6531
        """
        pixels = [s.epochs * s.replays * (s.bandwidth / self.base) ** 2 for s in self.stages]
        return sum(pixels) / self.epochs


def bandwidth_stages(
    epochs: int,
    bandwidths: Sequence[int] = BANDWIDTHS,
    magnitudes: Sequence[int] | None = None,
    *,
    warmup: int = 20,
    base: int | None = None,
) -> BandwidthStages:
    """Equal stages over a run of so many epochs: EfficientTrain of 2023.

    Args:
        epochs: Of the run.
        bandwidths: Of each stage; the largest is the full size.
        magnitudes: Of each stage; by default from 1 to 9 in equal steps.
        warmup: Epochs of the learning rate's warm-up.
        base: The full size, if no stage has it.

    Raises:
        PlanError: If there are fewer epochs than stages, or the lists differ in length.

    >>> stages = bandwidth_stages(300)
    >>> [(s.end, s.bandwidth, s.magnitude) for s in stages.stages]
    [(60, 160, 1), (120, 160, 3), (180, 160, 5), (240, 192, 7), (300, 224, 9)]
    """
    sizes = [count(b, "bandwidths", least=2) for b in bandwidths]
    n, total = len(sizes), count(epochs, "epochs")
    if not 1 <= n <= total:
        raise PlanError(
            f"{total} epochs cannot be {n} stages", place="bandwidths", value=tuple(bandwidths)
        )
    strengths = np.linspace(1, 9, n).round() if magnitudes is None else magnitudes
    if len(strengths) != n:
        raise PlanError(f"there are {n} stages", place="magnitudes", value=magnitudes)
    full = max(sizes) if base is None else count(base, "base", least=max(sizes))
    edges = [*(int(total / n * i) for i in range(n)), total]
    stages = [
        BandwidthStage(
            start,
            end,
            total,
            size,
            count(strength, "magnitudes", least=0),
            count(warmup, "warmup", least=0),
            fits=2 if size < full else 1,
        )
        for (start, end), size, strength in zip(pairwise(edges), sizes, strengths, strict=True)
    ]
    return BandwidthStages(tuple(stages), full)


def equal_cost_stages(
    epochs: float,
    resolutions: Sequence[int] = RESOLUTIONS,
    *,
    warmup: int | str = 20,
    replays: Sequence[int] | None = None,
) -> BandwidthStages:
    """Stages of equal compute: EfficientTrain++ of 2024.

    Every stage costs as much as its share of ``epochs`` at full size, so that small images are
    seen for more epochs. Where the size changes, the progress is carried over by its cost.

    Args:
        epochs: The run's compute, in epochs at full size.
        resolutions: Of each stage; the largest is the full size. `DEIT_S_RESOLUTIONS` for DeiT-S.
        warmup: Epochs of the learning rate's warm-up, counted in each stage's own total; or a
            share of it, such as "20%" for DeiT.
        replays: How often a batch is used in each stage (the authors' option: 4 at 96 pixels, 2 at
            160, else 1). Epochs shrink as often.

    Raises:
        PlanError: If the lists differ in length.

    >>> stages = equal_cost_stages(200)
    >>> [(s.start, s.end, s.total) for s in stages.stages][:3], stages.epochs
    ([(0, 108, 1088), (108, 217, 1088), (78, 117, 392)], 454)
    """
    sizes = [count(r, "resolutions", least=2) for r in resolutions]
    again = [1] * len(sizes) if replays is None else [count(r, "replays") for r in replays]
    if not sizes or len(again) != len(sizes):
        raise PlanError(f"there are {len(sizes)} stages", place="replays", value=replays)
    base, n = max(sizes), len(sizes)
    whole = finite(epochs, "epochs")
    stages: list[BandwidthStage] = []
    for i, (size, repeat) in enumerate(zip(sizes, again, strict=True)):
        total = int(whole * base**2 / size**2 / repeat)
        before = stages[-1] if stages else None
        start = 0 if before is None else before.end
        if before is not None and (before.bandwidth, before.replays) != (size, repeat):
            ratio = before.bandwidth**2 * before.replays / (size**2 * repeat)
            start = round(before.end * ratio)
        end = int(total / n * (i + 1))
        if end <= start:
            raise PlanError(
                f"stage {i} has no epoch", place="epochs", value=epochs, remedy="Give more"
            )
        stages.append(BandwidthStage(start, end, total, size, i, _warm(warmup, total), 1, repeat))
    return BandwidthStages(tuple(stages), base)


def _warm(warmup: int | str, total: int) -> int:
    if isinstance(warmup, str):
        share = Duration.parse(warmup)
        if not share.relative:
            raise PlanError(
                "not a share", place="warmup", value=warmup, remedy="Write '20%', or a number"
            )
        return int(share.amount / 100 * total)
    return count(warmup, "warmup", least=0)
