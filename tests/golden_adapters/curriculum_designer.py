"""Scores and designs of orders of classes, distances between classes, retention, and agreement."""

import itertools

import numpy as np

from trainplan.continual import retention
from trainplan.data import CurriculumDesigner, class_distances, order_agreement, order_scores


def score(inputs):
    designer = CurriculumDesigner(inputs["distance"])
    return {
        "row_normalised": designer.rows,
        "variance_share": designer.shares,
        "scores": designer.scores(inputs["orders"]),
    }


def design(inputs):
    return {"orders": CurriculumDesigner(inputs["distance"]).design(inputs["top_k"])}


def tables(inputs):
    rows, shares = (
        np.asarray(inputs[name]) for name in ("row_normalised_distance", "variance_share")
    )
    scores = order_scores(rows, shares, np.asarray(inputs["orders"]))
    measured = inputs["measured_F"]

    def rho(a, b):
        return order_agreement(a, b, permutations=1).rho

    return {
        "scores": scores,
        "spearman_score_vs_F": {name: rho(scores, found) for name, found in measured.items()},
        "spearman_between_strategies": {
            f"{a}-{b}": rho(measured[a], measured[b])
            for a, b in itertools.combinations(measured, 2)
        },
        "mean_F": {name: float(np.mean(found)) for name, found in measured.items()},
        "std_F": {name: float(np.std(found)) for name, found in measured.items()},
    }


ADAPTERS = {
    "curriculum-designer score": score,
    "greedy generation": design,
    "retention score F": lambda inputs: {"F": retention(*np.transpose(inputs["rows"]))},
    "cosine distance matrix": lambda inputs: {
        "distance": class_distances(inputs["features"], inputs["labels"])
    },
    "authors' published tables": tables,
}
