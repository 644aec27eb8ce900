"""Videos as clips of as many frames as the stage of training has.

Clips know their step from the `Batch` that asks for them, so workers, batches drawn ahead and runs
that go on all see the number of frames of the right stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.data.batches import Batch
from trainplan.data.frames import FrameCountCurriculum, FrameSampler, take_frames
from trainplan.errors import PlanError
from trainplan.schedules.values import count


class VideoClips:
    """Clips of videos, as a map-style data set.

    An item is (F, ...) frames, or, with columns, a dictionary of these and of what the columns
    hold.

    Args:
        videos: Each (L, ...) whose frames can be taken by a list of numbers: arrays, tensors,
            memory-mapped files, decoders. An image is a video of one frame.
        frames: F, or a curriculum that says it for each step.
        sampler: Which frames.
        lengths: (n,) frames of each video, so that none is opened before it is read.
        columns: (n,) values of each, by name.
        name: Under which clips stand beside columns.

    >>> videos = np.arange(24).reshape(2, 12, 1)
    >>> course = FrameCountCurriculum((1, 3), (1, 1), steps=10)
    >>> clips = VideoClips(videos, course, FrameSampler(random=False))
    >>> [clips.__getitems__(Batch.of(np.array([1]), step))[0].shape for step in (4, 5)]
    [(1, 1), (3, 1)]
    """

    def __init__(
        self,
        videos: Sequence[Any],
        frames: int | FrameCountCurriculum,
        sampler: FrameSampler | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        name: str = "pixel_values",
    ) -> None:
        self.videos, self.name = videos, name
        self.frames = (
            frames if isinstance(frames, FrameCountCurriculum) else count(frames, "frames")
        )
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

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The clips at some indices; a `Batch` knows the step, otherwise it is the first."""
        step = indices.step if isinstance(indices, Batch) else 0
        frames = self.frames if isinstance(self.frames, int) else self.frames.num_frames(step)
        wanted = list(indices)
        lengths = self.lengths[wanted]
        places = self.sampler(lengths, frames, examples=np.asarray(wanted), step=step)
        clips = [take_frames(self.videos[i], row) for i, row in zip(wanted, places, strict=True)]
        if not self.columns:
            return clips
        return [
            {self.name: clip} | {name: values[i] for name, values in self.columns.items()}
            for i, clip in zip(wanted, clips, strict=True)
        ]
