"""Norms held, norms inserted, and effective rates."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

import trainplan as tp
from trainplan.optim import NormProjector, normalize_and_project
from trainplan.optim.effective_rate import effective_rate
from trainplan.optim.weight_norms import frobenius, project, project_gain


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def project_matrix(inputs):
    weight, rho = tensor(inputs["W"]), frobenius([tensor(inputs["W_init"])])
    project([weight], rho)
    return {"rho": rho.item(), "projected": weight}


def gains(inputs):
    gain, offset = tensor(inputs["gain"]), tensor(inputs["offset"])
    project_gain(gain, offset)
    joint = (gain.square().sum() + offset.square().sum()).sqrt()
    return {"target_norm": joint.item(), "gain": gain, "offset": offset}


def normalizers(inputs):
    x, found = tensor(inputs["x"]), {}
    for norm in ("layer", "rms"):
        layer = nn.Linear(x.shape[-1], x.shape[-1], bias=False, dtype=torch.float64)
        nn.init.eye_(layer.weight)
        normalize_and_project(nn.Sequential(layer, nn.ReLU()), x, norm=norm, eps=inputs["eps"])
        found[f"{norm}norm"] = layer(x).detach()
    return found


def invariance(inputs):
    x, w, v = (tensor(inputs[name]) for name in ("X", "W", "V"))
    first = nn.Linear(*w.shape, bias=False, dtype=torch.float64)
    last = nn.Linear(*v.shape, bias=False, dtype=torch.float64)
    last.weight.data = v.T
    model = nn.Sequential(first, nn.ReLU(), last)
    normalize_and_project(model, x, eps=0.0)

    def at(factor):
        first.weight.grad = None
        first.weight.data = factor * w.T
        loss = mse_loss(model(x), tensor(inputs["Y"]))
        loss.backward()
        return loss.item(), first.weight.grad.T.clone()

    (loss, gradient), (loss_k, gradient_k) = at(1.0), at(inputs["k"])
    return {
        "loss_w": loss,
        "loss_kw": loss_k,
        "grad_w": gradient,
        "grad_kw": gradient_k,
        "inner_product_grad_w": (gradient * w).sum().item(),
    }


def rates(inputs):
    lr, norms = inputs["lr"], inputs["layer_norms"]
    return {
        name: [effective_rate(lr, norm, norms[0], power) for norm in norms]
        for name, power in (("sgd", 2), ("adam", 1))
    }


def steps(inputs):
    model = nn.Module()
    model.weight = nn.Parameter(tensor(inputs["W_init"]))
    projector = NormProjector(model, ["weight"], every=inputs["project_every"])
    if inputs["optimizer"] == "sgd":
        optimizer = torch.optim.SGD([model.weight], inputs["lr"])
    else:
        options = {"betas": tuple(inputs["betas"]), "eps": inputs["eps"]}
        optimizer = torch.optim.Adam([model.weight], inputs["lr"], **options)
    before = []
    optimizer.register_step_post_hook(lambda *_: before.append(model.weight.norm().item()))
    projector.attach(optimizer)
    after = []
    for gradient in inputs["grads"]:
        model.weight.grad = tensor(gradient)
        optimizer.step()
        after.append(model.weight.detach().clone().tolist())
    return {"W_after_each_step": after, "norm_before_projection": before}


def task_schedule(inputs):
    warmup, whole = inputs["warmup"], inputs["T"]
    lr = tp.schedules.Sequence(
        tp.schedules.Phase(inputs["init"], inputs["peak"], warmup),
        tp.schedules.Phase(inputs["peak"], inputs["end"], whole - warmup, "cosine"),
    )
    return {"lr": [lr(t) for t in inputs["steps"]]}


ADAPTERS = {
    "W <- W * rho/||W||_F": project_matrix,
    "(gain, offset) <- ": gains,
    "LayerNorm without affine": normalizers,
    "loss of x@W": invariance,
    "effective lr of a scale-invariant layer": rates,
    "optimizer step on the raw gradient": steps,
    "per-task schedule": task_schedule,
}
