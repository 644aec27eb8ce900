"""Frames come from all parts of a video, their number from the stage, and nothing from chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    FrameCountCurriculum,
    FrameSampler,
    Shuffle,
    Turns,
    VariedBatches,
    VideoClips,
    take_frames,
)
from trainplan.data.frames import segments


@given(st.integers(1, 300), st.integers(1, 40))
def test_segments_cover_a_video_without_gaps(length, frames):
    first, last = segments(length, frames)
    assert len(first) == min(length, frames)
    assert first[0] == 0
    assert last[-1] == length - 1
    assert (first[1:] == last[:-1] + 1).all()
    sizes = last - first + 1
    assert sizes.max() - sizes.min() <= 1
    bounds = np.linspace(0, length, len(first) + 1).astype(int)
    assert (np.append(first, length) == bounds).all()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 9))
def test_a_frame_is_taken_from_every_segment(lengths, frames, step):
    for random in (True, False):
        found = FrameSampler(random, seed=3)(lengths, frames, step=step)
        assert found.shape == (len(lengths), frames)
        for row, length in zip(found, lengths, strict=True):
            first, last = segments(length, frames)
            own = row[row >= 0]
            assert (own >= first).all()
            assert (own <= last).all()
            assert (row[len(own) :] == -1).all()
            if not random:
                assert (own == (first + last) // 2).all()


def test_random_frames_depend_on_seed_step_and_example_alone():
    sampler = FrameSampler(seed=1)
    whole = sampler([30, 50, 70], 4, examples=[10, 20, 30], step=5)
    assert (sampler([70, 30], 4, examples=[30, 10], step=5) == whole[[2, 0]]).all()
    for other in (
        sampler([30, 50, 70], 4, examples=[10, 20, 30], step=6),
        FrameSampler(seed=2)([30, 50, 70], 4, examples=[10, 20, 30], step=5),
        sampler([30, 50, 70], 4, examples=[11, 21, 31], step=5),
    ):
        assert (other != whole).any()


@pytest.mark.parametrize(("legacy", "sizes"), [(False, [4, 4, 4]), (True, [3, 3, 3])])
def test_random_frames_are_drawn_evenly_with_or_without_the_last_one(legacy, sizes):
    sampler = FrameSampler(legacy=legacy)
    found = sampler(np.full(6000, 12), 3) - np.array([0, 4, 8])
    for slot, size in zip(found.T, sizes, strict=True):
        counts = np.bincount(slot, minlength=4)
        assert abs(counts[:size] - 6000 / size).max() < 200
        assert counts[size:].sum() == 0


def test_missing_frames_are_zeros():
    video = np.arange(1, 4).reshape(3, 1) * np.ones((1, 2), np.uint8)
    assert take_frames(video, np.array([0, 2])).tolist() == [[1, 1], [3, 3]]
    found = take_frames(video, FrameSampler(random=False)([3], 5)[0])
    assert found[:, 0].tolist() == [1, 2, 3, 0, 0]


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=4),
    st.integers(200, 5000),
    st.sampled_from(["steps", "frames"]),
)
def test_stages_take_their_shares(frames, budget, by):
    course = FrameCountCurriculum(frames, [1] * len(frames), budget, by=by)
    seen = [course.num_frames(step) for step in range(course.steps)]
    assert len(seen) == course.ends[-1]
    begin = 0
    for number, end in zip(frames, course.ends, strict=True):
        assert set(seen[begin:end]) == {number}
        cost = (end - begin) * (number if by == "frames" else 1)
        assert abs(cost - budget / len(frames)) <= (number if by == "frames" else 1)
        begin = end
    assert course.num_frames(10**9) == frames[-1]


def test_a_stage_ends_when_the_loss_has_stopped_improving():
    course = FrameCountCurriculum((1, 4, 8), patience=2, delta=0.1)
    seen = []
    for loss in (5.0, 4.0, 3.95, 3.85, 3.9, 3.8, 9.0, 9.0, 9.0, 9.0, 9.0):
        course.observe(0, loss=loss)
        seen.append(course.num_frames(0))
    # 3.95 is not better by 0.1, 3.85 is; after a switch the best loss begins anew.
    assert seen == [1, 1, 1, 1, 1, 4, 4, 4, 8, 8, 8]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 5), max_size=20), st.integers(0, 20), st.integers(1, 3))
def test_an_interrupted_curriculum_goes_on(losses, cut, patience):
    whole = FrameCountCurriculum((1, 2, 4), patience=patience)
    parts = [FrameCountCurriculum((1, 2, 4), patience=patience) for _ in range(2)]
    for loss in losses:
        whole.observe(0, loss=loss)
    for loss in losses[:cut]:
        parts[0].observe(0, loss=loss)
    parts[1].load_state_dict(parts[0].state_dict())
    for loss in losses[cut:]:
        parts[1].observe(0, loss=loss)
    assert parts[1].state_dict() == whole.state_dict()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_clips_have_the_frames_of_their_step_in_workers_that_live_on(workers):
    torch = pytest.importorskip("torch")
    course = FrameCountCurriculum((1, 3), (1, 1), steps=8)
    videos = np.arange(10)[:, None] * 100 + np.arange(20)
    clips = VideoClips(videos, columns={"number": list(range(10))})

    def read(step=0):
        sampler = BatchSampler(Shuffle(10, 5, epochs=4), ranks=1, rank=0, shape=course)
        found = []
        loader = torch.utils.data.DataLoader(
            clips, batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0
        )
        sampler.seek(step=step)
        while sampler.step < 8:
            found += list(loader)
        return found

    whole = read()
    assert [batch["pixel_values"].shape[1] for batch in whole] == [1] * 4 + [3] * 4
    for batch in whole:
        assert (batch["pixel_values"] // 100 == batch["number"][:, None]).all()
    for one, again in zip(whole[3:], read(3), strict=True):
        assert torch.equal(one["pixel_values"], again["pixel_values"])


def test_clips_without_a_shape_have_as_many_frames_as_was_said():
    videos = np.arange(30).reshape(3, 10, 1)
    clips = VideoClips(videos, 2, FrameSampler(random=False))
    assert clips[1].tolist() == [[12], [17]]
    by_name = BatchSampler(Shuffle(3, 3), shape={"frames": 5, "crop": 96})
    assert {clip.shape for clip in clips.__getitems__(by_name.batch(0))} == {(5, 1)}


def test_batches_can_hold_as_many_frames_in_every_stage():
    course = FrameCountCurriculum((1, 4), (1, 1), steps=10)
    sizes = lambda step: course.batch_size(18, course.num_frames(step))  # noqa: E731
    sampler = BatchSampler(VariedBatches(Shuffle(100, 1), sizes, shape=course))
    assert [(len(sampler.batch(k)), sampler.batch(k).shape) for k in (4, 5)] == [(18, 1), (4, 4)]


def turns(**options):
    sizes, batches = {"images": 50, "videos": 23}, {"images": 8, "videos": 4}
    return Turns(sizes, batches, seed=1, **options)


def test_turns_alternate_and_end_with_the_shortest():
    found = turns(epochs=2)
    assert found.steps == 2 * 2 * min(50 // 8, 23 // 4)
    batches = [list(batch) for _ in range(2) for batch in BatchSampler(found, ranks=1, rank=0)]
    first = [list(BatchSampler(found, ranks=1, rank=0).batch(i)) for i in range(found.steps)]
    assert batches[:10] == first[:10]
    for step, batch in enumerate(first):
        assert len(batch) == (8, 4)[step % 2]
        assert all((i < 50) == (step % 2 == 0) for i in batch)
    images = [i for batch in first[::2] for i in batch]
    assert len(set(images[:48])) == 48  # the longer one goes on in the next epoch
    assert set(images) == set(range(50))
    assert turns(max_samples=30).steps_per_epoch == 4


@pytest.mark.parametrize("done", [0, 1, 6, 10, 13])
def test_turns_go_on_after_an_interruption_and_on_other_ranks(done):
    reference = BatchSampler(turns(epochs=2), ranks=1, rank=0)
    expected = [list(reference.batch(i)) for i in range(20)]
    assert turns().step_at(turns().position(done)) == done
    state = BatchSampler(turns(epochs=2), ranks=1, rank=0).state_dict(step=done)
    parts = []
    for rank in range(2):
        sampler = BatchSampler(turns(epochs=2), ranks=2, rank=rank)
        sampler.load_state_dict(state)
        parts.append([list(batch) for batch in sampler])
    merged = [a + b for a, b in zip(*parts, strict=True)]
    assert merged == expected[done : (done // 10 + 1) * 10]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: FrameCountCurriculum((), steps=9), "frames"),
        (lambda: FrameCountCurriculum((1, 0), steps=9), "frames[1]"),
        (FrameCountCurriculum, "steps"),
        (lambda: FrameCountCurriculum(steps=9, patience=2), "steps"),
        (lambda: FrameCountCurriculum((1, 4), (1, 1), patience=2), "shares"),
        (lambda: FrameCountCurriculum((1, 4), (1,), 9), "shares"),
        (lambda: FrameCountCurriculum((1, 4), (1, 0), 9), "shares[1]"),
        (lambda: FrameCountCurriculum((1, 4), (99, 1), 9), "shares[1]"),
        (lambda: FrameCountCurriculum(steps=9, by="epochs"), "by"),
        (lambda: FrameCountCurriculum(patience=1).load_state_dict({}), "state"),
        (lambda: FrameSampler()([0], 3), "lengths"),
        (lambda: FrameSampler(legacy=True)([4], 4), "legacy"),
        (lambda: VideoClips([[1]], 0), "frames"),
        (lambda: VideoClips([[1]])[0], "frames"),
        (lambda: VideoClips([[1]], 1, lengths=[1, 1]), "lengths"),
        (lambda: VideoClips([[1]], 1, columns={"labels": []}), "labels"),
        (lambda: Turns({}, 3), "sizes"),
        (lambda: Turns({"a": 5}, 6), "batches.a"),
        (lambda: Turns({"a": 5}, 2, max_samples=1), "max_samples"),
        (lambda: Turns({"a": 5}, {"b": 1}), "batches.b"),
        (lambda: turns().step_at(3), "position"),
        (lambda: BatchSampler(Turns({"a": 8, "b": 8}, {"a": 4, "b": 3}), ranks=2), "batches.b"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
