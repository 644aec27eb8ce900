"""Estimates of another sample order on small losses, the secant, and the projection."""

import tempfile

import torch
from torch import nn

from trainplan.laws.order import OrderEstimator, OrderRecorder, train_in_order
from trainplan.laws.order.projection import project, reconstruct
from trainplan.laws.order.table import secant


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


class Point(nn.Module):
    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(tensor(theta))


def start(inputs):
    model = Point(inputs["theta0"])
    betas = tuple(inputs["betas"])
    optimizer = torch.optim.Adam(model.parameters(), inputs["lr"], betas, inputs["eps"])
    return model, optimizer


def retrained(inputs, loss, batches):
    """The weights after every step in the new order."""
    points = [inputs["theta0"]]
    model, optimizer = start(inputs)
    optimizer.register_step_post_hook(lambda *_: points.append(model.theta.tolist()))
    train_in_order(model, optimizer, loss, batches, inputs["new_order"])
    return points


def estimates(inputs, loss, batches):
    """Everything that a case of either loss asks for."""
    model, optimizer = start(inputs)
    reference, order = inputs["reference_order"], inputs["new_order"]
    found = {"retrained_trajectory": retrained(inputs, loss, batches)}
    with tempfile.TemporaryDirectory() as folder:
        with OrderRecorder(folder, model, optimizer, order=reference) as recorder:
            train_in_order(model, optimizer, loss, batches, reference)
        arms = {"recursed_first": (1, "recursed"), "recursed_second": (2, "recursed")}
        for name, (terms, moments) in (arms | {"frozen_first": (1, "frozen")}).items():
            estimator = OrderEstimator(
                folder, model, optimizer, loss, batches, terms=terms, moments=moments
            )
            estimate = estimator.estimate(order, trajectory=True)
            found[f"estimate_{name}_order"] = estimate.trajectory.tolist()
        points = [estimator.run.parameters(t).tolist() for t in range(recorder.t + 1)]
    found["reference_trajectory"] = points

    def largest(a, b):
        return float((tensor(found[a]) - tensor(found[b])).abs().max())

    truth = "retrained_trajectory"
    return found | {
        "max_error_first": largest("estimate_recursed_first_order", truth),
        "max_error_second": largest("estimate_recursed_second_order", truth),
        "max_error_frozen": largest("estimate_frozen_first_order", truth),
        "max_distance_between_orders": largest("reference_trajectory", truth),
    }


def quadratic(inputs):
    def loss(model, batch):
        A, c = batch
        away = model.theta - c
        return away @ A @ away / 2

    batches = list(zip(tensor(inputs["A"]), tensor(inputs["c"]), strict=True))
    return estimates(inputs, loss, batches)


def logistic(inputs):
    def loss(model, batch):
        X, y = batch
        penalty = inputs["l2"] / 2 * model.theta.square().sum()
        return nn.functional.softplus(-y * (X @ model.theta)).mean() + penalty

    batches = list(zip(map(tensor, inputs["X"]), map(tensor, inputs["y"]), strict=True))
    return estimates(inputs, loss, batches)


def elementwise_secant(inputs):
    names = ("grad_t", "grad_prev", "theta_t", "theta_prev")
    return {"h": secant(*(tensor(inputs[name]) for name in names))}


def roundtrip(inputs):
    P = tensor(inputs["P"])
    stored = project(P, tensor(inputs["u"]))
    return {"stored": stored, "reconstructed": reconstruct(P, stored)}


ADAPTERS = {
    "L_j(theta)=0.5 (theta-c_j)^T A_j": quadratic,
    "L_j(theta)=mean log(1+exp(-y x.theta))": logistic,
    "h = (grad L_j": elementwise_secant,
    "store y = P u": roundtrip,
}
