"""CoSO's subspaces, sketches and steps, all read off the optimizer's own state."""

import torch

from trainplan.optim.coso import CoSOAdamW
from trainplan.optim.coso_settings import quarter_cosine
from trainplan.optim.historical_subspace import kept_directions

NAMES = {
    "proj_rank_r1": "rank",
    "sketch_rank_r2": "sketch_rank",
    "db_decay": "decay",
    "threshold": "threshold",
    "update_proj_gap": "update_proj_gap",
    "lr": "lr",
    "betas": "betas",
    "eps": "eps",
    "weight_decay": "weight_decay",
}


def made(inputs, weight, **options):
    """The optimizer of one weight with all settings that the inputs name."""
    given = {NAMES[key]: value for key, value in inputs.items() if key in NAMES}
    return CoSOAdamW([weight], **{**given, **options})


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def steps(optimizer, weight, grads):
    """The state after a step with each gradient."""
    for grad in grads:
        weight.grad = tensor(grad)
        optimizer.step()
        yield optimizer.state[weight]


def sketches(inputs):
    weight = torch.nn.Parameter(torch.zeros_like(tensor(inputs["gradients"][0])))
    found = {"P_Pt": [], "S_St": [], "sketch_sigma": []}
    for state in steps(made(inputs, weight, lr=0.0), weight, inputs["gradients"]):
        projection, sketch = state["projection"], state["sketch"] * state["sketch_values"]
        found["P_Pt"].append(projection @ projection.T)
        found["S_St"].append(sketch @ sketch.T)
        found["sketch_sigma"].append(state["sketch_values"])
    return found


def history(inputs):
    weight = torch.nn.Parameter(torch.zeros_like(tensor(inputs["task1_gradients"][0])))
    optimizer = made(inputs, weight, lr=0.0)
    *_, state = steps(optimizer, weight, inputs["task1_gradients"])
    first = state["sketch_values"]
    optimizer.end_task()
    past = optimizer.historical(weight)
    basis = past.basis if past.dimension else torch.zeros(len(weight), 0, dtype=torch.float64)
    back = []
    grads = inputs["task2_gradients"]
    for grad, state in zip(grads, steps(optimizer, weight, grads), strict=True):
        projection = state["projection"]
        back.append(projection @ projection.T @ past.project(tensor(grad)))
    second = state["sketch_values"]
    optimizer.end_task()
    both = optimizer.historical(weight)
    grown = both.basis if both.dimension else basis
    return {
        "task1_sigma": first,
        "k1": past.dimension,
        "M1_M1t": basis @ basis.T,
        "task2_back_projected": back,
        "task2_sigma": second,
        "columns_of_M2": both.dimension,
        "M2_M2t": grown @ grown.T,
        "max_abs_M1t_times_task2_update": max(
            [(basis.T @ update).abs().max().item() for update in back if basis.numel()] or [0.0]
        ),
    }


def kept(inputs):
    values = tensor(inputs["sigma"])
    return {"k": {str(share): kept_directions(values, share) for share in inputs["thresholds"]}}


def adam(inputs, foreach=None):
    weight = torch.nn.Parameter(tensor(inputs["weight0"]))
    optimizer = made(inputs, weight, foreach=foreach)
    matrices = []
    for state in steps(optimizer, weight, inputs["grads"]):
        matrices.append(weight.tolist())
        projection = state["projection"]
    plain = torch.nn.Parameter(tensor(inputs["plain_param0"]))
    other = made(inputs, plain, rank=None, lr=inputs["plain_lr"], foreach=foreach)
    vectors = [plain.tolist() for _ in steps(other, plain, inputs["plain_grads"])]
    return {
        "weight_after_each_step": matrices,
        "plain_after_each_step": vectors,
        "P_Pt": projection @ projection.T,
    }


def rates(inputs):
    epochs = inputs["epochs_K"]
    # The code begins its formula an epoch late.
    lr = quarter_cosine(inputs["base_lr"], epochs, delay=1).resolve(epochs)
    return {"lr_per_epoch": [lr(epoch) for epoch in range(epochs)]}


ADAPTERS = {
    "per refresh: top-r1": sketches,
    "task 1: sketch": history,
    "k = number of indices": kept,
    "R = P^T G'": adam,
    "lr at epoch e": rates,
}
