"""Refinement: weights to rates, the smoothing of norms, and both together."""

import numpy as np

from trainplan.schedules import refinement as r

OPTIMIZERS = {"l2_sgd": "sgd", "l1_adam": "adam"}


def _norms(inputs):
    return np.asarray(inputs["G"], dtype=np.float64)


def rates(inputs):
    weights = r.refinement_weights(_norms(inputs), OPTIMIZERS[inputs["kind"]])
    eta = r.refined_rates(weights)
    return {
        "eta": eta,
        "authors_raw": eta * weights.sum() / weights[-1],
        "normalised": r.normalised_schedule(weights),
    }


def smoothing(inputs):
    norms, tau = _norms(inputs), inputs["tau"]
    return {"window": r.median_width(norms.size, tau), "smoothed": r.smooth_norms(norms, tau)}


def pipeline(inputs):
    smooth = r.smooth_norms(_norms(inputs), inputs["tau"])
    weights = r.refinement_weights(smooth, OPTIMIZERS[inputs["kind"]])
    return {"normalised": r.normalised_schedule(weights)}


ADAPTERS = {
    "refined schedule from a (smoothed) gradient-norm sequence": rates,
    "authors' smoothing: window": smoothing,
    "full pipeline: smooth with the authors' median filter": pipeline,
}
