"""SGD-SaI: SGD with one learning rate per tensor, measured from its first gradient and then kept.

Xu, Xiang, Cai and Wen, 2024, "No More Adam: Learning Rate Scaling at Initialization is All You
Need", arXiv 2412.11768. With g a tensor's gradient of d numbers::

    s = |g| / (std(g) + eps)                      once, from the first gradient
    m = g, then m <- momentum * m + (1 - momentum) * g
    W <- (1 - lr * weight_decay) * W - lr * s * m

As |g|^2 = (d - 1) std(g)^2 + d mean(g)^2, s is sqrt(d) wherever a gradient's mean is small beside
its spread. At initialisation it is, but for gains of norms close to the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from trainplan.errors import PlanError
from trainplan.optim.fused import momentum_step
from trainplan.optim.grouped import GroupedOptimizer, check_choices, check_not_negative
from trainplan.optim.tensor_scales import SCALES, scale_of
from trainplan.schedules.values import finite

_CHOICES = {"scale": SCALES, "mode": ("default", "authors")}
_NOT_DEFAULTS = ("self", "params", "__class__")


def check_group(group: Mapping[str, Any], place: str) -> None:
    """Refuse what cannot be meant."""
    check_choices(group, _CHOICES, place)
    check_not_negative(group, ("lr", "weight_decay", "eps"), place)
    if not 0 <= float(group["momentum"]) < 1:
        value = group["momentum"]
        raise PlanError("must lie in [0, 1)", place=f"{place}: momentum", value=value)
    most = group["max_scale"]
    if most is not None and not finite(most, f"{place}: max_scale") > 0:
        remedy = "Give a factor such as 10, or None for no limit"
        raise PlanError("must be above 0", place=f"{place}: max_scale", value=most, remedy=remedy)


class SGDSaI(GroupedOptimizer):
    """SGD with momentum and a constant multiplier of the learning rate for each tensor.

    Its state is one buffer, half of AdamW's. At initialisation the measured multiplier and
    ``scale="sqrt_numel"``, which measures nothing, nearly coincide: try that control as well. On
    the lab's transformer they are within 1 % for all tensors but the last norm's gain (3 times).
    The multiplier does not depend on the size of gradients, so it does not equalise them as
    Adam does.

    Multipliers are kept in the state, and a resumed run goes on with them. A parameter is measured
    at its first gradient that is not zero. Sharded parameters (FSDP) have no norm of the whole
    tensor here, and were not tried. ``torch.compile`` leaves the update as it is.

    Args:
        params: Parameters or groups.
        lr: Learning rate, at least 0.
        momentum: In [0, 1). The first buffer is the first gradient.
        eps: Beside the standard deviation, at least 0.
        weight_decay: Decoupled, and not multiplied by the scale.
        normalize: ``True`` for the paper's formula: population variance, and all scales divided by
            the largest. ``False`` for the published code's. The same training then needs the rate
            times `largest`, which is in the hundreds. Later tensors are divided by the same
            number, and their scale is at most 1.
        scale: ``"gsnr"``, or ``"sqrt_numel"`` for the root of a tensor's size.
        max_scale: Scales are at most this times the root of the size; ``None`` for no limit.
        mode: ``"authors"`` measures single numbers (|g| / eps, which explodes) and gradients of
            zero (which freezes the tensor) as well, without a limit.
        maximize: Climb instead.
        foreach: ``False`` for the plain sequence of formulas.

    Raises:
        PlanError: For settings that cannot be meant; for sparse or complex gradients; and if the
            gradient to be measured is not finite.

    >>> import torch
    >>> model = torch.nn.Linear(64, 16)
    >>> optimizer = SGDSaI(model.parameters(), scale="sqrt_numel")
    >>> model(torch.ones(1, 64)).square().sum().backward()
    >>> optimizer.step()
    >>> optimizer.scales(model.named_parameters())
    {'weight': 32.0, 'bias': 4.0}
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        *,
        momentum: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        normalize: bool = False,
        scale: Literal["gsnr", "sqrt_numel"] = "gsnr",
        max_scale: float | None = 10.0,
        mode: Literal["default", "authors"] = "default",
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {key: value for key, value in locals().items() if key not in _NOT_DEFAULTS}
        super().__init__(params, defaults)

    @property
    def largest(self) -> float | None:
        """The largest scale at the first measurement, not normalised; ``None`` before it."""
        return next((s["largest"] for s in self.state.values() if "largest" in s), None)

    def scales(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
        """The scale of each parameter that was measured, by name."""
        return {n: self.state[p]["scale"] for n, p in named if "scale" in self.state.get(p, {})}

    _check_group = staticmethod(check_group)

    def _update(self) -> None:
        groups = [[p for p in g["params"] if p.grad is not None] for g in self.param_groups]
        self._measure(groups)
        for group, params in zip(self.param_groups, groups, strict=True):
            lr, momentum = float(group["lr"]), float(group["momentum"])
            keep = 1 - lr * float(group["weight_decay"])
            rate = lr if group["maximize"] else -lr
            update = self._plain if group["foreach"] is False else self._fast
            for p in params:
                update(p, rate, momentum, keep)

    def _measure(self, groups: Sequence[Sequence[Tensor]]) -> None:
        """Find the scale of every tensor that has none yet and a gradient to find it from."""
        found: list[tuple[dict[str, Any], float, bool]] = []
        for group, params in zip(self.param_groups, groups, strict=True):
            for p in params:
                if p not in self.state or "scale" not in self.state[p]:
                    value = scale_of(p, group)
                    if value is not None:
                        found.append((self.state[p], value, group["normalize"]))
        if not found:
            return
        largest = self.largest or max(value for _, value, _ in found)
        for state, value, normalize in found:
            ratio = min(1.0, value / largest) if largest else 0.0
            state["scale"] = ratio if normalize else value
            state["largest"] = largest

    def _plain(self, p: Tensor, rate: float, momentum: float, keep: float) -> None:
        grad, state = p.grad, self.state.get(p, {})
        assert grad is not None  # noqa: S101 - chosen so
        if "scale" not in state:
            p.copy_(p * keep)
            return
        direction = grad
        if not momentum:
            state.pop("momentum_buffer", None)
        else:
            old = state.get("momentum_buffer")
            direction = grad if old is None else momentum * old + (1 - momentum) * grad
            state["momentum_buffer"] = direction.clone()
        p.copy_(p * keep + rate * state["scale"] * direction)

    def _fast(self, p: Tensor, rate: float, momentum: float, keep: float) -> None:
        grad, state = p.grad, self.state.get(p, {})
        assert grad is not None  # noqa: S101 - chosen so
        if keep != 1:
            p.mul_(keep)
        if "scale" not in state:  # zero so far
            return
        rate *= state["scale"]
        if not momentum:
            state.pop("momentum_buffer", None)  # or it would be stale when momentum comes back
            p.add_(grad, alpha=rate)
        elif "momentum_buffer" not in state:
            state["momentum_buffer"] = grad.clone()
            p.add_(grad, alpha=rate)
        else:
            momentum_step(p, grad, state["momentum_buffer"], lr=-rate, momentum=momentum)
