"""Gradients of a batch near a point of the reference run, by derivatives of the real loss.

Each expansion gives three vectors at a point theta, for a displacement d: the gradient g, its
change H d to first order, and D3L[d, d], the second-order one. The gradient at theta + d is then
about g + H d + 1/2 D3L[d, d].
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainplan.errors import PlanError
from trainplan.laws.order.layout import Layout
from trainplan.laws.order.training import Batches, LossFunction, batch_noise

Function = Callable[[Tensor], Tensor]


class Expansion(NamedTuple):
    """The gradient ``[D]`` at a point, and its changes for a displacement; None where not asked."""

    gradient: Tensor
    first: Tensor | None = None
    second: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The estimated gradient at the displaced point."""
        total = self.gradient
        if self.first is not None:
            total = total + self.first
        return total if self.second is None else total + self.second / 2


def exact_expansion(
    loss: Function, theta: Tensor, d: Tensor, terms: int, *, reverse: bool = False
) -> Expansion:
    """g, H d and D3L[d, d] without ever forming H: directional derivatives of the gradient.

    Args:
        loss: A scalar function of a vector.
        theta: The point ``[D]``.
        d: The displacement ``[D]``.
        terms: 0, 1 or 2: how many of the changes are wanted.
        reverse: Differentiate the gradient in reverse mode too, instead of forwards: slower, for
            operations that have no forward mode.

    >>> cubic = lambda x: (x**3).sum()          # gradient 3 x^2, H = 6 x, D3L[d, d] = 6 d^2
    >>> x, d = torch.tensor([2.0]), torch.tensor([0.5])
    >>> [v.item() for v in exact_expansion(cubic, x, d, terms=2)]
    [12.0, 6.0, 1.5]
    """
    if reverse or terms == 0:
        return _reverse_expansion(loss, theta, d, terms)
    gradient = grad(loss)
    if terms == 1:
        g, u = _jvp(gradient, theta, d)
        return Expansion(g, u)
    (g, u), (_, w) = _jvp(lambda x: _jvp(gradient, x, d), theta, d)
    return Expansion(g, u, w)


def _jvp(function: Callable[[Tensor], Any], x: Tensor, d: Tensor) -> Any:
    """The value at ``x`` and its derivative in the direction ``d``."""
    return jvp(function, (x,), (d,))


def _reverse_expansion(loss: Function, theta: Tensor, d: Tensor, terms: int) -> Expansion:
    x = theta.detach().requires_grad_()
    with torch.enable_grad():
        found = list(torch.autograd.grad(loss(x), x, create_graph=terms > 0))
        for left in range(terms, 0, -1):
            slope = found[-1] @ d
            if not slope.requires_grad:  # constant from here on
                found += [torch.zeros_like(x)] * left
                break
            found += torch.autograd.grad(slope, x, create_graph=left > 1, materialize_grads=True)
    return Expansion(*(v.detach() for v in found))


def gauss_newton_expansion(
    outputs: Function, loss: Function, theta: Tensor, d: Tensor, terms: int
) -> Expansion:
    """As `exact_expansion`, with J^T (d2 loss / d outputs2) J d in place of H d.

    J is the derivative of the model's outputs; the second derivative of the model is left out. For
    cross-entropy and squared error this is the Fisher matrix times d, which is never negative.

    Args:
        outputs: The outputs ``[...]`` as a function of the weights ``[D]``.
        loss: The scalar loss as a function of the outputs.
        theta: The point ``[D]``.
        d: The displacement ``[D]``.
        terms: 0 or 1.

    >>> square = lambda z: (z**2).sum()         # of z = 3 x: H = 18 exactly, as z is linear
    >>> x, d = torch.tensor([1.0]), torch.tensor([2.0])
    >>> [v.item() for v in gauss_newton_expansion(lambda x: 3 * x, square, x, d, 1)[:2]]
    [18.0, 36.0]
    """
    found: Any = vjp(outputs, theta)
    z, back = found
    slope = grad(loss)
    if terms == 0:
        return Expansion(back(slope(z))[0])
    _, dz = _jvp(outputs, theta, d)
    g, bent = _jvp(slope, z, dz)
    return Expansion(back(g)[0], back(bent)[0])


class _Call(nn.Module):
    """A function of (model, batch) as a module, so that its weights can be replaced."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, batch: Any) -> Tensor:
        return self.function(self.model, batch)


class BatchLoss:
    """The user's loss of batch ``j`` as a function of the weights as one vector.

    Args:
        model: Only its structure and its untrained values are used.
        layout: Of the vector.
        loss_fn: ``loss_fn(model, batch)``.
        batches: ``batches[j]`` is batch ``j``.
        noise_seed: See `batch_noise`.
        split: For Gauss-Newton: ``outputs(model, batch)`` and ``loss(outputs, batch)``.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        loss_fn: LossFunction,
        batches: Batches,
        noise_seed: int | None = None,
        split: tuple[LossFunction, Callable[[Tensor, Any], Tensor]] | None = None,
    ) -> None:
        self._layout, self._batches, self._seed = layout, batches, noise_seed
        self._device = model.get_parameter(layout.names[0]).device
        self._reverse = False
        self._whole = _Call(model, loss_fn)
        self._outputs = None if split is None else _Call(model, split[0])
        self._head = None if split is None else split[1]

    def expansion(self, theta: Tensor, j: int, d: Tensor, terms: int) -> Expansion:
        """Gradient and changes of batch ``j``, by exact derivatives or by Gauss-Newton."""
        batch = self._batches[j]
        theta, d = theta.to(self._device), d.to(self._device)

        def call(module: nn.Module, x: Tensor) -> Tensor:
            weights = {f"model.{name}": v for name, v in self._layout.views(x).items()}
            with batch_noise(self._seed, j) if self._seed is not None else nullcontext():
                result: Tensor = functional_call(module, weights, (batch,))
            return result

        # Fused attention has no second derivative. Gradients alone are computed as in training.
        with sdpa_kernel(SDPBackend.MATH) if terms else nullcontext():
            if self._outputs is None or self._head is None:
                return self._exact(lambda x: _scalar(call(self._whole, x)), theta, d, terms)
            head, outputs = self._head, self._outputs
            return gauss_newton_expansion(
                lambda x: call(outputs, x), lambda z: _scalar(head(z, batch)), theta, d, terms
            )

    def _exact(self, loss: Function, theta: Tensor, d: Tensor, terms: int) -> Expansion:
        try:
            return exact_expansion(loss, theta, d, terms, reverse=self._reverse)
        except RuntimeError:
            if self._reverse or terms == 0:
                raise
            # Some operations, many custom ones among them, have no forward mode. If it was another
            # mistake, the second way makes it again.
            self._reverse = True
            return exact_expansion(loss, theta, d, terms, reverse=True)

    def gradient(self, theta: Tensor, j: int) -> Tensor:
        """The gradient ``[D]`` of batch ``j``."""
        return self.expansion(theta, j, theta, 0).gradient


def _scalar(loss: Tensor) -> Tensor:
    if loss.ndim:
        raise PlanError(
            "must give one number per batch",
            place="loss_fn",
            value=f"a tensor of shape {tuple(loss.shape)}",
            remedy="Average or sum it",
        )
    return loss
