"""What the optimizers here share: groups that are checked, closures, and loading to the bit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainplan.errors import PlanError, nearest
from trainplan.optim.loading import restore_types


class GroupedOptimizer(torch.optim.Optimizer):
    """An optimizer that says how it checks a group and how it updates its parameters.

    ``torch.compile`` leaves the update as it is.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self._check_group(defaults, type(self).__name__)
        super().__init__(params, defaults)

    @staticmethod
    @abstractmethod
    def _check_group(group: Mapping[str, Any], place: str) -> None:
        """Refuse settings that cannot be meant."""

    @abstractmethod
    def _update(self) -> None:
        """Update all parameters that have gradients."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take further parameters, with settings of their own."""
        place = f"param_groups[{len(self.param_groups)}]"
        self._check_group({**self.defaults, **param_group}, place)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, to the bit."""
        super().load_state_dict(state_dict)
        restore_types(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have gradients.

        Args:
            closure: Evaluates the model again, and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update_uncompiled()
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _update_uncompiled(self) -> None:
        self._update()


def check_gradient(grad: Tensor, method: str, place: str = "gradient") -> None:
    """Refuse sparse and complex gradients.

    Raises:
        PlanError: With what to do instead.
    """
    if not (grad.is_sparse or grad.is_complex()):
        return
    remedy = "Train its real and imaginary parts"
    if grad.is_sparse:
        remedy = "Give that parameter to torch.optim.SparseAdam"
    kind = "sparse" if grad.is_sparse else "complex"
    raise PlanError(
        f"{method} cannot use {kind} gradients",
        place=place,
        value=tuple(grad.shape),
        remedy=remedy,
    )


def check_choices(
    group: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]], place: str
) -> None:
    """Refuse words that are not among those known."""
    for name, known in choices.items():
        if group[name] not in known:
            remedy = nearest(group[name], known)
            raise PlanError("unknown", place=f"{place}: {name}", value=group[name], remedy=remedy)


def check_not_negative(group: Mapping[str, Any], names: Iterable[str], place: str) -> None:
    """Refuse numbers below 0 and NaN."""
    for name in names:
        value = float(group[name])
        if not value >= 0:
            raise PlanError("must not be below 0", place=f"{place}: {name}", value=value)


def check_betas(group: Mapping[str, Any], place: str) -> None:
    """Refuse rates of forgetting that are not two numbers in [0, 1)."""
    betas = group["betas"]
    if len(betas) != 2 or not all(0 <= float(beta) < 1 for beta in betas):
        raise PlanError("two numbers in [0, 1)", place=f"{place}: betas", value=betas)
