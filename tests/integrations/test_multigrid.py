"""Lightning trains under multigrid, also with workers, and a resumed run changes nothing."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("torchdata")

import with_multigrid as example  # noqa: E402


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, example.fit(folder)


def same(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


# Inside the short cycle, at a change of the phase (of the number of parts), and near the end.
@pytest.mark.parametrize("step", [1, example.batches.starts[1], example.batches.starts[2] + 1])
def test_resuming_changes_nothing(uninterrupted, tmp_path, step):
    folder, whole = uninterrupted
    same(example.fit(tmp_path, resume=folder / f"step={step}.ckpt"), whole)


def test_workers_change_nothing(uninterrupted, tmp_path):
    same(example.fit(tmp_path, workers=2), uninterrupted[1])


def test_every_batch_has_the_shape_of_its_step():
    shapes = [tuple(clips.shape) for clips, _ in example.loader()]
    for step, shape in enumerate(shapes):
        wanted = example.batches.shapes(step)
        side, frames = wanted["crop"], wanted["frames"]
        assert shape == (example.batches.size(step), 1, frames, side, side)
    assert len(shapes) == example.batches.steps
    assert len(set(shapes)) > 4
