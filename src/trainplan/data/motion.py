"""Raise the motion in large-motion triplets stage by stage, while small motion is shown throughout.

A model that interpolates video frames sees triplets: two frames and the one between them. Between
the outer ones, things move by so many pixels; larger frames and a larger time gap raise that
number. Zhang et al., 2024, "VFIMamba: Video Frame Interpolation with State Space Models", arXiv
2407.02315, train on such a curriculum beside data of small motion. Their training code is not
public: the stages here are a reading of the paper, whose every number is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from trainplan.data.mixing import Mixture
from trainplan.data.mixture import Stage
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite, rate

MODES: Final = ("add", "mul")
SMALL: Final = "small"


class Motion(NamedTuple):
    """How large the motion of a stage is.

    Attributes:
        size: Pixels of the shorter side of a frame.
        gap: Frames from the first input to the second; even.
    """

    size: int
    gap: int

    @property
    def name(self) -> str:
        """Of the stage's triplets in a mixture."""
        return f"{self.size} px, gap {self.gap}"


class MotionCurriculum:
    """Frame size and time gap of the large-motion triplets in every epoch.

    Stage s = floor(epoch / K) has the size min(S_end, floor(S_start + s r S_end + 1/2)), and the
    gap min(g_max, g_0 + s d) or min(g_max, g_0 d^s), made even: an odd gap has no middle frame.
    From stage to stage the motion never falls.

    Args:
        total_epochs: E; later epochs are in the last stage.
        epochs_per_stage: K.
        start_size: S_start, in pixels.
        end_size: S_end, in pixels.
        increment: r, by which the size grows per stage, as a share of S_end.
        start_gap: g_0, in frames.
        gap_step: d, in frames for ``add``, a factor for ``mul``.
        mode: Whether the gap grows by sums or by products.
        max_gap: g_max, in frames: one less than the frames of a clip, or smaller.

    Attributes:
        stages: Size and gap of each stage.

    Raises:
        PlanError: If an argument cannot be meant, or the motion would shrink.

    >>> curriculum = MotionCurriculum(total_epochs=300, epochs_per_stage=50)
    >>> curriculum.at(0), curriculum.at(50)
    (Motion(size=256, gap=2), Motion(size=307, gap=4))
    >>> curriculum.stages[-1]
    Motion(size=512, gap=12)
    """

    def __init__(
        self,
        total_epochs: int = 300,
        epochs_per_stage: int = 50,
        start_size: int = 256,
        end_size: int = 512,
        increment: float = 0.1,
        start_gap: int = 2,
        gap_step: float = 2,
        mode: str = "add",
        max_gap: int = 64,
    ) -> None:
        if mode not in MODES:
            raise PlanError("unknown", place="mode", value=mode, remedy=nearest(mode, MODES))
        self.total_epochs = count(total_epochs, "total_epochs")
        self.epochs_per_stage = count(epochs_per_stage, "epochs_per_stage")
        self.end_size = count(end_size, "end_size")
        self.start_size = count(start_size, "start_size", most=self.end_size)
        self.increment = finite(increment, "increment")
        self.max_gap = count(max_gap, "max_gap", least=2)
        self.start_gap = count(start_gap, "start_gap", least=2, most=self.max_gap)
        self.gap_step, self.mode = finite(gap_step, "gap_step"), mode
        least = 0.0 if mode == "add" else 1.0
        for place, value, limit in (
            ("increment", self.increment, 0.0),
            ("gap_step", self.gap_step, least),
        ):
            if value < limit:
                remedy = f"Give {limit:g} or more"
                raise PlanError("the motion would shrink", place=place, value=value, remedy=remedy)
        last = (self.total_epochs - 1) // self.epochs_per_stage
        self.stages = tuple(Motion(self._size(s), self._gap(s)) for s in range(last + 1))

    def _size(self, stage: int) -> int:
        grown = self.start_size + stage * self.increment * self.end_size
        return min(self.end_size, math.floor(grown + 0.5))

    def _gap(self, stage: int) -> int:
        if self.mode == "add":
            grown = self.start_gap + stage * self.gap_step
        else:
            # No power beyond what the limit needs, which would not fit into a float.
            enough = math.log(self.max_gap) / math.log(self.gap_step) if self.gap_step > 1 else 0
            grown = self.start_gap * self.gap_step ** min(stage, math.ceil(enough))
        gap = min(self.max_gap, grown)
        return int(gap - gap % 2)

    def stage(self, epoch: float) -> int:
        """The stage of an epoch, which may be a fraction of epochs done."""
        if finite(epoch, "epoch") < 0:
            raise PlanError("an epoch counts from 0", place="epoch", value=epoch)
        return min(int(epoch // self.epochs_per_stage), len(self.stages) - 1)

    def at(self, epoch: float) -> Motion:
        """Size and gap in an epoch."""
        return self.stages[self.stage(epoch)]

    def relative_motion(self, epoch: float, native_size: float) -> float:
        """Gap times size by native size: pixels between the inputs, per pixel between two frames.

        Args:
            epoch: When.
            native_size: Pixels of the shorter side of the clips as they are stored.

        >>> MotionCurriculum().relative_motion(50, native_size=512)
        2.3984375
        """
        size, gap = self.at(epoch)
        return gap * size / rate(native_size, "native_size")

    def weights(self, steps_per_epoch: int, large_fraction: float = 0.5) -> list[Stage]:
        """The stages of a `Mixture` in steps: small motion, and that of the stage.

        Args:
            steps_per_epoch: Optimizer steps of an epoch.
            large_fraction: Share of large-motion triplets in a batch, 0 to 1.
        """
        share = finite(large_fraction, "large_fraction")
        if not 0 <= share <= 1:
            remedy = "Give a number from 0 to 1"
            raise PlanError("not a share", place="large_fraction", value=share, remedy=remedy)
        length = self.epochs_per_stage * count(steps_per_epoch, "steps_per_epoch")
        return [Stage(length, {SMALL: 1 - share, motion.name: share}) for motion in self.stages]

    def mixture(
        self,
        sizes: Mapping[str, Any],
        steps_per_epoch: int,
        global_batch: int,
        seed: int = 0,
        *,
        large_fraction: float = 0.5,
        **options: Any,
    ) -> Mixture:
        """Batches with their share of large-motion triplets, which change with the stage.

        The stage lies in the index of a triplet, so that workers which live on, and batches drawn
        ahead, follow it.

        Args:
            sizes: Of the `triplets`, by name: ``small``, and that of each stage.
            steps_per_epoch: Optimizer steps of an epoch.
            global_batch: Triplets of an optimizer step, over all ranks and micro-batches.
            seed: Of everything random.
            large_fraction: Share of large-motion triplets in a batch.
            **options: Others of `Mixture`.
        """
        weights = self.weights(steps_per_epoch, large_fraction)
        steps = options.pop("steps", self.total_epochs * steps_per_epoch)
        return Mixture(sizes, weights, global_batch, seed, steps=steps, **options)


class Triplet(NamedTuple):
    """Frames of a triplet: two inputs and, in their middle, the target."""

    first: int
    target: int
    last: int


def triplet(start: int, gap: int) -> Triplet:
    """The frames of the triplet that begins at a frame.

    >>> triplet(10, 6)
    Triplet(first=10, target=13, last=16)
    """
    first, gap = count(start, "start", least=0), even(gap)
    return Triplet(first, first + gap // 2, first + gap)


def valid_starts(lengths: npt.ArrayLike, gap: int) -> npt.NDArray[np.int64]:
    """How many triplets clips of so many frames hold: max(0, L - gap) each.

    >>> valid_starts([65, 4], 6).tolist()
    [59, 0]
    """
    return np.maximum(np.asarray(lengths, np.int64) - even(gap), 0)


def even(gap: Any) -> int:
    """A gap with a middle frame, or an error."""
    frames = count(gap, "gap", least=2)
    if frames % 2:
        remedy = f"Give {frames - 1} or {frames + 1}"
        raise PlanError("an odd gap has no middle frame", place="gap", value=gap, remedy=remedy)
    return frames


def motion_magnitude(first: Any, last: Any) -> npt.NDArray[np.float64]:
    """(B,) pixels by which frames are shifted against each other: a difficulty for a `Curriculum`.

    The place of the highest phase correlation, so to a whole pixel, and up to half the frame's
    size; of several motions in a frame that of the most texture.

    Args:
        first: (B, H, W), or (B, C, H, W), whose channels are summed.
        last: The same, of the later frames.

    >>> frame = np.random.default_rng(0).random((1, 32, 32))
    >>> motion_magnitude(frame, np.roll(frame, (3, -4), axis=(1, 2))).tolist()
    [5.0]
    """
    spectra = [np.fft.rfft2(_gray(frames)) for frames in (first, last)]
    if spectra[0].shape != spectra[1].shape:
        shapes = [np.shape(first), np.shape(last)]
        raise PlanError("the frames differ in their shape", place="last", value=shapes)
    cross = spectra[0].conj() * spectra[1]
    height, width = _gray(first).shape[1:]
    # Phases alone, but for frequencies that are noise of the arithmetic.
    size = np.abs(cross)
    floor = 1e-9 * size.max(axis=(1, 2), keepdims=True) + np.finfo(float).tiny
    found = np.fft.irfft2(cross / np.maximum(size, floor), s=(height, width))
    peaks = found.reshape(len(found), -1).argmax(axis=1)
    down, right = np.divmod(peaks, width)
    shifts: npt.NDArray[np.float64] = np.hypot(
        np.minimum(down, height - down), np.minimum(right, width - right)
    )
    return shifts


def _gray(frames: Any) -> npt.NDArray[np.float64]:
    pixels = np.asarray(frames, np.float64)
    if pixels.ndim not in (3, 4):
        remedy = "Give (B, H, W) or (B, C, H, W)"
        raise PlanError("not frames", place="frames", value=pixels.shape, remedy=remedy)
    return pixels if pixels.ndim == 3 else pixels.sum(axis=1)


def stage_names(stages: Sequence[Motion]) -> dict[str, Motion]:
    """Stages by the name of their triplets; equal ones share it."""
    return {motion.name: motion for motion in stages}
