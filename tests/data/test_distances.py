"""Distances between sets are those of their formulas, and of others' code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainplan import PlanError
from trainplan.data import class_distances, group_difficulty, mmd2, transport
from trainplan.data.distances import median_distance, squared_distances


def sets(least=2):
    values = st.floats(-10, 10).map(lambda x: round(x, 3))
    return st.integers(least, 8).flatmap(lambda n: arrays(float, (n, 2), elements=values))


@settings(max_examples=25)
@given(sets(), sets(), st.floats(0.1, 10))
def test_discrepancies_agree_with_kernels_of_scikit_learn(x, y, sigma):
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")

    def mean(a, b):
        return pairwise.rbf_kernel(a, b, gamma=0.5 / sigma**2).mean()

    assert mmd2(x, y, sigma=sigma) == pytest.approx(
        mean(x, x) + mean(y, y) - 2 * mean(x, y), abs=1e-9
    )
    linear = pairwise.linear_kernel(x).mean() + pairwise.linear_kernel(y).mean()
    assert mmd2(x, y, "linear") == pytest.approx(
        linear - 2 * pairwise.linear_kernel(x, y).mean(), abs=1e-9
    )


@settings(max_examples=25)
@given(sets(), sets(), st.floats(-1e5, 1e5))
def test_distances_are_exact_far_from_the_origin(x, y, far):
    distance = pytest.importorskip("scipy.spatial.distance")
    x, y = x + far, y + far
    assert np.allclose(squared_distances(x, y), distance.cdist(x, y) ** 2, atol=1e-3, rtol=1e-6)
    assert (squared_distances(x, x)[np.diag_indices(len(x))] == 0).all()
    assert median_distance(x) == pytest.approx(np.median(distance.pdist(x)), abs=1e-4)


@settings(max_examples=25)
@given(sets(), sets())
def test_discrepancies_are_symmetric_and_vanish_for_equal_sets(x, y):
    assert mmd2(x, y, sigma=1.0) == pytest.approx(mmd2(y, x, sigma=1.0), abs=1e-12)
    assert mmd2(x, np.concatenate([x, x]), sigma=1.0) == pytest.approx(0, abs=1e-12)


@settings(max_examples=10)
@given(sets(4), st.integers(0, 99))
def test_transport_with_little_blur_is_an_optimal_assignment(x, seed):
    optimize = pytest.importorskip("scipy.optimize")
    y = np.random.default_rng(seed).normal(size=x.shape)
    cost = squared_distances(x, y) / 2
    best = cost[optimize.linear_sum_assignment(cost)].mean()
    assert transport(x, y, blur=0.1, iterations=400) == pytest.approx(best, rel=0.05, abs=0.05)
    assert transport(x, x[::-1]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "mmd", "transport", mmd2])
def test_classes_nearer_to_each_other_have_smaller_distances(metric):
    random = np.random.default_rng(0)
    centres = np.array([[4.0, 0.0], [4.0, 1.0], [0.0, 4.0]])
    labels = np.arange(60) % 3
    found = class_distances(centres[labels] + random.normal(size=(60, 2)) / 4, labels, metric)
    assert (found == found.T).all()
    assert (np.diag(found) == 0).all()
    assert found[0, 1] < min(found[1, 2], found[0, 2])


def test_means_are_exact_and_tensors_are_read():
    torch = pytest.importorskip("torch")
    features = torch.randn(7, 3, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    points = features.detach().numpy().astype(float)
    expected = np.linalg.norm(points[:5].mean(0) - points[5:].mean(0))
    assert class_distances(features, labels, "euclidean")[0, 1] == pytest.approx(expected)


def test_groups_of_a_place_are_equally_hard():
    assert group_difficulty(np.array([3, 1, 2, 1]), [1, (2, 3)]).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: mmd2([[1.0]], [[1.0, 2.0]]), "y"),
        (lambda: mmd2([[1.0]], [[1.0]]), "sigma"),
        (lambda: mmd2([[1.0]], [[2.0]], sigma=-1.0), "sigma"),
        (lambda: mmd2([[1.0]], [[2.0]], "cubic"), "kernel"),
        (lambda: mmd2([1.0], [[2.0]]), "x"),
        (lambda: mmd2([[1.0], [np.nan]], [[2.0]]), "x[1]"),
        (lambda: median_distance([[1.0]]), "features"),
        (lambda: transport([[1.0]], [[2.0]], blur=0), "blur"),
        (lambda: class_distances([[1.0], [2.0]], [0, 0]), "labels"),
        (lambda: class_distances([[1.0], [2.0]], [0]), "labels"),
        (lambda: class_distances([[0.0], [2.0]], [0, 1]), "class 0"),
        (lambda: class_distances([[1.0], [2.0]], [0, 1], "city block"), "metric"),
        (lambda: group_difficulty([1, 2], [1]), "order"),
        (lambda: group_difficulty([1, 2], [1, [2, 1]]), "order[1]"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
