"""Discrepancies, the order of domains, open stages, and weights by diversity."""

import numpy as np
import torch

from trainplan.data import (
    diversity_loss,
    diversity_weights,
    domain_distances,
    domain_diversity,
    mmd2,
    near_to_far,
    stages_open,
)
from trainplan.data.distances import median_distance


def discrepancy(inputs):
    x, y, kernel, sigma = (inputs[name] for name in ("X", "Y", "kernel", "sigma"))
    if kernel == "gaussian" and sigma is None:
        sigma = median_distance(x + y)
    used = sigma if kernel == "gaussian" else None
    return {"mmd2": mmd2(x, y, kernel, used), "sigma_used": used}


def order(inputs):
    cameras = inputs["cameras"]
    found = domain_distances(
        inputs["source"],
        [row for rows in cameras.values() for row in rows],
        np.repeat(list(cameras), [len(rows) for rows in cameras.values()]),
        kernel=inputs["kernel"],
        sigma="pair" if inputs["sigma"] is None else inputs["sigma"],
        rows=None,
    )
    return {"mmd2": found, "order": near_to_far(found)}


def active(inputs):
    cameras, total, final = (inputs[name] for name in ("n_cameras", "total_epochs", "final_epochs"))
    return {"active": stages_open(cameras, total, final, np.asarray(inputs["epochs"]))}


def weights(inputs):
    labels, cameras = inputs["pseudo_labels"], inputs["cameras"]
    clusters, spread = domain_diversity(labels, cameras)
    return {
        "normalised_entropy": dict(zip(map(str, clusters), spread.tolist(), strict=True)),
        "weights": diversity_weights(labels, cameras, inputs["gamma"]),
    }


def loss(inputs):
    logits, labels, weights = (torch.tensor(inputs[n]) for n in ("logits", "labels", "weights"))
    found = diversity_loss(logits.double(), labels, weights.double())
    return {"loss": found.item()}


ADAPTERS = {
    "squared maximum mean discrepancy": discrepancy,
    "camera order": order,
    "number of active camera subsets": active,
    "camera-diversity weights": weights,
    "camera-diversity weighted identity loss": loss,
}
