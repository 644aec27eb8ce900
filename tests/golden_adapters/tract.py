"""TrAct's layers, and the minimizer that they follow."""

import torch
from torch import nn

from trainplan.optim.tract import precondition, tract_layer


def gradients(layer, inputs):
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    output = layer(x)
    output.backward(torch.tensor(inputs["grad_output"], dtype=torch.float64))
    bias = None if layer.bias is None else layer.bias.grad
    return output.detach(), layer.weight.grad, bias, x.grad


def both(layer, inputs):
    layer.weight.data = torch.tensor(inputs["weight"], dtype=torch.float64)
    if layer.bias is not None:
        layer.bias.data = torch.tensor(inputs["bias"], dtype=torch.float64)
    vanilla = gradients(layer, inputs)[1]
    layer.zero_grad()
    found = gradients(tract_layer(layer, inputs["lambda_"]), inputs)
    names = ("output", "grad_weight", "grad_bias", "grad_input")
    return {**dict(zip(names, found, strict=True)), "vanilla_grad_weight": vanilla}


def linear(inputs):
    m, n = len(inputs["weight"]), len(inputs["weight"][0])
    return both(nn.Linear(n, m, bias=inputs.get("bias") is not None), inputs)


def conv(inputs):
    m, n, *kernel = torch.tensor(inputs["weight"]).shape
    names = ("stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: inputs[name] for name in names if name in inputs}
    for name, value in options.items():
        options[name] = tuple(value) if isinstance(value, list) else value
    bias = inputs.get("bias") is not None
    return both(nn.Conv2d(n * options.get("groups", 1), m, kernel, bias=bias, **options), inputs)


def minimizer(inputs):
    x = torch.tensor(inputs["X"], dtype=torch.float64)
    g = torch.tensor(inputs["Gz"], dtype=torch.float64)
    b, eta, strength = x.shape[1], inputs["eta"], inputs["lambda_"]

    def objective(step):
        return ((-eta * b * g - step @ x) ** 2).sum() + strength * b * (step**2).sum()

    step = -eta * precondition(g @ x.T, x.T, strength)
    return {
        "dW": step,
        "objective_at_dW": objective(step).item(),
        "objective_at_vanilla_sgd": objective(-eta * g @ x.T).item(),
    }


ADAPTERS = {
    "first-layer linear": linear,
    "first-layer conv2d": conv,
    "dW* minimises": minimizer,
}
