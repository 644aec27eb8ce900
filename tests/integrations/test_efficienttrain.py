"""Crops and strengths are those of the step, with persistent workers and after an interruption."""

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")
torchdata = pytest.importorskip("torchdata.stateful_dataloader")

import with_bandwidth as example  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import trainplan as tp  # noqa: E402


class Indices:
    """Gives its index twice, once as the image."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.tensor(float(index)), index


def shown(strength):
    """A transform that shows the strength which has reached the worker."""
    return lambda image: image * 0 + strength


@pytest.mark.parametrize(("workers", "kind"), [(0, "plain"), (2, "plain"), (2, "stateful")])
def test_strengths_reach_persistent_workers_without_delay(workers, kind):
    stages = tp.data.bandwidth_stages(5)
    plan = tp.Plan(25, steps_per_epoch=5, magnitude=stages.magnitude)
    sampler = tp.data.BatchSampler(
        tp.data.Shuffle(20, 4, epochs=5),
        ranks=1,
        rank=0,
        shape=tp.data.Strengths(plan["magnitude"]),
    )
    loader = (DataLoader if kind == "plain" else torchdata.StatefulDataLoader)(
        tp.data.Shaped(Indices(), tp.data.Augment(shown)),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    found, seen = [], []
    for _ in range(5):
        for strengths, indices in loader:
            assert strengths.unique().numel() == 1
            found.append(strengths[0].item())
            seen += indices.tolist()
    assert found == [plan["magnitude"](step) for step in range(25)]
    assert all(sorted(seen[k : k + 20]) == list(range(20)) for k in range(0, 100, 20))


def test_a_resumed_lightning_run_is_the_uninterrupted_one(tmp_path):
    whole = example.fit(tmp_path)
    sizes = [int(example.plan["bandwidth"](step)) for step in range(example.plan.horizon)]
    assert whole.sizes == sizes
    middle = example.STEPS * 3 + 1  # inside the fourth stage
    resumed = example.fit(tmp_path / "resumed", resume=tmp_path / f"step={middle}.ckpt")
    assert resumed.sizes == sizes[middle:]
    pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
