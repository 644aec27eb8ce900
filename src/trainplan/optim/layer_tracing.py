"""What the output of each layer goes into, and whose scale does not matter, found by running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_ACTIVATIONS = ("relu", "elu", "gelu", "silu", "mish", "tanh", "sigmoid", "swish", "softplus")
_FUNCTIONS = {
    function: function.__name__.rstrip("_")
    for place in (torch, functional, Tensor)
    for name in ("relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "mish", "tanh")
    for function in (getattr(place, name, None), getattr(place, f"{name}_", None))
    if function is not None
}
HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "leakyrelu")
"""Activations f with f(c x) = c f(x) for c > 0."""


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer or a convolution, Transformers' ``Conv1D`` included."""
    return isinstance(module, _LINEAR) or type(module).__name__ == "Conv1D"


def is_norm(module: nn.Module) -> bool:
    """Whether it is a normalization layer, models' own kinds included."""
    return isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()


def run(model: nn.Module, inputs: Any) -> Any:
    """The model's output for a tensor, a tuple of arguments, or a dictionary of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


class Trace(TorchFunctionMode):
    """One run of a model.

    Attributes:
        linear: Names of linear layers in the order in which they were called.
        into: For the name of a linear or normalization layer, the kind (``norm`` or
            ``activation``) and the name of what its output goes into directly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear: list[str] = []
        self.into: dict[str, tuple[str, str]] = {}
        self._made: dict[int, tuple[str, Tensor]] = {}

    def of(self, model: nn.Module, inputs: Any) -> Trace:
        """Run it once, without gradients and without changing buffers or random numbers."""
        hooks: list[Any] = []
        for name, module in model.named_modules():
            if is_linear(module) or is_norm(module):
                hooks.append(module.register_forward_hook(self._after(name, module)))
            hooks.append(module.register_forward_pre_hook(self._before(name, module)))
        try:
            with undisturbed(model), self:
                run(model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        self._made.clear()
        return self

    def _before(self, name: str, module: nn.Module) -> Any:
        kind, word = "", type(module).__name__.lower()
        if is_norm(module):
            kind, word = "norm", name
        elif any(part in word for part in _ACTIVATIONS) and not list(module.children()):
            kind = "activation"

        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if kind and args:
                self._goes(args[0], kind, word)

        return hook

    def _after(self, name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                # The tensor is kept, so that no other one gets its identity.
                self._made[id(output)] = (name, output)
            if is_linear(module) and name not in self.linear:
                self.linear.append(name)

        return hook

    def _goes(self, tensor: Any, kind: str, name: str) -> None:
        if id(tensor) in self._made:
            self.into.setdefault(self._made[id(tensor)][0], (kind, name))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if args and func in _FUNCTIONS:
            self._goes(args[0], "activation", _FUNCTIONS[func])
        return func(*args, **(kwargs or {}))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put buffers, such as running statistics, and the random state back at the end."""
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng(), torch.no_grad():
        try:
            yield
        finally:
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


def find_scale_invariant(
    model: nn.Module, inputs: Any, *, factor: float = 2.0, tolerance: float = 1e-3
) -> list[str]:
    """Names of the weights whose scale does not change the output: scaled, and compared.

    The model is run in its present mode, twice per weight, with the same random numbers. Batch norm
    is indifferent to scale in training mode only. A bias behind a weight is not scaled with it, so
    that it breaks the invariance. A norm's epsilon breaks it a little, hence the tolerance.

    Args:
        model: Any model.
        inputs: A tensor, a tuple of arguments or a dictionary of named ones.
        factor: What each weight is scaled by.
        tolerance: The largest change of the output's norm, relative to it.

    >>> model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 1))
    >>> find_scale_invariant(model, torch.randn(16, 8))
    ['0.weight']
    """
    found = []
    expected = _outputs(model, inputs)
    limit = tolerance * float(expected.norm())
    for name, p in model.named_parameters():
        if p.ndim < 2 or not p.is_floating_point() or not p.detach().any():
            continue
        value = p.detach().clone()
        try:
            with torch.no_grad():
                p.mul_(factor)
            change = float((_outputs(model, inputs) - expected).norm())
        finally:
            with torch.no_grad():
                p.copy_(value)
        if change <= limit:
            found.append(name)
    return found


def _outputs(model: nn.Module, inputs: Any) -> Tensor:
    """Every floating-point number of the output, in a row."""
    with undisturbed(model):
        torch.manual_seed(0)
        output = run(model, inputs)
    return torch.cat([t.double().flatten().cpu() for t in _tensors(output)])


def _tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        if thing.is_floating_point():
            yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _tensors(value)
    elif isinstance(thing, (tuple, list)):
        for value in thing:
            yield from _tensors(value)
