"""Clusters get labels and prototypes, and clusters that span domains count more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    cluster_labels,
    diversity_loss,
    diversity_weights,
    domain_diversity,
    identity_batches,
    positives,
)

MARKS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 2)), min_size=1, max_size=40)


@settings(max_examples=40)
@given(MARKS, st.floats(0, 5))
def test_weights_average_to_one_over_what_is_clustered(pairs, gamma):
    labels, domains = np.array(pairs).T
    weights = diversity_weights(labels, domains, gamma)
    assert (weights[labels < 0] == 0).all()
    if (labels >= 0).any():
        assert weights[labels >= 0].mean() == pytest.approx(1)
        assert (weights[labels >= 0] > 0).all()
    assert np.allclose(diversity_weights(labels, domains, 0.0), labels >= 0)


@settings(max_examples=40)
@given(MARKS)
def test_diversity_is_the_entropy_of_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    labels, domains = np.array(pairs).T
    number = len(set(domains))
    for cluster, spread in zip(*domain_diversity(labels, domains), strict=True):
        counts = np.bincount(domains[labels == cluster])
        expected = stats.entropy(counts) / np.log(number) if number > 1 else 0.0
        assert spread == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["DBSCAN", "KMeans", "HDBSCAN", None])
def test_clusterers_of_scikit_learn_find_groups(kind):
    cluster = pytest.importorskip("sklearn.cluster")
    options = {
        "DBSCAN": {"eps": 1.0},
        "KMeans": {"n_clusters": 3, "random_state": 0},
        "HDBSCAN": {"copy": True},
    }
    random = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], [30, 20, 10])
    features = np.eye(3)[true] * 5 + random.normal(size=(60, 3)) / 20
    given = None if kind is None else getattr(cluster, kind)(**options[kind])
    labels, prototypes = cluster_labels(features, given)
    assert (labels == true).all()  # the largest first
    assert np.allclose(prototypes, np.eye(3), atol=0.02)
    assert np.allclose(np.linalg.norm(prototypes, axis=1), 1)


def test_outliers_have_neither_label_nor_prototype():
    class Nothing:
        def fit_predict(self, x):
            return np.full(len(x), -1)

    labels, prototypes = cluster_labels(np.ones((3, 2)), Nothing())
    assert labels.tolist() == [-1, -1, -1]
    assert prototypes.shape == (0, 2)
    assert diversity_weights(labels, [0, 0, 1]).tolist() == [0, 0, 0]
    assert identity_batches(labels, [0, 0, 1], 1, 1).shape == (0, 1)


def test_the_loss_counts_clustered_examples_alone():
    torch = pytest.importorskip("torch")
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.tensor([0, 2, -1, 1, 2]), torch.tensor([1.5, 0.5, 0.0, 1.0, 1.0])
    kept = labels >= 0
    each = torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="none")
    assert diversity_loss(logits, labels, weights).item() == pytest.approx(
        (weights[kept] * each).mean().item()
    )
    nothing = diversity_loss(logits, torch.full((5,), -1), torch.zeros(5))
    nothing.backward()
    assert nothing.item() == 0
    assert (logits.grad == 0).all()


@settings(max_examples=40)
@given(MARKS)
def test_positives_come_from_other_domains_if_there_are_any(pairs):
    labels, domains = np.array(pairs).T
    found = positives(labels, domains)
    for i, row in enumerate(found):
        same = (labels == labels[i]) & (labels >= 0)
        same[i] = False
        across = same & (domains != domains[i])
        assert (row == (across if across.any() else same)).all()


@settings(max_examples=40)
@given(MARKS, st.integers(1, 3), st.integers(1, 5), st.integers(0, 3))
def test_batches_hold_clusters_over_as_many_domains_as_there_are(pairs, size, images, epoch):
    labels, domains = np.array(pairs).T
    batches = identity_batches(labels, domains, size, images, seed=1, epoch=epoch)
    clusters = np.unique(labels[labels >= 0])
    assert batches.shape == (len(clusters) // size, size * images)
    shown = []
    for group in batches.reshape(-1, images):
        (cluster,) = set(labels[group])
        shown.append(cluster)
        members = np.flatnonzero(labels == cluster)
        assert len(set(group)) == min(images, len(members))
        assert len(set(domains[group])) == min(images, len(set(domains[members])))
    assert len(set(shown)) == len(shown)
    assert -1 not in shown


def test_epochs_have_batches_of_their_own():
    labels, domains = np.arange(60) % 6, np.arange(60) // 20
    first = identity_batches(labels, domains, 2, 4)
    assert (first == identity_batches(labels, domains, 2, 4)).all()
    assert (first != identity_batches(labels, domains, 2, 4, epoch=1)).any()


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: diversity_weights([0.5], [0]), "labels"),
        (lambda: diversity_weights([0, 1], [0]), "domains"),
        (lambda: diversity_weights([0], [0], -1.0), "gamma"),
        (lambda: identity_batches([0], [0], 0, 1), "identities"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
