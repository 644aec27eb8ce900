"""Benign oscillation: the two-layer network, its strong feature alone, and its threshold."""

import numpy as np

from trainplan.lab.toys import oscillation as o
from trainplan.optim import oscillation_threshold, strong_feature_multiplier


def network(inputs):
    x, y, weights = (np.asarray(inputs[name], dtype=float) for name in ("X", "y", "W0"))
    before, final = o.sgd(x, y, weights, inputs["order"], inputs["lr"])
    return {"f_before_step": before, "W_final": final, "f_final_all": o.outputs(final, x)}


def stability(inputs):
    m, strength = inputs["m"], inputs["u_norm"]
    rows = [
        {
            "eta": eta,
            "multiplier": strong_feature_multiplier(eta, m, strength),
            "stable": eta < oscillation_threshold(m, strength),
        }
        for eta in inputs["eta"]
    ]
    return {"rows": rows}


def scalar(inputs):
    values = o.strong_recursion(inputs["F0"], inputs["c"], inputs["T"])
    return {"F": values, "sum_residual": float((values[:-1] - 1).sum())}


ADAPTERS = {
    "two-layer net, f(x)=F(+1)-F(-1)": network,
    "linear stability of the fixed point y*f=1": stability,
    "scalar strong-feature recursion": scalar,
}
