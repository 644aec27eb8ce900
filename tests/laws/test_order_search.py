"""Searching for an order, moving a batch through it, and feeding a loader with what was found."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from laws.order_tasks import Task, classify, examples, network, weights  # noqa: E402
from trainplan.errors import PlanError  # noqa: E402
from trainplan.laws.order import (  # noqa: E402
    OrderedBatchSampler,
    genetic_search,
    move_batch,
    position_effects,
)
from trainplan.laws.order.search import order_crossover, swap_mutation  # noqa: E402


def net():
    model = network()
    return model, torch.optim.Adam(model.parameters(), lr=0.02)


def far(order):
    return float(sum(abs(place - j) for place, j in enumerate(order)))


@given(
    n=st.integers(1, 12), first=st.integers(0, 99), second=st.integers(0, 99), seed=st.integers()
)
def test_children_are_permutations_made_of_their_parents(n, first, second, seed):
    rng = np.random.default_rng(abs(seed))
    a = np.random.default_rng(first).permutation(n).tolist()
    b = np.random.default_rng(second).permutation(n).tolist()
    child = order_crossover(a, b, rng)
    assert sorted(child) == sorted(swap_mutation(child, rng)) == list(range(n))
    assert order_crossover(a, a, rng) == a
    changed = sum(x != y for x, y in zip(child, swap_mutation(child, rng), strict=True))
    assert changed == (2 if n > 1 else 0)


def test_the_search_beats_as_many_random_orders():
    start = list(range(9))[::-1]
    found = genetic_search(far, start, budget=200, seed=1, show=False)
    rng = np.random.default_rng(1)
    assert found.score == far(found.order) < min(far(rng.permutation(9)) for _ in range(200))
    assert len(found.history) == 200
    assert found.history[0] == (start, far(start))
    assert len({tuple(order) for order, _ in found.history}) > 190


def test_an_interrupted_search_goes_on_the_same_way(tmp_path):
    whole = genetic_search(far, range(7), budget=60, population=8, show=False)
    calls = 0

    def interrupted(order):
        nonlocal calls
        calls += 1
        if calls == 33:
            raise KeyboardInterrupt
        return far(order)

    options = {"population": 8, "show": False, "checkpoint": tmp_path / "search.json"}
    with pytest.raises(KeyboardInterrupt):
        genetic_search(interrupted, range(7), budget=60, **options)
    calls = 100
    resumed = genetic_search(interrupted, range(7), budget=60, **options)
    assert resumed == whole
    assert calls == 100 + 60 - 32
    with pytest.raises(PlanError, match="another search"):
        genetic_search(far, range(7), budget=60, seed=2, **options)


def test_a_score_that_is_not_a_number_is_the_worst():
    def score(order):
        return float("nan") if order[0] == 0 else far(order)

    found = genetic_search(score, range(4), budget=24, population=6, show=False)
    assert found.order[0] != 0


def test_small_problems_end(tmp_path):
    assert genetic_search(far, [1, 0], budget=30, population=4, show=False).order == [0, 1]
    assert genetic_search(far, [0], budget=5, population=4, show=False).order == [0]


@pytest.mark.parametrize(
    "options", [{"population": 1}, {"mutation": 1.5}, {"budget": 0}, {"start": [0, 0, 1]}]
)
def test_bad_settings_are_refused(options):
    with pytest.raises(PlanError):
        genetic_search(far, options.pop("start", range(4)), **options)


def test_an_order_found_by_estimates_is_truly_good(tmp_path):
    task = Task(tmp_path, net, classify, examples(6))
    inputs, labels = (torch.cat(parts) for parts in zip(*task.batches[:2], strict=True))

    def loss(model):
        with torch.no_grad():
            return float(classify(model, (inputs, labels)))

    found = task.estimator().search(loss, budget=40, population=10)
    rng = np.random.default_rng(0)

    def truth(order):
        model, optimizer = task.build()
        task.train(model, optimizer, order)
        return loss(model)

    random = [truth(rng.permutation(6).tolist()) for _ in range(20)]
    assert truth(found.order) < np.mean(random)
    assert found.score == pytest.approx(truth(found.order), rel=0.05)


@pytest.mark.parametrize("options", [{}, {"curvature": "secant"}], ids=str)
def test_there_is_one_progress_bar_at_a_time_on_standard_error(options, tmp_path, capsys):
    task = Task(tmp_path, net, classify, examples(4))
    estimator = task.estimator(**options, show=True)
    found = estimator.search(lambda model: float(model[0].weight.detach()[0, 0]), budget=4)
    position_effects(estimator, lambda model, i: 0.0, which=[0], show=True)
    estimator.estimate(found.order)
    assert capsys.readouterr().out == ""


def test_moving_a_batch_to_where_it_is_changes_nothing_and_later_is_remembered_better(tmp_path):
    task = Task(tmp_path / "run", net, classify, examples(6))
    estimator = task.estimator()

    @torch.no_grad()
    def loss(model, i):
        return float(classify(model, task.batches[i]))

    file = tmp_path / "matrix.json"
    matrix = position_effects(estimator, loss, which=[1, 4], checkpoint=file, show=False)
    assert matrix.shape == (2, 6)
    reference = [loss(task.model, i) for i in (1, 4)]
    assert [matrix[0, 1], matrix[1, 4]] == pytest.approx(reference, rel=1e-12)
    for row, i in enumerate((1, 4)):
        for p in (0, 5):
            model, optimizer = task.build()
            task.train(model, optimizer, move_batch(task.reference, i, p))
            assert matrix[row, p] == pytest.approx(loss(model, i), rel=0.02)
    again = position_effects(estimator, None, which=[1, 4], checkpoint=file, show=False)
    assert np.array_equal(again, matrix)
    with pytest.raises(PlanError, match="another matrix"):
        position_effects(estimator, loss, which=[2], checkpoint=file, show=False)
    with pytest.raises(PlanError, match="positions"):
        position_effects(estimator, loss, positions=[6], show=False)


def test_a_loader_gives_the_batches_in_the_order_and_goes_on_after_a_stop(tmp_path):
    data = TensorDataset(torch.arange(10))
    plain = [batch[0].tolist() for batch in DataLoader(data, batch_size=4)]
    sampler = OrderedBatchSampler(10, 4, order=[2, 0, 1])
    loader = DataLoader(data, batch_sampler=sampler)
    assert [batch[0].tolist() for batch in loader] == [plain[j] for j in (2, 0, 1)]
    assert len(loader) == 3
    assert sampler.indices() == plain[2] + plain[0] + plain[1]

    iterator = iter(sampler)
    next(iterator)
    resumed = OrderedBatchSampler(10, 4)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == [plain[0], plain[1]]
    assert list(resumed) == [plain[2], plain[0], plain[1]]
    assert list(OrderedBatchSampler(10, 4, drop_last=True)) == plain[:2]
    with pytest.raises(PlanError, match="order"):
        OrderedBatchSampler(10, 4, order=[0, 1, 1])
    with pytest.raises(PlanError, match="batch_size"):
        OrderedBatchSampler(3, 4, drop_last=True)


def test_a_found_order_selects_rows_of_a_hugging_face_dataset():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"x": list(range(7))})
    sampler = OrderedBatchSampler(len(data), 3, order=[1, 2, 0])
    assert data.select(sampler.indices())["x"][:] == [3, 4, 5, 6, 0, 1, 2]


def test_training_with_the_sampler_is_training_in_the_order(tmp_path):
    task = Task(tmp_path, net, classify, examples(5))
    order = [3, 0, 4, 1, 2]
    data = TensorDataset(*(torch.cat(parts) for parts in zip(*task.batches, strict=True)))
    model, optimizer = task.build()
    sampler = OrderedBatchSampler(len(data), 5, order=order)
    for batch in DataLoader(data, batch_sampler=sampler):
        optimizer.zero_grad()
        classify(model, batch).backward()
        optimizer.step()
    assert torch.equal(weights(model), task.truth(order))
