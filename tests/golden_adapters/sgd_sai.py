"""SGD-SaI's updates as in the published code, and the two formulas of its scale."""

import torch

from trainplan.optim import SGDSaI, gradient_snr


def steps(inputs, foreach=None):
    params = [torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for p in inputs["params0"]]
    settings = {key: inputs[key] for key in ("lr", "momentum", "eps", "weight_decay")}
    optimizer = SGDSaI(params, mode="authors", foreach=foreach, **settings)
    found = []
    for grads in inputs["grads"]:
        for p, grad in zip(params, grads, strict=True):
            p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        found.append([p.tolist() for p in params])
    return {
        "gsnr_fixed_at_first_step": [optimizer.state[p]["scale"] for p in params],
        "params_after_each_step": found,
    }


def variants(inputs):
    grads = [torch.tensor(g, dtype=torch.float64) for g in inputs["first_gradients"]]
    paper = [gradient_snr(g, inputs["eps"], unbiased=False) for g in grads]
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    optimizer = SGDSaI(params, eps=inputs["eps"], normalize=True, mode="authors")
    optimizer.step()
    return {
        "code_scale": [gradient_snr(g, inputs["eps"]) for g in grads],
        "paper_scale_unnormalised": paper,
        "paper_scale_normalised": [optimizer.state[p]["scale"] for p in params],
        "sqrt_numel": [g.numel() ** 0.5 for g in grads],
    }


ADAPTERS = {"SGD-SaI step(s)": steps, "g-SNR per block": variants}
