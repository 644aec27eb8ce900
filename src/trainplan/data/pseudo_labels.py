"""Labels from clusters, and more weight for clusters that span several domains.

Images of one camera tend to fall into one cluster whoever they show, so a cluster seen by several
cameras is more likely a person. Lee et al., 2023, "Camera-Driven Representation Learning for
Unsupervised Domain Adaptive Person Re-identification", ICCV 2023, arXiv 2308.11901, weigh such
clusters more; the formula is our design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.data.distances import Floats, as_points
from trainplan.data.hashing import priorities
from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

if TYPE_CHECKING:
    from torch import Tensor

Labels = npt.NDArray[np.int64]
OUTLIER = -1
_IDENTITIES, _IMAGES = 21, 22
"""Streams of the seed by which batches are laid out."""


def cluster_labels(features: Any, clusterer: Any = None) -> tuple[Labels, Floats]:
    """Cluster features, and give each cluster a number and a prototype.

    The numbers change at every refresh: rebuild the classifier from the prototypes, and begin its
    optimizer's state anew.

    Args:
        features: (n, d) of the domains that are open, all of one model state.
        clusterer: Anything with scikit-learn's ``fit_predict``, -1 for outliers; by default
            ``DBSCAN(eps=0.6, min_samples=4, metric="cosine")``, which needs ``trainplan[lab]``.
            Take ``KMeans`` where the number of identities is known.

    Returns:
        (n,) labels 0 to k - 1, largest cluster first, -1 for outliers; and (k, d) means of the
        clusters with length 1, the weights of a cosine classifier.

    >>> class Signs:
    ...     def fit_predict(self, x):
    ...         return np.sign(x[:, 0]).astype(int)
    >>> labels, prototypes = cluster_labels([[2.0, 0.0], [-1.0, 0.0], [4.0, 0.0]], Signs())
    >>> labels.tolist(), prototypes.tolist()
    ([0, -1, 0], [[1.0, 0.0]])
    """
    points = as_points(features)
    if clusterer is None:
        cluster = require("sklearn.cluster", extra="lab")
        clusterer = cluster.DBSCAN(eps=0.6, min_samples=4, metric="cosine")
    found = _numbers(clusterer.fit_predict(points), "clusterer", len(points))
    names, codes = np.unique(found[found != OUTLIER], return_inverse=True)
    sizes = np.bincount(codes, minlength=len(names))
    place = np.argsort(np.argsort(-sizes, kind="stable"))
    labels = np.full(len(points), OUTLIER)
    labels[found != OUTLIER] = place[codes]
    sums = np.zeros((len(names), points.shape[1]))
    np.add.at(sums, labels[labels >= 0], points[labels >= 0])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return labels, sums / np.where(lengths > 0, lengths, 1.0)


def domain_diversity(labels: Any, domains: Any) -> tuple[Labels, Floats]:
    """How evenly each cluster is spread over domains.

    H = -sum_c p(c) log p(c) / log K for the shares p(c) of the domains in a cluster, where K is the
    number of domains among all that is given, outliers included; 0 if there is one alone.

    Args:
        labels: (n,) cluster of each example, -1 for outliers.
        domains: (n,) domain of each.

    Returns:
        (k,) clusters in ascending order, and (k,) their H from 0 to 1.

    >>> clusters, spread = domain_diversity([0, 0, 1, -1], ["a", "b", "a", "b"])
    >>> clusters.tolist(), spread.tolist()
    ([0, 1], [1.0, 0.0])
    """
    marks = _numbers(labels, "labels")
    where = _codes(domains, len(marks))
    number = int(where.max(initial=0)) + 1
    clustered = marks != OUTLIER
    clusters, codes = np.unique(marks[clustered], return_inverse=True)
    if number == 1 or not len(clusters):
        return clusters, np.zeros(len(clusters))
    table = np.bincount(codes * number + where[clustered], minlength=len(clusters) * number)
    shares = table.reshape(len(clusters), number) / np.bincount(codes)[:, None]
    terms = shares * np.log(np.where(shares > 0, shares, 1.0))
    return clusters, np.abs(terms.sum(axis=1)) / np.log(number)


def diversity_weights(labels: Any, domains: Any, gamma: float = 1.0) -> Floats:
    """(n,) weight of each example: larger in clusters that span domains, 0 for outliers.

    w = (1 + gamma H) / mean of (1 + gamma H) over all clustered examples, with H of
    `domain_diversity`. Compute it once for a refresh, not for each batch, which would be noise.

    Args:
        labels: (n,) cluster of each example, -1 for outliers.
        domains: (n,) domain of each.
        gamma: How much spread counts, at least 0; 0 gives all clustered examples weight 1.

    >>> diversity_weights([0, 0, 1, 1, -1], ["a", "b", "a", "a", "b"]).round(3).tolist()
    [1.333, 1.333, 0.667, 0.667, 0.0]
    """
    strength = finite(gamma, "gamma")
    if strength < 0:
        remedy = "Give 0 for equal weights"
        raise PlanError("cannot be below zero", place="gamma", value=gamma, remedy=remedy)
    marks = _numbers(labels, "labels")
    clusters, spread = domain_diversity(marks, domains)
    weights, clustered = np.zeros(len(marks)), marks != OUTLIER
    if clustered.any():
        found = 1 + strength * spread[np.searchsorted(clusters, marks[clustered])]
        weights[clustered] = found / found.mean()
    return weights


def diversity_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy: the sum of w CE over a batch, by its number of clustered examples.

    Args:
        logits: (B, k) over clusters.
        labels: (B,) clusters, -1 for outliers.
        weights: (B,) of `diversity_weights`.

    Returns:
        A scalar; 0 if no example of the batch is clustered.
    """
    from torch.nn import functional

    each = functional.cross_entropy(logits, labels, ignore_index=OUTLIER, reduction="none")
    number = (labels != OUTLIER).sum().clamp(min=1)
    return (weights.to(each.dtype) * each).sum() / number


def positives(labels: Any, domains: Any) -> npt.NDArray[np.bool_]:
    """(n, n) which examples are positives of which, for triplet losses.

    Members of the same cluster, of other domains if there are any, else all but the anchor.

    >>> positives([0, 0, 0, 1, -1], ["a", "a", "b", "a", "a"]).astype(int).tolist()
    [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    """
    marks = _numbers(labels, "labels")
    where = _codes(domains, len(marks))
    same = (marks[:, None] == marks) & (marks != OUTLIER)
    np.fill_diagonal(same, False)
    across = same & (where[:, None] != where)
    chosen: npt.NDArray[np.bool_] = np.where(across.any(axis=1, keepdims=True), across, same)
    return chosen


def identity_batches(
    labels: Any, domains: Any, identities: int, images: int, seed: int = 0, epoch: int = 0
) -> Labels:
    """(batches, identities * images) examples: each batch some clusters, and so many of each.

    Every cluster comes once in an epoch, clusters in random order; those that do not fill a batch
    wait for another epoch. A cluster's examples come from as many domains as there are, and repeat
    only if they are too few. Outliers are left out.

    Args:
        labels: (n,) cluster of each example, -1 for outliers.
        domains: (n,) domain of each.
        identities: Clusters in a batch.
        images: Examples of each.
        seed: Of everything random.
        epoch: Another one has other batches.

    >>> batches = identity_batches([0, 0, 0, 1, 1, -1], ["a", "a", "b", "a", "b", "a"], 2, 2)
    >>> batches.shape, 2 in batches, 5 in batches
    ((1, 4), True, False)
    """
    marks = _numbers(labels, "labels")
    where = _codes(domains, len(marks))
    size, each = count(identities, "identities"), count(images, "images")
    members = np.flatnonzero(marks != OUTLIER)
    clusters, codes = np.unique(marks[members], return_inverse=True)
    # Within a cluster: the first of every domain, then the second of every one, each at random.
    coins = priorities(len(marks), seed, _IMAGES, epoch)[members]
    by_domain = np.lexsort((coins, where[members], codes))
    pairs = codes[by_domain] * len(marks) + where[members][by_domain]
    turns = np.empty(len(members), np.int64)
    turns[by_domain] = np.arange(len(members)) - np.searchsorted(pairs, pairs)
    in_turn = members[np.lexsort((coins, turns, codes))]
    sizes = np.bincount(codes, minlength=len(clusters))
    starts = np.cumsum(sizes) - sizes
    chosen = in_turn[starts[:, None] + np.arange(each) % np.maximum(sizes, 1)[:, None]]
    order = np.argsort(priorities(len(clusters), seed, _IDENTITIES, epoch), kind="stable")
    whole = len(clusters) // size
    batches: Labels = chosen[order[: whole * size]].reshape(whole, size * each)
    return batches


def _numbers(values: Any, place: str, n: int | None = None) -> Labels:
    marks = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if marks.ndim != 1 or not np.issubdtype(marks.dtype, np.integer):
        raise PlanError("not a list of whole numbers", place=place, value=marks.shape)
    if n is not None and len(marks) != n:
        raise PlanError(f"{n} examples need as many labels", place=place, value=len(marks))
    return marks.astype(np.int64)


def _codes(domains: Any, n: int) -> Labels:
    """(n,) the number of each example's domain."""
    named = np.asarray(domains.cpu() if hasattr(domains, "cpu") else domains)
    if named.shape != (n,):
        raise PlanError(f"{n} labels need as many", place="domains", value=named.shape)
    return np.unique(named, return_inverse=True)[1].astype(np.int64)
