"""Lightning shows the motion of the stage, also in workers, and a resumed run changes nothing."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torchdata")

import with_motion as example  # noqa: E402


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, example.fit(folder)


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (6, 0), (8, 2)])
def test_resuming_changes_nothing(uninterrupted, tmp_path, step, workers):
    folder, whole = uninterrupted
    if workers:  # a loader's state is of so many workers
        folder, whole = tmp_path / "first", example.fit(tmp_path / "first", workers=workers)
    resumed = example.fit(tmp_path, resume=folder / f"step={step}.ckpt", workers=workers)
    for module in (resumed, whole):
        for a, b in zip(module.parameters(), uninterrupted[1].parameters(), strict=True):
            assert torch.equal(a, b)


def test_half_of_every_batch_has_the_motion_of_its_stage():
    data = example.loader().dataset
    source = example.loader().batch_sampler.source
    names = list(data.sizes)
    for step in range(example.STEPS):
        motion = example.curriculum.at(step // example.PER_EPOCH)
        counts = dict(zip(names, source.counts(step).tolist(), strict=True))
        assert {name: n for name, n in counts.items() if n} == {"small": 2, motion.name: 2}
