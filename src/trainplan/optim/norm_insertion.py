"""Normalize before every nonlinearity, and hold the norms of the weights in front.

The whole of Normalize-and-Project (Lyle et al., 2024, arXiv 2407.01800) for a model as it is:
layers are found by running it once. What is held is in `norm_projection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.layer_tracing import HOMOGENEOUS, Trace, is_linear
from trainplan.optim.norm_projection import SCALES, NormProjector

NORMS = ("layer", "rms")
_CHILD = "output_norm"
Choice = str | Iterable[str] | Callable[[str, nn.Module], bool] | None


def normalize_and_project(
    model: nn.Module,
    inputs: Any,
    *,
    norm: str = "layer",
    scale: str = "none",
    project: Choice = None,
    project_head: bool = False,
    every: int = 1,
    decay: float = 1e-4,
    eps: float = 1e-5,
    remove_bias: bool = True,
    pretrained: bool = False,
) -> NormProjector:
    """Give a model normalization before each nonlinearity, and a projector for its weights.

    A linear layer or convolution whose output goes straight into an activation gets a norm on its
    output; one that goes straight into a norm keeps that. Both lose their bias, and both are
    projected. Call it before making the optimizer, then ``attach`` the projector to it. Parameters
    keep their names; a saved model has to be treated again before its weights are loaded.

    Args:
        model: Changed in place.
        inputs: A batch to find the layers with: a tensor, a tuple of arguments, or a dictionary
            of named ones.
        norm: ``layer`` or ``rms``. For convolutions over channels and positions of an example.
        scale: Of the norms' gains and offsets: ``none`` inserts norms without and leaves those of
            others alone; ``project`` holds their joint norm, for ReLU and its kin; ``decay`` pulls
            them towards 1 and 0, for other activations.
        project: Which layers to project instead: names, or a function of name and layer, or
            ``"all"`` for all but the head. Then outputs may change with the projection wherever
            no norm follows, as for the output matrices of a transformer's blocks.
        project_head: Project the last linear layer as well, which fixes the scale of the logits.
        every: Steps between two projections.
        decay: See `NormProjector`.
        eps: Of inserted norms.
        remove_bias: Whether biases in front of norms go; they break the indifference to scale.
        pretrained: See `NormProjector`.

    Returns:
        The projector.

    Raises:
        PlanError: If there is nothing to normalize, or an activation does not fit ``scale``.

    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
    ...                       nn.Linear(16, 2))
    >>> projector = normalize_and_project(model, torch.zeros(1, 4))
    >>> sorted(projector.weights)
    ['0.weight', '2.weight']
    >>> projector.attach(torch.optim.Adam(model.parameters(), lr=1e-3))
    """
    for value, known, place in ((norm, NORMS, "norm"), (scale, SCALES, "scale")):
        if value not in known:
            raise PlanError("unknown", place=place, value=value, remedy=nearest(value, known))
    trace = Trace().of(model, inputs)
    modules = dict(model.named_modules())
    found = {name: trace.into[name] for name in trace.linear if name in trace.into}
    if not found and project is None:
        raise PlanError(
            "no layer's output goes straight into an activation or a norm",
            place="model",
            remedy="Name the layers to project, and insert norms yourself",
        )
    _check_activations(trace, found, modules, scale)
    norms = []
    for name, (kind, target) in found.items():
        layer = modules[name]
        if kind == "activation" and not hasattr(layer, _CHILD):
            _insert(layer, norm, affine=scale != "none", eps=eps)
        if remove_bias:
            _remove_bias(layer)
        norms.append(target if kind == "norm" else f"{name}.{_CHILD}")
    head = trace.linear[-1]
    layers = list(found) if project is None else _choose(modules, project, head)
    if project_head and head not in layers:
        layers.append(head)
    # By identity: a tied weight has the name of its first place.
    names = {id(p): name for name, p in model.named_parameters()}
    modules = dict(model.named_modules())
    return NormProjector(
        model,
        [names[id(modules[name].weight)] for name in layers],
        every=every,
        norms=[name for name in dict.fromkeys(norms) if _has_gain(modules[name])]
        if scale != "none"
        else (),
        scale=scale,
        decay=decay,
        pretrained=pretrained,
    )


class ChannelRMSNorm(nn.Module):
    """Root mean square norm of each example over channels and positions, gains per channel.

    >>> y = ChannelRMSNorm(3, affine=False)(torch.randn(2, 3, 5, 5))
    >>> torch.allclose(y.square().mean((1, 2, 3)), torch.ones(2), atol=1e-3)
    True
    """

    weight: nn.Parameter | None

    def __init__(self, channels: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """For an input of shape (batch, channels, ...) the output of the same shape."""
        y = x * (x.square().mean(tuple(range(1, x.ndim)), keepdim=True) + self.eps).rsqrt()
        return y if self.weight is None else y * self.weight.view(-1, *[1] * (x.ndim - 2))


def _insert(layer: nn.Module, norm: str, *, affine: bool, eps: float) -> None:
    made: nn.Module
    weight = layer.weight
    if isinstance(layer, nn.modules.conv._ConvNd):
        if norm == "layer":
            made = nn.GroupNorm(1, layer.out_channels, eps=eps, affine=affine)
        else:
            made = ChannelRMSNorm(layer.out_channels, affine=affine, eps=eps)
    else:
        # Transformers' Conv1D holds its matrix the other way round.
        width = weight.shape[0 if isinstance(layer, nn.Linear) else 1]  # type: ignore[index]
        kind = nn.LayerNorm if norm == "layer" else nn.RMSNorm
        made = kind(width, eps=eps, elementwise_affine=affine)
    layer.add_module(_CHILD, made.to(weight.device, weight.dtype))  # type: ignore[arg-type]
    layer.register_forward_hook(_normalize)


def _normalize(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
    normed: Tensor = getattr(layer, _CHILD)(output)
    return normed


def _remove_bias(layer: nn.Module) -> None:
    bias = getattr(layer, "bias", None)
    if bias is None:
        return
    if type(layer).__name__ == "Conv1D":  # it cannot do without
        bias.data.zero_()
        bias.requires_grad_(False)
    else:
        layer.register_parameter("bias", None)


def _check_activations(
    trace: Trace, found: dict[str, tuple[str, str]], modules: dict[str, nn.Module], scale: str
) -> None:
    if scale != "project":
        return
    for name, (kind, target) in found.items():
        last, (after, what) = name, (kind, target)
        if kind == "norm":
            if not _has_gain(modules[target]):
                continue
            last, (after, what) = target, trace.into.get(target, ("", "nothing known"))
        if after != "activation" or what.lower() not in HOMOGENEOUS:
            raise PlanError(
                f"{last} is followed by {what}, which is not positively homogeneous",
                place="scale",
                value=scale,
                remedy="Use scale='decay'",
            )


def _has_gain(norm: nn.Module) -> bool:
    return isinstance(getattr(norm, "weight", None), Tensor)


def _choose(modules: dict[str, nn.Module], project: Choice, head: str) -> list[str]:
    layers = {name: m for name, m in modules.items() if is_linear(m)}
    if project == "all":
        return [name for name in layers if name != head]
    if callable(project):
        return [name for name, m in layers.items() if project(name, m)]
    names = [project] if isinstance(project, str) else list(project or ())
    for name in names:
        if name not in layers:
            remedy = nearest(name, layers)
            raise PlanError("no such linear layer", place="project", value=name, remedy=remedy)
    return names
