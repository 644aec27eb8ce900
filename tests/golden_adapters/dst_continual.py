"""ERK densities, the drop fraction as published (periodic), one re-wiring, and transfer."""

import torch

import trainplan as tp
from trainplan.continual import transfer
from trainplan.optim.drop_fraction import DropFraction
from trainplan.optim.rewiring import Growth, drop, grow
from trainplan.optim.sparse_density import layer_densities

DROPS = {"magnitude": "magnitude", "SET": "set-released", "Taylor_FO": "taylor"}


def densities(inputs):
    shapes = {str(i): shape for i, shape in enumerate(inputs["shapes"])}
    found = layer_densities(shapes, inputs["density"], power=inputs["erk_power_scale"])
    sizes = [torch.Size(shape).numel() for shape in inputs["shapes"]]
    total = sum(d * n for d, n in zip(found.values(), sizes, strict=True))
    return {"layer_density": list(found.values()), "expected_active_total": total}


def fractions(inputs):
    """Published code lets the fraction rise again after its end; ours holds."""
    high, low, length = inputs["initial"], inputs["eta_min"], inputs["T_max"]
    ours = DropFraction(tp.schedules.cosine(high, end=low))
    ours.begin(length)
    back = [length - abs(length - k % (2 * length)) for k in inputs["steps"]]
    return {"rate": [ours(k, []) for k in back]}


def rewiring(inputs, case=""):
    """The rules are in the name of the case, such as prune_SET_grow_gradient."""
    rule = next((DROPS[key] for key in DROPS if f"prune_{key}" in case), "magnitude")
    growth = Growth("momentum" if "grow_momentum" in case else "gradient")
    mask = torch.tensor(inputs["mask"]).bool()
    weight, grad, momentum = (
        torch.tensor(inputs[name]) for name in ("weight", "grad", "momentum_buffer")
    )
    kept = drop(mask, weight, inputs["death_rate"], rule, grad)
    removed = int(mask.sum()) - int(kept.sum())
    signal = momentum if growth.rule == "momentum" else grad
    new = grow(kept, removed, growth, signal=signal)
    return {
        "removed": removed,
        "new_mask": new.float(),
        "new_weight": weight * new,
        "new_momentum_buffer": momentum * new,
    }


def metrics(inputs):
    found = transfer(inputs["A"])
    return {
        "bwt": found.backward,
        "fwt": found.forward,
        "incremental_accuracy": found.incremental,
        "average_bwt": found.average_backward,
        "average_fwt": found.average_forward,
    }


ADAPTERS = {
    "ERK layer densities": densities,
    "prune (death) rate": fractions,
    "one topology update": rewiring,
    "A[i,j] = accuracy": metrics,
}
