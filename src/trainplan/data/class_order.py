"""In which order should classes arrive? Score, design and compare orders before training.

Singh et al., 2023, "Learning to Learn: How to Continuously Teach Humans and Machines", ICCV 2023,
arXiv 2211.15470: begin with a class that is about equally far from all others, let the next class
be far from the present one, and the late ones near to the early ones. The search for the order
with the highest score, and the measures of agreement, are our design.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainplan.data.distances import Metric, class_distances, rows_by_group
from trainplan.data.hashing import priorities
from trainplan.errors import PlanError
from trainplan.schedules.values import count

Floats = npt.NDArray[np.float64]
Orders = npt.NDArray[np.int64]

EXACT: Final = 8
"""Up to so many classes all orders are scored: 40320."""
_STREAM = 31


def order_scores(rows: Floats, shares: Floats, orders: Orders) -> Floats:
    """(m,) score of each order, from normalised distances; higher is better.

    1 - v[c0] + sum_i (1 - P[c_i, c_(K-1-i)] + P[c_i, c_(i+1)]) for i from 0 until the two ends
    meet. With an even number of classes the last pair is one class, and adds exactly 1.

    Args:
        rows: (K, K) distances P, of which each row has the sum 1.
        shares: (K,) variance v of each row, in shares.
        orders: (m, K) classes 0 to K - 1 in their order.
    """
    number = orders.shape[1]
    front = np.arange(-(-(number - 1) // 2))
    now, back, following = orders[:, front], orders[:, number - 1 - front], orders[:, front + 1]
    found: Floats = (
        1 - shares[orders[:, 0]] + (1 - rows[now, back] + rows[now, following]).sum(axis=1)
    )
    return found


class CurriculumDesigner:
    """Scores and designs orders of classes.

    Each row of distances is divided by its sum, so that how hard a class is does not show.

    Args:
        distances: (K, K) between classes, not below 0; the diagonal is taken to be 0.
        classes: Their names, which orders are made of; 0 to K - 1 by default.

    Attributes:
        rows: (K, K) distances, of which each row has the sum 1.
        shares: (K,) population variance of each row, zero included, divided by their sum; low for
            a class that is about equally far from all others.

    Raises:
        PlanError: If the table is not square, of two classes at least, or not of distances.

    >>> designer = CurriculumDesigner([[0, 2, 5], [2, 0, 4], [5, 4, 0]])
    >>> round(designer.score([0, 2, 1]), 4), designer.best(), designer.design(1)
    (2.033, [[0, 2, 1]], [[2, 0, 1]])
    """

    def __init__(self, distances: Any, classes: Sequence[Any] | None = None) -> None:
        table = np.array(distances, dtype=np.float64)
        if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
            remedy = "Give a row and a column for each of at least two classes"
            raise PlanError("not a table", place="distances", value=table.shape, remedy=remedy)
        np.fill_diagonal(table, 0.0)
        bad = np.argwhere(~(np.isfinite(table) & (table >= 0)))
        if bad.size:
            place = f"distances{bad[0].tolist()}"
            raise PlanError("not a distance", place=place, value=float(table[tuple(bad[0])]))
        sums = table.sum(axis=1, keepdims=True)
        if not sums.all():
            k = int(np.flatnonzero(sums == 0)[0])
            raise PlanError("all are zero", place=f"distances[{k}]", value=table[k].tolist())
        self.rows: Floats = table / sums
        variances = self.rows.var(axis=1)
        self.shares: Floats = variances / variances.sum()
        self.classes = list(range(len(table)) if classes is None else classes)
        self._places = {name: k for k, name in enumerate(self.classes)}
        if len(self._places) != len(table) or len(self.classes) != len(table):
            remedy = f"Name {len(table)} different classes"
            raise PlanError("do not fit", place="classes", value=self.classes, remedy=remedy)

    @classmethod
    def of(cls, features: Any, labels: Any, metric: Metric = "cosine") -> CurriculumDesigner:
        """From features (n, d) of a fixed model and the examples' classes (n,).

        >>> designer = CurriculumDesigner.of([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [7, 8, 9])
        >>> designer.classes
        [7, 8, 9]
        """
        names = list(rows_by_group(labels, len(features)))
        return cls(class_distances(features, labels, metric), names)

    def score(self, order: Sequence[Any]) -> float:
        """The score of one order; higher is better."""
        return float(self.scores([order])[0])

    def scores(self, orders: Iterable[Sequence[Any]]) -> Floats:
        """(m,) scores of orders of all classes.

        Raises:
            PlanError: If one of them is no order of the classes.
        """
        return order_scores(self.rows, self.shares, self._read(orders))

    def rank(self, orders: Iterable[Sequence[Any]]) -> list[list[Any]]:
        """Orders by their score, best first."""
        read = self._read(orders)
        return self._named(
            read[np.argsort(-order_scores(self.rows, self.shares, read), kind="stable")]
        )

    def design(self, k: int = 2) -> list[list[Any]]:
        """The authors' orders: one for each of the k most central classes.

        After the first class come the others by their distance to it, farthest first. Distances to
        later classes do not count, so that `best` may find a higher score.

        Args:
            k: From 1 to the number of classes.
        """
        first = np.argsort(self.shares, kind="stable")[: count(k, "k", most=len(self.classes))]
        return self._named(self._from(first))

    def _from(self, first: Orders) -> Orders:
        """(k, K) orders that begin with some classes, others farthest first."""
        near = np.argsort(self.rows[first], axis=1, kind="stable")
        others = near[near != first[:, None]].reshape(len(first), -1)
        return np.concatenate([first[:, None], others[:, ::-1]], axis=1)

    def best(self, number: int = 1, *, starts: int = 64, seed: int = 0) -> list[list[Any]]:
        """Orders with the highest scores, best first.

        Exact for up to eight classes. Beyond, from the designs and from random orders two classes
        change places as long as that raises the score.

        Args:
            number: How many orders, at most; beyond eight classes at most as many as were found.
            starts: Random orders to begin with, beyond eight classes.
            seed: Of these.
        """
        wanted, size = count(number, "number"), len(self.classes)
        if size <= EXACT:
            found = np.array(list(itertools.permutations(range(size))), np.int64)
        else:
            random = [
                np.argsort(priorities(size, seed, _STREAM, epoch), kind="stable")
                for epoch in range(count(starts, "starts", least=0))
            ]
            begin = [*self._from(np.arange(size)), *random]
            found = np.unique([self._climb(order) for order in begin], axis=0)
        scores = order_scores(self.rows, self.shares, found)
        return self._named(found[np.argsort(-scores, kind="stable")[:wanted]])

    def _climb(self, order: Orders) -> Orders:
        """The order that the best exchange of two classes, again and again, leads to."""
        i, j = np.triu_indices(len(order), k=1)
        pairs = np.arange(len(i))
        score = order_scores(self.rows, self.shares, order[None])[0]
        while True:
            near = np.tile(order, (len(i), 1))
            near[pairs, i], near[pairs, j] = order[j], order[i]
            scores = order_scores(self.rows, self.shares, near)
            k = int(scores.argmax())
            if scores[k] <= score + 1e-12:
                return order
            order, score = near[k], scores[k]

    def _read(self, orders: Iterable[Sequence[Any]]) -> Orders:
        given = [list(order) for order in orders]
        for i, order in enumerate(given):
            if len(order) != len(self.classes) or set(order) != set(self.classes):
                remedy = f"Name each of {self.classes} once"
                raise PlanError(
                    "not an order of the classes", place=f"orders[{i}]", value=order, remedy=remedy
                )
        read = [[self._places[name] for name in order] for order in given]
        return np.array(read, np.int64).reshape(-1, len(self.classes))

    def _named(self, orders: Orders) -> list[list[Any]]:
        return [[self.classes[k] for k in order] for order in orders.tolist()]


@dataclass(frozen=True)
class OrderAgreement:
    """How far two ratings of the same orders agree.

    Attributes:
        rho: Spearman's rank correlation; NaN if a rating is constant.
        p_value: Chance of so high a correlation, or a higher one, between unrelated ratings.
        overlap: How many orders are among the best of both.
        expected: The overlap of unrelated ratings.
        overlap_p_value: Chance of so large an overlap, or a larger one.
    """

    rho: float
    p_value: float
    overlap: int
    expected: float
    overlap_p_value: float


def order_agreement(
    first: Any, second: Any, best: float = 0.25, permutations: int = 9999, seed: int = 0
) -> OrderAgreement:
    """Compare two ratings of orders, with one-sided permutation tests.

    Do not choose the best orders by the same measurements that are then reported for them.

    Args:
        first: (m,) such as scores of `CurriculumDesigner`.
        second: (m,) such as measured outcomes.
        best: Share of the orders that counts as the best, above 0 and at most 1.
        permutations: Of the tests.
        seed: Of these.

    Raises:
        PlanError: If they are not as many numbers each, at least three.

    >>> found = order_agreement([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 8, 7])
    >>> round(found.rho, 3), found.p_value < 0.01, found.overlap, found.expected
    (0.976, True, 2, 0.5)
    """
    ratings = np.array([first, second], dtype=np.float64)
    if ratings.ndim != 2 or ratings.shape[1] < 3 or not np.isfinite(ratings).all():
        remedy = "Give two ratings of the same three or more orders"
        raise PlanError("cannot be compared", place="first", value=ratings.shape, remedy=remedy)
    size = ratings.shape[1]
    chosen = round(size * best)
    if not 1 <= chosen <= size:
        raise PlanError("no such share of the orders", place="best", value=best)
    centred = np.stack([mean_ranks(row) for row in ratings]) - (size - 1) / 2
    norm = np.sqrt((centred**2).sum(axis=1).prod())
    top = np.argsort(np.argsort(-ratings, axis=1, kind="stable"), axis=1, kind="stable") < chosen
    random = np.random.default_rng(seed)
    number = count(permutations, "permutations")
    shuffled = random.permuted(np.tile(np.arange(size), (number, 1)), axis=1)
    product, overlap = float(centred[0] @ centred[1]), int((top[0] & top[1]).sum())
    products, overlaps = centred[0][shuffled] @ centred[1], (top[0][shuffled] & top[1]).sum(axis=1)
    return OrderAgreement(
        rho=float(product / norm) if norm else float("nan"),
        p_value=float((1 + (products >= product - 1e-9).sum()) / (1 + number)),
        overlap=overlap,
        expected=chosen**2 / size,
        overlap_p_value=float((1 + (overlaps >= overlap).sum()) / (1 + number)),
    )


def mean_ranks(values: Any) -> Floats:
    """(n,) rank of each number from 0 on, equal ones sharing the mean of theirs.

    >>> mean_ranks([3.0, 1.0, 3.0]).tolist()
    [1.5, 0.0, 1.5]
    """
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts + 1) / 2)[codes]
    return ranks
