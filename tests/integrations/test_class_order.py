"""A plain loop of PyTorch learns class after class with replay, and resumes to the bit."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import with_class_order as example  # noqa: E402


def test_classes_come_in_the_designed_order_and_a_run_resumes_exactly(tmp_path):
    order = example.designer.best()[0]
    whole, first, again = (example.Training(order) for _ in range(3))
    whole.train()
    labels = example.labels[[i for k in range(example.STEPS) for i in whole.sampler.batch(k)]]
    assert list(dict.fromkeys(labels.tolist())) == order
    assert sorted(whole.memory.classes.tolist()) == sorted(list(range(5)) * 5)
    first.train(until=37)
    first.save(tmp_path / "checkpoint.pt")
    again.load(tmp_path / "checkpoint.pt")
    again.train()
    assert again.memory.state_dict() == whole.memory.state_dict()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sum(example.accuracy(whole.model)) / 5 > 0.3  # more than the last class alone
