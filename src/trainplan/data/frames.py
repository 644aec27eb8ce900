"""Which frames of a video a clip shows, and how many of them in which stage of training.

Training on clips of one frame, where images and videos are alike, costs a fraction of training on
many; a short stage with more frames then teaches motion. Bain et al., 2021, "Frozen in Time: A
Joint Video and Image Encoder for End-to-End Retrieval", arXiv 2104.00650.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainplan.data.hashing import checked_seed, hashed, keys, scaled
from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite, rate

Indices = npt.NDArray[np.int64]
BY: Final = ("steps", "frames")
ABSENT: Final = -1
_STREAM = 13


class FrameCountCurriculum:
    """How many frames clips have at each step: few first, then more.

    Stages end after a share of the run, or when the validation loss has stopped improving.

    Args:
        frames: Of a clip in each stage.
        shares: Of the run that each stage takes, in any unit; by default 9 to 1 for two stages,
            else all alike. Not for ``patience``.
        steps: Length of the run in optimizer steps (``by="steps"``), or its budget in frames per
            place of the batch (``by="frames"``): a step with F frames then costs F.
        by: What shares are shares of.
        patience: Let a stage end when the loss has not improved for so many evaluations; tell it
            with `observe`. No steps are needed then.
        delta: By how much a loss must be lower to count as an improvement.

    Attributes:
        stage: The stage now, with ``patience``.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> course = FrameCountCurriculum((1, 4), steps=1000)
    >>> [course.num_frames(step) for step in (0, 899, 900)], course.ends
    ([1, 1, 4], (900, 1000))
    >>> FrameCountCurriculum((1, 4), (30, 70), steps=2400, by="frames").ends
    (720, 1140)
    """

    name = "frame_count"

    def __init__(
        self,
        frames: Sequence[int] = (1, 4),
        shares: Sequence[float] | None = None,
        steps: int | None = None,
        *,
        by: str = "steps",
        patience: int | None = None,
        delta: float = 1e-3,
    ) -> None:
        self.frames = tuple(count(n, f"frames[{k}]") for k, n in enumerate(frames))
        if not self.frames:
            raise PlanError("there is no stage", place="frames", value=frames)
        if by not in BY:
            raise PlanError("unknown", place="by", value=by, remedy=nearest(by, BY))
        self.by, self.delta = by, finite(delta, "delta")
        self.patience = None if patience is None else count(patience, "patience")
        if (self.patience is None) == (steps is None):
            remedy = "Give one of the two"
            value = {"steps": steps, "patience": patience}
            raise PlanError("what ends a stage?", place="steps", value=value, remedy=remedy)
        if self.patience is not None and shares is not None:
            remedy = "Leave shares out, or patience"
            raise PlanError("stages end by the loss", place="shares", value=shares, remedy=remedy)
        self.shares = self._read(shares)
        self.ends = () if steps is None else self._measure(count(steps, "steps"))
        self.stage, self._best, self._bad = 0, math.inf, 0

    def _read(self, shares: Sequence[float] | None) -> tuple[float, ...]:
        if shares is None:
            shares = (9, 1) if len(self.frames) == 2 else (1,) * len(self.frames)
        read = tuple(rate(share, f"shares[{k}]") for k, share in enumerate(shares))
        if len(read) != len(self.frames):
            remedy = f"Give {len(self.frames)}, one for each stage"
            raise PlanError("too few or many", place="shares", value=shares, remedy=remedy)
        return read

    def _measure(self, budget: int) -> tuple[int, ...]:
        """The step before which each stage ends."""
        costs = self.frames if self.by == "frames" else (1,) * len(self.frames)
        whole = sum(self.shares)
        edges = [round(budget * part / whole) for part in accumulate(self.shares)]
        units = [b - a for a, b in zip([0, *edges], edges, strict=False)]
        lengths = [unit // cost for unit, cost in zip(units, costs, strict=True)]
        if 0 in lengths:
            remedy = "Give a larger share, or a longer run"
            place = f"shares[{lengths.index(0)}]"
            raise PlanError("a stage has no step", place=place, value=lengths, remedy=remedy)
        return tuple(accumulate(lengths))

    @property
    def steps(self) -> int | None:
        """Length of the run; None if stages end by the loss."""
        return self.ends[-1] if self.ends else None

    def num_frames(self, step: int = 0) -> int:
        """Frames of a clip at a step; with ``patience`` those of the stage now."""
        if not self.ends:
            return self.frames[self.stage]
        at = bisect_right(self.ends, count(step, "step", least=0))
        return self.frames[min(at, len(self.frames) - 1)]

    def batch_size(self, batch: int, frames: int) -> int:
        """Clips of a batch that holds as many frames as one of the first stage does.

        >>> FrameCountCurriculum((1, 4), steps=10).batch_size(96, frames=4)
        24
        """
        return max(count(batch, "batch") * self.frames[0] // count(frames, "frames"), 1)

    # What a plan or a sampler that listens asks of a controller

    def value(self, t: float) -> int:
        """`num_frames`."""
        return self.num_frames(int(t))

    def observe(self, t: float, **signals: float) -> None:
        """Hear an evaluation: ``loss`` is that of the validation data; others are ignored.

        With ``patience``, the next stage begins when it was too many times not better.
        """
        if self.patience is None or "loss" not in signals:
            return
        loss = float(signals["loss"])
        if loss < self._best - self.delta:
            self._best, self._bad = loss, 0
        else:
            self._bad += 1
        if self._bad >= self.patience and self.stage < len(self.frames) - 1:
            self.stage, self._best, self._bad = self.stage + 1, math.inf, 0

    def state_dict(self) -> dict[str, Any]:
        """Stage, best loss, and evaluations since; an unset best is the text "none"."""
        best = self._best if math.isfinite(self._best) else "none"
        return {"stage": self.stage, "best": best, "bad": self._bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            PlanError: If it is none of such a curriculum.
        """
        if set(state) != set(self.state_dict()):
            raise PlanError("not a state of frame counts", place="state", value=sorted(state))
        most = len(self.frames) - 1
        self.stage = count(state["stage"], "state.stage", least=0, most=most)
        best = state["best"]
        self._best = math.inf if best == "none" else finite(best, "state.best")
        self._bad = count(state["bad"], "state.bad", least=0)

    def plain(self) -> dict[str, Any]:
        """The settings."""
        told = {"frames": list(self.frames), "shares": list(self.shares), "ends": list(self.ends)}
        return {self.name: told | {"patience": self.patience, "delta": self.delta}}


def segments(length: int, frames: int) -> tuple[Indices, Indices]:
    """First and last frame of each of min(frames, length) equal parts of a video.

    >>> [part.tolist() for part in segments(12, 3)]
    [[0, 4, 8], [3, 7, 11]]
    """
    parts = min(count(frames, "frames"), count(length, "length"))
    bounds = _bounds(np.array([length]), parts)[0]
    return bounds[:-1], bounds[1:] - 1


def _bounds(lengths: Indices, frames: int) -> Indices:
    """(B, frames + 1) where the equal parts of videos begin and end; further ones are anything."""
    parts = np.minimum(lengths, frames)[:, None]
    places = np.arange(frames + 1)
    # Cut as NumPy's linspace would be: i times the length of a part.
    bounds = (places * (lengths[:, None] / parts)).astype(np.int64)
    return np.where(places == parts, lengths[:, None], bounds)


class FrameSampler:
    """One frame from each of F equal parts of a video: its middle, or a random one.

    Random frames are functions of the seed, the step and the example, so that workers and
    interruptions change nothing.

    Args:
        random: Whether frames are random, as in training, or the middle ones.
        seed: Of the random ones.
        legacy: Never draw the last frame of a part, as the authors' code does; parts of one frame
            are then an error.

    >>> FrameSampler(random=False)([100, 2], frames=4).tolist()
    [[12, 37, 62, 87], [0, 1, -1, -1]]
    """

    def __init__(self, random: bool = True, seed: int = 0, *, legacy: bool = False) -> None:
        self.random, self.seed, self.legacy = bool(random), checked_seed(seed), bool(legacy)

    def __call__(
        self,
        lengths: npt.ArrayLike,
        frames: int,
        *,
        examples: npt.ArrayLike | None = None,
        step: int = 0,
    ) -> Indices:
        """(B, F) frames in their order; -1 where a video is too short to give one.

        Args:
            lengths: (B,) frames of each video.
            frames: F.
            examples: (B,) number of each video in its data set, of which random frames are
                functions; 0 to B - 1 by default.
            step: The optimizer step, of which they are functions as well.
        """
        videos = np.asarray(lengths, np.int64)
        wanted = count(frames, "frames")
        if videos.ndim != 1 or (videos.size and videos.min() < 1):
            remedy = "Give (B,) numbers of frames, 1 or more"
            raise PlanError("not lengths", place="lengths", value=lengths, remedy=remedy)
        bounds = _bounds(videos, wanted)
        first, last = bounds[:, :-1], bounds[:, 1:] - 1
        present = np.arange(wanted) < videos[:, None]
        if self.random:
            number = np.arange(videos.size) if examples is None else np.asarray(examples)
            chosen = self._draw(first, last, number, step, present)
        else:
            chosen = (first + last) // 2
        return np.where(present, chosen, ABSENT)

    def _draw(
        self, first: Indices, last: Indices, examples: Any, step: int, present: npt.NDArray[Any]
    ) -> Indices:
        sizes = last - first + (0 if self.legacy else 1)
        if (sizes[present] < 1).any():
            remedy = "Give legacy=False, or fewer frames"
            raise PlanError("a part has one frame", place="legacy", value=True, remedy=remedy)
        of_slot = keys(first.shape[1], self.seed, _STREAM, count(step, "step", least=0))
        numbers = np.asarray(examples).astype(np.uint64)
        bits = np.stack([hashed(numbers, each) for each in of_slot], axis=1)
        drawn = first.copy()
        for size in np.unique(sizes[present]).tolist():
            where = present & (sizes == size)
            drawn[where] += scaled(bits[where], size)
        return drawn


def take_frames(video: Any, places: Indices) -> Any:
    """(F, ...) frames of a video at the places of a `FrameSampler`; zeros where there is none.

    Zeros reach the attention of a model: mask them there, or show short videos in a stage of their
    own.

    >>> take_frames(np.array([[5], [6]]), np.array([0, 1, -1])).tolist()
    [[5], [6], [0]]
    """
    frames = np.asarray(video[places[places != ABSENT].tolist()])
    empty = np.zeros((len(places) - len(frames), *frames.shape[1:]), frames.dtype)
    return np.concatenate([frames, empty]) if len(empty) else frames
