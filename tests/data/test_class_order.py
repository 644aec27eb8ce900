"""Orders of classes are scored as published, searched exactly where that can be, and compared."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.continual import retention
from trainplan.data import (
    BatchSampler,
    Curriculum,
    CurriculumDesigner,
    group_difficulty,
    order_agreement,
)


def table(size, seed=0):
    points = np.random.default_rng(seed).normal(size=(size, 3))
    return np.linalg.norm(points[:, None] - points, axis=2)


def by_hand(designer, order):
    """The score, walked from both ends as the paper does."""
    total, left, right = 1 - designer.shares[order[0]], 0, len(order) - 1
    while left < right:
        total += 1 - designer.rows[order[left], order[right]]
        total += designer.rows[order[left], order[left + 1]]
        left, right = left + 1, right - 1
    return total


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(0, 99), st.data())
def test_scores_are_those_of_a_walk_from_both_ends(size, seed, data):
    designer = CurriculumDesigner(table(size, seed))
    order = data.draw(st.permutations(range(size)))
    # With an even number both ends meet in one class, whose two terms cancel.
    assert designer.score(order) == pytest.approx(by_hand(designer, order))


@settings(max_examples=20)
@given(st.integers(3, 6), st.integers(0, 99), st.floats(0.1, 50))
def test_rows_may_be_in_any_unit(size, seed, unit):
    distances = table(size, seed)
    factors = np.linspace(1, unit, size)[:, None]
    orders = list(itertools.permutations(range(size)))
    assert np.allclose(
        CurriculumDesigner(distances).scores(orders),
        CurriculumDesigner(distances * factors).scores(orders),
    )


@pytest.mark.parametrize("size", [2, 5, 8])
def test_the_best_orders_are_the_best_of_all(size):
    designer = CurriculumDesigner(table(size))
    found = designer.best(3)
    every = designer.scores(itertools.permutations(range(size)))
    assert np.allclose(designer.scores(found), np.sort(every)[::-1][: len(found)])
    assert found == designer.rank(found)


def test_no_exchange_improves_what_is_found_for_many_classes():
    designer = CurriculumDesigner(table(10))
    order = designer.best(starts=8)[0]
    swapped = []
    for i, j in itertools.combinations(range(10), 2):
        near = list(order)
        near[i], near[j] = near[j], near[i]
        swapped.append(near)
    assert designer.scores(swapped).max() <= designer.score(order) + 1e-12
    assert designer.score(order) >= designer.scores(designer.design(10)).max()
    assert order == CurriculumDesigner(table(10)).best(starts=8)[0]


def test_the_search_finds_the_exact_best_where_that_is_known(monkeypatch):
    designers = [CurriculumDesigner(table(7, seed)) for seed in range(4)]
    exact = [designer.score(designer.best()[0]) for designer in designers]
    monkeypatch.setattr("trainplan.data.class_order.EXACT", 2)
    found = [designer.score(designer.best()[0]) for designer in designers]
    assert found == pytest.approx(exact)


@settings(max_examples=20)
@given(st.integers(2, 9), st.integers(0, 99))
def test_designs_begin_with_central_classes_and_go_on_from_far_to_near(size, seed):
    designer = CurriculumDesigner(table(size, seed), classes=list("abcdefghi")[:size])
    designs = designer.design(size)
    assert [order[0] for order in designs] == [
        designer.classes[k] for k in np.argsort(designer.shares)
    ]
    for order in designs:
        places = [designer.classes.index(name) for name in order]
        assert (np.diff(designer.rows[places[0], places[1:]]) <= 0).all()
        assert sorted(order) == designer.classes


def test_a_stream_shows_one_class_after_another_and_resumes():
    labels = np.array([5, 6, 7] * 20)
    features = np.eye(3)[labels - 5] + np.random.default_rng(0).random((60, 3))
    order = CurriculumDesigner.of(features, labels).best()[0]

    def sampler():
        place = group_difficulty(labels, order)
        return BatchSampler(Curriculum(place, None, 10, within="sorted", steps=6), ranks=1, rank=0)

    whole = [list(batch) for batch in sampler()]
    assert [set(labels[batch]) for batch in whole] == [{name} for name in order for _ in range(2)]
    assert sorted(itertools.chain(*whole)) == list(range(60))
    again = sampler()
    again.load_state_dict(sampler().state_dict(step=3))
    assert [list(batch) for batch in again] == whole[3:]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30))
def test_agreement_is_the_rank_correlation_of_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    first, second = np.array(pairs).T
    found = order_agreement(first, second, best=0.5, permutations=99)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found.rho)
    else:
        assert found.rho == pytest.approx(stats.spearmanr(first, second).statistic)
    assert 0 < found.p_value <= 1
    assert 0 < found.overlap_p_value <= 1
    assert found.overlap <= round(len(pairs) * 0.5)


def test_chances_are_those_of_a_test():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    first = random.normal(size=60)
    second = first + 4 * random.normal(size=60)
    found = order_agreement(first, second)
    expected = stats.spearmanr(first, second, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected, abs=0.01)
    hyper = stats.hypergeom.sf(found.overlap - 1, 60, 15, 15)
    assert found.overlap_p_value == pytest.approx(hyper, abs=0.02)
    opposite = order_agreement(first, -first)
    assert opposite.rho == pytest.approx(-1)
    assert opposite.p_value == pytest.approx(1)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_retention_rises_with_accuracy_and_falls_with_forgetting(average, learned, kept):
    found = retention(average, learned, kept)
    assert found >= 0
    if learned >= kept:
        assert found <= 2
    assert retention(average, learned, 0.0) <= found <= retention(average, 0.0, kept)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: CurriculumDesigner([[0, 1]]), "distances"),
        (lambda: CurriculumDesigner([[0]]), "distances"),
        (lambda: CurriculumDesigner([[0, -1], [1, 0]]), "distances[0, 1]"),
        (lambda: CurriculumDesigner([[0, 0], [1, 0]]), "distances[0]"),
        (lambda: CurriculumDesigner([[0, 1], [1, 0]], ["a", "a"]), "classes"),
        (lambda: CurriculumDesigner([[0, 1], [1, 0]]).score([0, 0]), "orders[0]"),
        (lambda: CurriculumDesigner([[0, 1], [1, 0]]).design(3), "k"),
        (lambda: order_agreement([1, 2], [1, 2]), "first"),
        (lambda: order_agreement([1, 2, 3], [1, 2, 3], best=0.0), "best"),
        (lambda: retention(1.2, 0.5, 0.5), "average"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
