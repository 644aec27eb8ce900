"""APOLLO's updates with given projections, its AdamW, and the chain of seeds."""

import torch

from trainplan.optim import apollo
from trainplan.optim.projection import gaussian_projection, next_seed


def given(inputs, monkey):
    """Let the optimizer use the given projections instead of drawing them."""
    matrices = [torch.tensor(matrix) for matrix in inputs["projection_matrices"]]
    starts = inputs["projection_used_at_steps"]
    left = inputs["projection_layout"].startswith("left")

    def projection_for(seed, rows, columns, rank, device):
        matrix = matrices[sum(start <= monkey["step"] for start in starts) - 1]
        return matrix if left else matrix.T.contiguous()

    return projection_for, left


def train(inputs, after=lambda state: None, **options):
    weight = torch.nn.Parameter(torch.tensor(inputs["weight0"]))
    settings = {key: inputs[key] for key in ("lr", "eps", "weight_decay", "correct_bias")}
    optimizer = apollo.APOLLO(
        [weight], betas=tuple(inputs["betas"]), mode="authors", **settings, **options
    )
    found = []
    for step, grad in enumerate(inputs["grads"]):
        weight.grad = torch.tensor(grad)
        after(step)
        optimizer.step()
        state = optimizer.state[weight]
        found.append((weight.tolist(), float(state.get("norm", 0.0))))
    return [w for w, _ in found], [n for _, n in found], state


def steps(inputs, foreach=None):
    now = {"step": 0}
    projection_for, left = given(inputs, now)
    names = ("rank", "scale", "scale_type", "update_proj_gap", "scale_front")
    original = apollo.projection_for
    apollo.projection_for = projection_for
    try:
        weights, norms, state = train(
            inputs,
            after=lambda step: now.update(step=step),
            norm_growth=inputs["limiter_gamma"] if inputs["norm_growth_limiter"] else None,
            foreach=foreach,
            **{name: inputs[name] for name in names},
        )
    finally:
        apollo.projection_for = original
    moments = [state[name].T if left else state[name] for name in ("exp_avg", "exp_avg_sq")]
    return {
        "weight_after_each_step": weights,
        "exp_avg_final": moments[0],
        "exp_avg_sq_final": moments[1],
        "limiter_state_norm_after_each_step": norms,
    }


def adamw(inputs, foreach=None):
    weights, _, state = train(inputs, rank=None, foreach=foreach)
    return {
        "weight_after_each_step": weights,
        "exp_avg_final": state["exp_avg"],
        "exp_avg_sq_final": state["exp_avg_sq"],
    }


def chain(inputs):
    chains = {}
    for first in inputs["first_seeds"]:
        seeds = [first]
        for _ in range(inputs["refreshes"]):
            seeds.append(next_seed(seeds[-1]))
        chains[str(first)] = [str(seed) for seed in seeds]
    return {"chains": chains}


def matrix(inputs):
    return {"P": gaussian_projection(inputs["seed"], tuple(inputs["shape"]), inputs["rank"])}


ADAPTERS = {
    "APOLLO optimizer step(s)": steps,
    "AdamW for parameters outside the low-rank group": adamw,
    "seed used at successive projection refreshes": chain,
    "P = torch.randn(shape": matrix,
}
