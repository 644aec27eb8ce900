"""Videos as clips of as many frames as the stage of training has.

The number of frames is the shape of a batch (`trainplan.data.BatchSampler`), and comes with the
numbers of its examples; so workers, which are ahead of the training, show that of the right stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Batch
from trainplan.data.frames import FrameSampler, take_frames
from trainplan.data.shapes import Shape, ShapedBatch
from trainplan.errors import PlanError
from trainplan.schedules.values import count

KNOWN = (Batch, ShapedBatch)
"""Batches that know their step."""


class VideoClips:
    """Clips of videos, as a map-style data set.

    An item is (F, ...) frames, or, with columns, a dictionary of these and of what the columns
    hold.

    Args:
        videos: Each (L, ...) whose frames can be taken by a list of numbers: arrays, tensors,
            memory-mapped files, decoders. An image is a video of one frame.
        frames: F of clips that are asked for without a shape, as in an evaluation. The shape is a
            number of frames, or has one under this name.
        sampler: Which frames.
        lengths: (n,) frames of each video, so that none is opened before it is read.
        columns: (n,) values of each, by name.
        name: Under which clips stand beside columns.

    >>> from trainplan.data import BatchSampler, FrameCountCurriculum, Shuffle
    >>> clips = VideoClips(np.zeros((8, 12, 3)))
    >>> course = FrameCountCurriculum((1, 4), (1, 1), steps=10)
    >>> sampler = BatchSampler(Shuffle(len(clips), 2), shape=course)
    >>> [clips.__getitems__(sampler.batch(step))[0].shape for step in (4, 5)]
    [(1, 3), (4, 3)]
    """

    def __init__(
        self,
        videos: Sequence[Any],
        frames: int | None = None,
        sampler: FrameSampler | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        name: str = "pixel_values",
    ) -> None:
        self.videos, self.name = videos, name
        self.frames = None if frames is None else count(frames, "frames")
        self.sampler = FrameSampler() if sampler is None else sampler
        read = [len(video) for video in videos] if lengths is None else lengths
        self.lengths = np.asarray(read, np.int64)
        self.columns = dict(columns or {})
        for place, values in {"lengths": self.lengths, **self.columns}.items():
            if len(values) != len(videos):
                what = f"{len(videos)} videos need as many"
                raise PlanError(what, place=place, value=len(values))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | ShapedBatch) -> list[Any]:
        """The clips at some indices; those of a batch are of its shape, and varied by its step."""
        wanted = np.asarray(indices.indices if isinstance(indices, KNOWN) else indices, np.int64)
        step = indices.step if isinstance(indices, KNOWN) else 0
        frames = self._frames(indices.shape if isinstance(indices, ShapedBatch) else None)
        lengths = self.lengths[wanted]
        places = self.sampler(lengths, frames, examples=wanted, step=step)
        clips = [
            take_frames(self.videos[i], row) for i, row in zip(wanted.tolist(), places, strict=True)
        ]
        if not self.columns:
            return clips
        return [
            {self.name: clip} | {name: values[i] for name, values in self.columns.items()}
            for i, clip in zip(wanted.tolist(), clips, strict=True)
        ]

    def _frames(self, shape: Shape | None) -> int:
        frames = shape.get("frames") if isinstance(shape, dict) else shape
        frames = self.frames if frames is None else frames
        if frames is None:
            remedy = "Give BatchSampler(..., shape=...), or VideoClips(..., frames=...)"
            raise PlanError("how many?", place="frames", value=None, remedy=remedy)
        return frames
