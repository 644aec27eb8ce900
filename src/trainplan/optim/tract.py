"""TrAct: let a step move the first layer's activations, not its weights, along the gradient.

Petersen, Borgelt and Ermon, 2024, "TrAct: Making First-layer Pre-Activations Trainable", NeurIPS,
arXiv 2410.23970. Images of high contrast or brightness move a first layer more than others. TrAct
divides this out: with rows x (b, n) of the batch's inputs and G (b, m) the gradient of the loss at
the layer's output, the gradient of its weight becomes::

    G^T x (x^T x / b + lambda I)^-1

For a convolution x are the patches it sees and b counts them; with groups, each has its own.
Forward pass, other gradients and parameters stay as they are. It works on the weight's ordinary
gradient V = G^T x, as only x is needed beside it; with fewer rows than columns b x b is inverted::

    V (x^T x / b + lambda I)^-1 = (V - V x^T (x x^T + lambda b I)^-1 x) / lambda
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainplan.errors import PlanError

KNOB = "tract_lambda"
"""Name of the plan's knob, and of the setting in an optimizer's groups."""
_IN_USE = "tract_lambda_in_use"  # what the coming gradient uses, kept for checkpoints

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, tuple[int, ...], str]
"""Of a convolution: kernel, stride, dilation, groups, padding as for `pad`, padding mode."""
L = TypeVar("L", bound=nn.Module)


def patches(x: Tensor, geometry: Geometry) -> Tensor:
    """The inputs of a convolution as rows: (groups, batch * positions, channels * kernel).

    Args:
        x: (batch, channels, *space).
        geometry: Of the convolution.

    >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> patches(image, ((2, 2), (1, 1), (1, 1), 1, (0, 0, 0, 0), "zeros"))[0, 0]
    tensor([0., 1., 3., 4.])
    """
    kernel, stride, dilation, groups, padding, mode = geometry
    if any(padding):
        x = functional.pad(x, padding, mode="constant" if mode == "zeros" else mode)
    for i, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(2 + i, (size - 1) * apart + 1, step)[..., ::apart]
    space = len(kernel)
    # (batch, groups, channels, *positions, *kernel)
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    positions = range(3, 3 + space)
    x = x.permute(1, 0, *positions, 2, *range(3 + space, 3 + 2 * space))
    return x.flatten(2 + space).flatten(1, 1 + space)


def precondition(grad: Tensor, x: Tensor, lambda_: Tensor | float, *, sync: bool = False) -> Tensor:
    """Multiply a weight's gradient by the regularized inverse second moment of its inputs.

    Args:
        grad: Ordinary gradient of the weight, (..., m, n).
        x: Inputs as rows, (..., b, n).
        lambda_: Added to the second moment's diagonal, above 0.
        sync: Take the second moment over all ranks.

    Returns:
        grad (x^T x / b + lambda I)^-1, (..., m, n).

    >>> precondition(torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), 1.0)
    tensor([[0.3333]])
    """
    rows, columns = x.shape[-2:]
    if sync and dist.is_available() and dist.is_initialized():
        return _solve(grad, _moment_of_all(x), lambda_)
    if rows >= columns:
        return _solve(grad, x.mT @ x / rows, lambda_)
    return (grad - _solve(grad @ x.mT, x @ x.mT, lambda_ * rows) @ x) / lambda_


def _solve(grad: Tensor, moment: Tensor, lambda_: Tensor | float) -> Tensor:
    """``grad (moment + lambda I)^-1``; the matrix is symmetric."""
    eye = torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)
    # The unchecked form: a batch that overflowed gives NaN, which a gradient scaler handles.
    solved: Tensor = torch.linalg.solve_ex(moment + lambda_ * eye, grad.mT)[0]
    return solved.mT


def _moment_of_all(x: Tensor) -> Tensor:
    total, rows = x.mT @ x, torch.tensor(float(x.shape[-2]), device=x.device, dtype=x.dtype)
    dist.all_reduce(total)
    dist.all_reduce(rows)
    return total / rows


class _Preconditioned(torch.autograd.Function):
    """The weight itself; on the way back its gradient is preconditioned by this call's inputs."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, x: Tensor, lambda_: Tensor, geometry: Geometry | None, sync: bool
    ) -> Tensor:
        ctx.save_for_backward(x, lambda_)
        ctx.geometry, ctx.sync = geometry, sync
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, lambda_ = ctx.saved_tensors
        kind = torch.promote_types(grad.dtype, torch.float32)  # no inverse in half precision
        with torch.autocast(grad.device.type, enabled=False):
            x = x.to(kind)
            rows = x.flatten(0, -2)[None] if ctx.geometry is None else patches(x, ctx.geometry)
            split = grad.to(kind).reshape(rows.shape[0], -1, rows.shape[-1])
            lambda_ = lambda_.to(grad.device, kind)
            found = precondition(split, rows, lambda_, sync=ctx.sync)
        return found.reshape(grad.shape).to(grad.dtype), None, None, None, None


class _Base(nn.Module):
    enabled: bool
    _sync: bool
    _strength: Tensor

    @property
    def lambda_(self) -> float:
        """Strength of the regularizer."""
        return float(self._strength)

    @lambda_.setter
    def lambda_(self, value: float) -> None:
        # A tensor, so that a compiled layer sees the new value without being compiled again.
        self._strength.fill_(_checked(value))

    def _weight(self, x: Tensor, geometry: Geometry | None) -> Tensor:
        weight = cast(Tensor, self.weight)
        if not (self.enabled and weight.requires_grad and torch.is_grad_enabled()):
            return weight
        # A copy of lambda, since it may be set before the backward pass.
        arguments = (weight, x.detach(), self._strength.clone(), geometry, self._sync)
        return cast(Tensor, _Preconditioned.apply(*arguments))  # type: ignore[no-untyped-call]


class TrActLinear(_Base, nn.Linear):
    """`torch.nn.Linear` with TrAct's gradient; made by `tract_layer`."""

    def forward(self, input: Tensor) -> Tensor:
        """Like the plain layer's: (..., n) to (..., m). All leading dimensions count as rows."""
        return functional.linear(input, self._weight(input, None), self.bias)


class _Conv(_Base):
    def forward(self, input: Tensor) -> Tensor:
        """Like the plain layer's; every patch of every example counts as a row."""
        layer = cast(Any, self)
        padding = tuple(layer._reversed_padding_repeated_twice)
        space = (layer.kernel_size, layer.stride, layer.dilation)
        geometry = (*space, layer.groups, padding, layer.padding_mode)
        batched = input if input.ndim == 2 + len(layer.kernel_size) else input[None]
        output = layer._conv_forward(input, self._weight(batched, geometry), layer.bias)
        return cast(Tensor, output)


class TrActConv1d(_Conv, nn.Conv1d):
    """`torch.nn.Conv1d` with TrAct's gradient; made by `tract_layer`."""


class TrActConv2d(_Conv, nn.Conv2d):
    """`torch.nn.Conv2d` with TrAct's gradient; made by `tract_layer`."""


class TrActConv3d(_Conv, nn.Conv3d):
    """`torch.nn.Conv3d` with TrAct's gradient; made by `tract_layer`."""


_KINDS: dict[type[nn.Module], type[_Base]] = {
    nn.Linear: TrActLinear,
    nn.Conv1d: TrActConv1d,
    nn.Conv2d: TrActConv2d,
    nn.Conv3d: TrActConv3d,
}


def tract_layer(layer: L, lambda_: float = 0.1, *, sync: bool = False) -> L:
    """A layer like the given one, with the same parameters, whose steps move its activations.

    For the first layer of a vision model, on inputs of mean 0 and deviation 1, which lambda's scale
    assumes. ``model.conv1 = tract_layer(model.conv1)`` is all. Parameters, hooks and names are the
    plain layer's, so checkpoints go both ways. Works with gradient accumulation, autocast (the
    inverse is taken in float32 at least) and ``torch.compile``; not with second derivatives.

    The step sizes differ from the plain layer's: tune the rate of plain SGD anew. A plan drives
    lambda after `drive_lambda`.

    Args:
        layer: A `Linear`, `Conv1d`, `Conv2d` or `Conv3d` itself; others, subclasses among them, may
            compute something else.
        lambda_: The authors' 0.05 to 0.2, larger for long training; smaller is more aggressive.
        sync: In data-parallel training, take the second moment over all ranks (one more reduction
            of n x n numbers in each backward pass). Otherwise each rank uses its own inputs.

    Returns:
        The replacement. Its ``lambda_`` and ``enabled`` may be set between forward passes.

    Raises:
        PlanError: If the layer is of another kind, or lambda is not a positive number.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> model[0] = tract_layer(model[0], 0.2)
    >>> list(model.state_dict()), model[0].lambda_
    (['0.weight', '0.bias'], 0.2)
    """
    if isinstance(layer, _Base):
        problem, remedy = "is preconditioned already", "Set its lambda_"
        raise PlanError(problem, place="layer", value=type(layer).__name__, remedy=remedy)
    if type(layer) not in _KINDS:
        names = ", ".join(kind.__name__ for kind in _KINDS)
        problem, remedy = "TrAct does not know this kind of layer", f"Give one of {names}"
        if isinstance(layer, nn.Embedding):
            remedy += "; for an embedding it would only rescale each token's rate"
        raise PlanError(problem, place="layer", value=type(layer).__name__, remedy=remedy)
    kind = _KINDS[type(layer)]
    new = kind.__new__(kind)
    # Everything the layer has, its parameters themselves included; only the tables are copied.
    for name, value in vars(layer).items():
        new.__dict__[name] = value.copy() if name.startswith("_") and _is_table(value) else value
    new.__dict__["_strength"] = torch.tensor(_checked(lambda_), dtype=torch.float64, device="cpu")
    new.enabled, new._sync = True, sync
    return cast(L, new)


def _is_table(value: Any) -> bool:
    return isinstance(value, (dict, set))


def _checked(value: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not 0 < value < math.inf:
        raise PlanError(
            "must be a positive number",
            place="lambda_",
            value=value,
            remedy="Take 0.05 to 0.2, or set enabled = False for the ordinary gradient",
        )
    return float(value)


def drive_lambda(layer: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let a plan's knob ``tract_lambda`` set a layer's lambda; call it before attaching the plan.

    A plan sets its values as an update begins, when the gradient is there already: each is used by
    the gradient of the update after it, and the first gradient has the layer's own lambda. What
    is in use is kept in the optimizer's state, so that a resumed run does the same.

    Args:
        layer: Made by `tract_layer`.
        optimizer: Its groups get the setting ``tract_lambda``.

    Raises:
        PlanError: If the layer was not made by `tract_layer`.

    >>> layer = tract_layer(nn.Linear(2, 1), lambda_=0.05)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> drive_lambda(layer, optimizer)
    >>> optimizer.param_groups[0]["tract_lambda"]
    0.05
    """
    if not isinstance(layer, _Base):
        problem, remedy = "has no lambda", "Give the layer that tract_layer() returned"
        raise PlanError(problem, place="layer", value=type(layer).__name__, remedy=remedy)
    for group in optimizer.param_groups:
        group[KNOB] = group[_IN_USE] = layer.lambda_

    def after_step(stepped: torch.optim.Optimizer, *_: Any) -> None:
        for group in stepped.param_groups:
            group[_IN_USE] = group.get(KNOB, layer.lambda_)
        layer.lambda_ = stepped.param_groups[0][_IN_USE]

    def after_load(loaded: torch.optim.Optimizer) -> None:
        group = loaded.param_groups[0]
        layer.lambda_ = group.setdefault(_IN_USE, group.setdefault(KNOB, layer.lambda_))

    optimizer.register_step_post_hook(after_step)
    optimizer.register_load_state_dict_post_hook(after_load)
