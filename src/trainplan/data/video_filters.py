"""Which videos have an order worth asking for, and which frame of a clip to show.

The filters of TEMPLE (Li et al., 2025, arXiv 2503.16929): a video needs several clips, none of them
long, and scenes that are unlike each other and do not keep coming back.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import rate

Floats = npt.NDArray[np.float64]


def usable_clips(
    frames: npt.ArrayLike, fps: float, grey_range: npt.ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """(n,) whether each clip is at least 0.2 s long and not of one colour.

    Args:
        frames: (n,) number of frames.
        fps: Frames per second.
        grey_range: (n,) largest less smallest grey value, of 255; below 10 is one colour.

    >>> usable_clips([5, 6, 60], 30, [200, 200, 4]).tolist()
    [False, True, False]
    """
    lengths = np.asarray(frames, dtype=np.float64)
    # 0.2 s is not a number of the machine: 6 frames of 30 are long enough.
    long = lengths >= 0.2 * rate(fps, "fps") * (1 - 1e-12)
    return long if grey_range is None else long & (np.asarray(grey_range) >= 10)


def keep_scenes(
    frames: npt.ArrayLike, fps: float, *, least: int = 4, most: int = 32, longest: float = 16.0
) -> bool:
    """Whether a video has a fit number of clips, and none that is too long.

    Args:
        frames: (n,) number of frames of each clip.
        fps: Frames per second.
        least: Clips.
        most: Clips.
        longest: Seconds of a clip.

    >>> keep_scenes([60, 60, 60, 480], 30), keep_scenes([60, 60, 60, 481], 30)
    (True, False)
    """
    lengths = np.asarray(frames)
    seconds = lengths.max(initial=0) / rate(fps, "fps")
    return bool(least <= lengths.size <= most and seconds <= longest)


def similarity_groups(similarity: npt.ArrayLike, threshold: float = 0.8) -> npt.NDArray[np.int64]:
    """(n,) group of each clip: the most similar two are merged while they are similar enough.

    A merged group's similarities are the plain mean of the two, however many clips each has.

    Args:
        similarity: (n, n) symmetric, such as cosines of embeddings.
        threshold: Two are merged above it.

    Returns:
        Groups numbered in the order in which they first appear.

    >>> similarity_groups([[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]]).tolist()
    [0, 1, 0]
    """
    close = np.array(similarity, dtype=np.float64)
    if close.ndim != 2 or close.shape[0] != close.shape[1] or not close.size:
        remedy = "Give (n, n), a row for each clip"
        raise PlanError("not a square table", place="similarity", value=close.shape, remedy=remedy)
    np.fill_diagonal(close, -np.inf)
    marks = np.arange(len(close))
    while close.max() > threshold:
        a, b = sorted(divmod(int(close.argmax()), len(close)))
        merged = (close[a] + close[b]) / 2
        close[a], close[:, a] = merged, merged
        close[a, a] = -np.inf
        close[b], close[:, b] = -np.inf, -np.inf
        marks[marks == b] = a
    _, first, number = np.unique(marks, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def fuse_segments(groups: npt.ArrayLike) -> list[tuple[int, list[int]]]:
    """Consecutive clips of one group as one segment: its group, and its clips.

    >>> fuse_segments([0, 0, 1, 0])
    [(0, [0, 1]), (1, [2]), (0, [3])]
    """
    marks = np.asarray(groups).tolist()
    runs = groupby(range(len(marks)), key=lambda i: marks[i])
    return [(group, list(run)) for group, run in runs]


def keep_groups(segment_groups: npt.ArrayLike, *, least: int = 4, most: int = 3) -> bool:
    """Whether a video has enough segments, of scenes that do not keep coming back.

    Args:
        segment_groups: (n,) group of each segment.
        least: Segments.
        most: Times that a group may come, and no more than a third of the segments.

    >>> keep_groups([0, 1, 2, 3]), keep_groups([0, 1, 0, 2, 0])
    (True, False)
    """
    marks = np.asarray(segment_groups)
    if marks.size < least:
        return False
    often = int(np.unique(marks, return_counts=True)[1].max())
    return often <= min(most, marks.size // 3)


def clarity(frame: Any) -> float:
    """How sharp a grey frame (H, W) is: the mean size of its Laplacian.

    >>> clarity(np.ones((4, 4)))
    0.0
    """
    grey = np.asarray(frame, dtype=np.float64)
    if grey.ndim != 2 or min(grey.shape) < 2:
        remedy = "Give (H, W) grey values"
        raise PlanError("not a grey frame", place="frame", value=grey.shape, remedy=remedy)
    around = np.pad(grey, 1, mode="reflect")
    sides = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    return float(np.abs(sides - 4 * grey).mean())


def frame_weights(interval: float) -> Floats:
    """(2 h,) weight of each frame of a window: highest in its middle, cos(pi d / (2 h)).

    Args:
        interval: Frames from one choice to the next; h is half of it, rounded down.

    >>> frame_weights(4).round(3).tolist()
    [0.0, 0.707, 1.0, 0.707]
    """
    half = int(rate(interval, "interval")) // 2
    if not half:
        remedy = "Give two frames or more"
        raise PlanError("no window", place="interval", value=interval, remedy=remedy)
    weights: Floats = np.cos(np.pi * np.arange(-half, half) / (2 * half))
    return weights


def sharpest_frame(clarities: npt.ArrayLike, interval: float) -> int:
    """Which frame of a window to show: the sharpest, rather in the middle; the first of equals.

    >>> sharpest_frame([9.0, 1.0, 1.0, 2.0], 4)
    3
    """
    weights, sharp = frame_weights(interval), np.asarray(clarities, dtype=np.float64)
    if sharp.shape != weights.shape:
        remedy = f"Give {weights.size}, one for each frame"
        raise PlanError("not the window", place="clarities", value=sharp.shape, remedy=remedy)
    return int(np.argmax(weights * sharp))
