"""Triplets of frames from clips, resized and cropped, for models that interpolate between frames.

The three frames of a triplet are resized together, by one filter, before they are cropped: the
motion in pixels is then that of the resized frames. Crops, flips and the like are functions of the
seed, the optimizer step and the triplet, so that they do not depend on workers, and a run that goes
on after an interruption has the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from trainplan.data.batches import Batch
from trainplan.data.hashing import checked_seed, hashed, keys, scaled
from trainplan.data.joined import Joined
from trainplan.data.motion import SMALL, MotionCurriculum, even, stage_names, triplet, valid_starts
from trainplan.errors import PlanError
from trainplan.schedules.values import count

_STREAM = 11


class Triplets:
    """All triplets with one gap from some clips, as a map-style data set.

    An item is (3, C, H, W) from 0 to 1 as float32: first input, target, second input. Clips that
    are shorter than the gap hold none, and are skipped.

    Args:
        clips: Each (L, C, H, W) whose frames can be taken by a list of numbers, such as arrays,
            tensors, memory-mapped or HDF5 files; whole numbers are read as 0 to 255.
        gap: Frames from the first input to the second; even.
        size: Pixels of the shorter side after resizing; None leaves frames as they are.
        crop: Pixels of the square that is cut out; None leaves frames whole.
        augment: Whether crops are random, and triplets are flipped, reversed in time, and have
            their channels turned round, each half of the time; otherwise crops are central.
        seed: Of all that is random.
        lengths: (n,) frames of each clip, so that no clip is opened before it is read.

    Raises:
        PlanError: If no clip is long enough, or a crop does not fit.

    >>> clips = [np.zeros((7, 3, 8, 8)), np.zeros((3, 3, 8, 8))]
    >>> triplets = Triplets(clips, gap=4, size=12, crop=10)
    >>> len(triplets), tuple(triplets[0].shape)
    (3, (3, 3, 10, 10))
    """

    def __init__(
        self,
        clips: Sequence[Any],
        gap: int = 2,
        size: int | None = None,
        crop: int | None = None,
        *,
        augment: bool = False,
        seed: int = 0,
        lengths: npt.ArrayLike | None = None,
    ) -> None:
        self.clips, self.gap = clips, even(gap)
        self.size = None if size is None else count(size, "size")
        self.crop = None if crop is None else count(crop, "crop")
        if self.size is not None and self.crop is not None and self.crop > self.size:
            raise _too_large(self.crop, self.size)
        self.augment, self.seed = augment, checked_seed(seed)
        frames = [len(clip) for clip in clips] if lengths is None else lengths
        self.edges = np.cumsum([0, *valid_starts(frames, self.gap).tolist()])
        if self.edges.size != len(clips) + 1 or not self.edges[-1]:
            raise PlanError(
                f"of {len(clips)} clips, none is known to have more than {self.gap} frames",
                place="lengths" if lengths is not None else "gap",
                value=np.asarray(frames).tolist(),
                remedy="Give longer clips, or a smaller gap (max_gap of a curriculum)",
            )

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """The triplets at some indices; those of a `Batch` are varied by its step."""
        wanted = np.asarray(list(indices), np.int64)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"indices lie in 0 to {len(self) - 1}")
        owners = np.searchsorted(self.edges, wanted, side="right") - 1
        starts = wanted - self.edges[owners]
        step = indices.step if isinstance(indices, Batch) else 0
        bits = self._bits(wanted, step)
        read = zip(owners.tolist(), starts.tolist(), bits, strict=True)
        return [self._vary(self._read(clip, start), random) for clip, start, random in read]

    def _bits(self, indices: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.uint64]:
        """(B, 3) random numbers of each triplet: for its crop's place, and for all else."""
        uses = keys(3, self.seed, _STREAM, step)
        return np.stack([hashed(indices.astype(np.uint64), use) for use in uses], axis=1)

    def _read(self, clip: int, start: int) -> Tensor:
        frames = torch.as_tensor(self.clips[clip][list(triplet(start, self.gap))])
        pixels = frames.float() if frames.is_floating_point() else frames.float() / 255
        if self.size is None or self.size == min(pixels.shape[2:]):
            return pixels
        height, width = (
            round(side * self.size / min(pixels.shape[2:])) for side in pixels.shape[2:]
        )
        return functional.interpolate(
            pixels, (height, width), mode="bilinear", antialias=True, align_corners=False
        )

    def _vary(self, pixels: Tensor, bits: npt.NDArray[np.uint64]) -> Tensor:
        height, width = pixels.shape[2:]
        if self.crop is not None:
            slack = [side - self.crop for side in (height, width)]
            if min(slack) < 0:
                raise _too_large(self.crop, min(height, width))
            top, left = (
                int(scaled(bits[k : k + 1], room + 1)[0]) if self.augment else room // 2
                for k, room in enumerate(slack)
            )
            pixels = pixels[:, :, top : top + self.crop, left : left + self.crop]
        if not self.augment:
            return pixels.contiguous()
        # Axes: time, channels, height, width.
        turned = [axis for axis in range(4) if int(bits[2]) >> axis & 1]
        return pixels.flip(turned) if turned else pixels.contiguous()


def motion_triplets(
    curriculum: MotionCurriculum,
    small: Sequence[Any],
    large: Sequence[Any],
    *,
    small_gap: int = 2,
    small_size: int | None = None,
    crop: int | None = None,
    augment: bool = True,
    seed: int = 0,
    lengths: npt.ArrayLike | None = None,
) -> Joined:
    """The small-motion triplets, and the large-motion ones of every stage, as one data set.

    Args:
        curriculum: Says the sizes and gaps.
        small: Clips of small motion.
        large: Clips of large motion.
        small_gap: Gap of the small ones.
        small_size: Their shorter side; None leaves them as they are.
        crop: Pixels of the square that is cut out; at most the smallest size.
        augment: See `Triplets`.
        seed: Of all that is random.
        lengths: (n,) frames of each clip of large motion.

    >>> curriculum = MotionCurriculum(2, 1, start_size=8, end_size=16, increment=0.5)
    >>> clips = [np.zeros((9, 1, 16, 16))]
    >>> data = motion_triplets(curriculum, clips, clips, crop=8)
    >>> data.sizes
    {'small': 7, '8 px, gap 2': 7, '16 px, gap 4': 5}
    >>> mixture = curriculum.mixture(data.sizes, steps_per_epoch=3, global_batch=4)
    >>> mixture.steps, mixture.counts(0).tolist(), mixture.counts(3).tolist()
    (6, [2, 2, 0], [2, 0, 2])
    """
    given: dict[str, Any] = {"crop": crop, "augment": augment, "seed": seed}
    parts = {SMALL: Triplets(small, small_gap, small_size, **given)}
    for name, (size, gap) in stage_names(curriculum.stages).items():
        parts[name] = Triplets(large, gap, size, lengths=lengths, **given)
    return Joined(parts)


def _too_large(crop: int, size: int) -> PlanError:
    remedy = f"Give at most {size}, or start with larger frames"
    return PlanError(f"does not fit frames of {size} px", place="crop", value=crop, remedy=remedy)
