"""Motion rises by stages, never falls, and travels with the index of a triplet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import Batch, BatchSampler, MotionCurriculum, motion_magnitude
from trainplan.data.motion import triplet, valid_starts

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from trainplan.data import Triplets, motion_triplets  # noqa: E402


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 64),
    st.integers(0, 64),
    st.floats(0, 1),
    st.sampled_from(["add", "mul"]),
    st.floats(1, 4),
    st.integers(2, 40),
)
def test_motion_never_falls_and_gaps_are_even(epochs, each, start, more, r, mode, step, most):
    found = MotionCurriculum(epochs, each, start, start + more, r, 2, step, mode, most)
    assert len(found.stages) == -(-epochs // each)
    motion = [found.relative_motion(epoch, 64) for epoch in range(epochs)]
    assert motion == sorted(motion)
    for epoch in range(epochs):
        size, gap = found.at(epoch)
        assert gap % 2 == 0
        assert 2 <= gap <= most
        assert start <= size <= start + more
        assert found.at(epoch) == found.stages[epoch // each]
    assert found.at(epochs + 1000) == found.stages[-1]


def test_growth_by_products_ends_at_the_limit():
    found = MotionCurriculum(100_000, 1, gap_step=2, mode="mul", max_gap=9)
    assert [stage.gap for stage in found.stages[:4]] == [2, 4, 8, 8]
    assert found.stages[-1].gap == 8


@given(st.integers(0, 30), st.integers(1, 15), st.lists(st.integers(1, 40), min_size=1))
def test_triplets_lie_inside_their_clip(start, half, lengths):
    gap = 2 * half
    first, target, last = triplet(start, gap)
    assert target - first == last - target == half
    starts = valid_starts(lengths, gap)
    for length, number in zip(lengths, starts.tolist(), strict=True):
        assert number == sum(triplet(i, gap).last < length for i in range(length))


def numbered(lengths, side=8, channels=1):
    """Clips whose pixels are 100 times the clip plus the frame, in 10000ths."""
    return [
        (np.arange(n)[:, None, None, None] + 100 * k + np.zeros((1, channels, side, side))) / 1e4
        for k, n in enumerate(lengths)
    ]


def test_every_triplet_of_long_enough_clips_is_there_once():
    data = Triplets(numbered([7, 3, 4, 9]), gap=4)
    read = [tuple((10000 * item[:, 0, 0, 0]).round().int().tolist()) for item in data]
    assert read == [
        (100 * k + i, 100 * k + i + 2, 100 * k + i + 4)
        for k, n in enumerate([7, 3, 4, 9])
        for i in range(n - 4)
    ]


def test_frames_are_resized_together_before_they_are_cropped():
    clips = np.random.default_rng(0).integers(0, 256, (1, 3, 3, 24, 40), dtype=np.uint8)
    whole = Triplets(clips, size=12)[0]
    assert tuple(whole.shape) == (3, 3, 12, 20)
    assert 0 <= whole.min() < whole.max() <= 1
    assert torch.equal(Triplets(clips, size=12, crop=8)[0], whole[:, :, 2:10, 6:14])
    for frame, pixels in zip(whole, clips[0], strict=True):
        alone = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[None] / 255, (12, 20), mode="bilinear", antialias=True
        )[0]
        torch.testing.assert_close(frame, alone)


def test_variations_depend_on_seed_step_and_triplet_alone():
    clips = np.random.default_rng(0).random((2, 3, 3, 12, 12))
    steps = [(0, [0, 1]), (1, [0]), (2, [1, 0])]

    def read(seed):
        data = Triplets(clips, crop=8, augment=True, seed=seed)
        return {
            (step, i): item
            for step, indices in steps
            for i, item in zip(
                indices, data.__getitems__(Batch.of(np.array(indices), step)), strict=True
            )
        }

    first, again, other = read(0), read(0), read(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert not torch.equal(first[0, 0], first[1, 0])


def test_variations_are_flips_of_crops_in_equal_parts():
    clips = numbered([3], side=1, channels=3)[0] + np.arange(3)[None, :, None, None] / 1e5
    data = Triplets([clips], crop=1, augment=True)
    read = [data.__getitems__(Batch.of(np.array([0]), step))[0] for step in range(400)]
    for axis in (0, 1):  # time, and channels
        turned = sum(bool(torch.diff(item, dim=axis).mean() < 0) for item in read)
        assert 160 < turned < 240


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_live_on_follow_the_stages_and_a_resumed_run(workers):
    found = MotionCurriculum(3, 1, 8, 16, 0.25, 2, 2)
    data = motion_triplets(found, numbered([3, 3, 3]), numbered([9, 9], side=16), crop=8)

    def batches(step=0):
        source = found.mixture(data.sizes, steps_per_epoch=2, global_batch=4, seed=1)
        sampler = BatchSampler(source)
        sampler.seek(step=step)
        extra = {"persistent_workers": True} if workers else {}
        return list(DataLoader(data, batch_sampler=sampler, num_workers=workers, **extra))

    whole = batches()
    assert len(whole) == 6
    for step, batch in enumerate(whole):
        frames = (1e4 * batch[:, :, 0, 0, 0]).round().int()
        gaps = sorted((frames[:, 2] - frames[:, 0]).abs().tolist())
        large = found.at(step // 2).gap
        assert gaps == sorted([2, 2, large, large])
        assert tuple(batch.shape) == (4, 3, 1, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], batches(3), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(-8, 8), st.integers(-9, 9), st.integers(1, 3), st.integers(0, 99))
def test_the_magnitude_of_a_shift_is_its_length(down, right, channels, seed):
    frames = np.random.default_rng(seed).random((2, channels, 18, 20))
    moved = np.roll(frames, (down, right), axis=(2, 3))
    found = motion_magnitude(frames, moved)
    assert found == pytest.approx([np.hypot(down, right)] * 2)


def test_the_share_of_large_motion_is_kept():
    found = MotionCurriculum(2, 1, 8, 8)
    sizes = dict.fromkeys(["small", *(motion.name for motion in found.stages)], 40)
    mixture = found.mixture(sizes, 5, 8, large_fraction=0.25)
    assert sum(mixture.counts(step) for step in range(5)).tolist() == [30, 10, 0]
    assert sum(mixture.counts(step) for step in range(5, 10)).tolist() == [30, 0, 10]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: MotionCurriculum(mode="double"), "mode"),
        (lambda: MotionCurriculum(start_size=513), "start_size"),
        (lambda: MotionCurriculum(increment=-0.1), "increment"),
        (lambda: MotionCurriculum(gap_step=0.5, mode="mul"), "gap_step"),
        (lambda: MotionCurriculum(max_gap=1), "max_gap"),
        (lambda: MotionCurriculum().at(-1), "epoch"),
        (lambda: MotionCurriculum().relative_motion(0, 0), "native_size"),
        (lambda: MotionCurriculum().weights(3, 1.5), "large_fraction"),
        (lambda: triplet(0, 3), "gap"),
        (lambda: Triplets(numbered([4]), gap=4), "gap"),
        (lambda: Triplets(numbered([4]), lengths=[4, 4]), "lengths"),
        (lambda: Triplets(numbered([4]), size=8, crop=9), "crop"),
        (lambda: Triplets(numbered([4]), crop=9)[0], "crop"),
        (lambda: motion_magnitude(np.zeros((2, 2)), np.zeros((2, 2))), "frames"),
        (lambda: motion_magnitude(np.zeros((1, 2, 2)), np.zeros((1, 2, 4))), "last"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place


def test_indices_outside_are_refused():
    with pytest.raises(IndexError):
        Triplets(numbered([4]))[2]
