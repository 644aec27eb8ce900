"""Mixing candidate operations while their weights are learned.

With plain mixing the strongest operation pulls its own weight up, so whichever learns fastest at
first tends to win. Max-W mixing (Hundt, Jain and Hager, 2019, "sharpDARTS", arXiv 1903.09900)
gives the strongest one a coefficient of 1 and no gradient through its own weight, which leaves the
slower ones a chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest

Mode = Literal["scalar", "max_w"]
MODES = ("scalar", "max_w")


def max_w_coefficients(weights: Tensor) -> Tensor:
    """The coefficient of each operation: 1 - max_j w_j + w_i.

    The gradient flows through the maximum, so that the strongest operation's own cancels.

    Args:
        weights: (n,) of operations, such as a softmax; together 1.

    >>> max_w_coefficients(torch.tensor([0.25, 0.75]))
    tensor([0.5000, 1.0000])
    """
    return 1 - weights.max(dim=-1, keepdim=True).values + weights


def mix(outputs: Sequence[Tensor] | Tensor, weights: Tensor, mode: Mode = "max_w") -> Tensor:
    """The sum of the operations' outputs with coefficients from their weights.

    Args:
        outputs: n tensors of one shape, or one tensor with n as its first axis.
        weights: (n,) of the operations.
        mode: ``scalar`` takes the weights as they are (DARTS); ``max_w`` as `max_w_coefficients`.

    >>> mix(torch.tensor([[1.0], [2.0]]), torch.tensor([0.25, 0.75]))
    tensor([2.5000])
    """
    if mode not in MODES:
        raise PlanError("unknown mixing", place="mode", value=mode, remedy=nearest(mode, MODES))
    stacked = outputs if isinstance(outputs, Tensor) else torch.stack(list(outputs))
    if weights.shape != stacked.shape[:1]:
        raise PlanError(
            f"there are {stacked.shape[0]} outputs", place="weights", value=tuple(weights.shape)
        )
    coefficients = max_w_coefficients(weights) if mode == "max_w" else weights
    return torch.einsum("n,n...->...", coefficients, stacked)


class MixedOperation(nn.Module):
    """Several operations in place of one, with a softmax of learned numbers as their weights.

    Args:
        operations: Modules whose outputs have one shape.
        mode: As in `mix`.

    >>> mixed = MixedOperation([nn.Identity(), nn.ReLU()])
    >>> mixed(torch.tensor([-2.0, 2.0])).detach()
    tensor([-2.,  4.])
    """

    def __init__(self, operations: Iterable[nn.Module], mode: Mode = "max_w") -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        if not len(self.operations):
            raise PlanError("there is no operation to mix", place="operations")
        if mode not in MODES:
            raise PlanError("unknown mixing", place="mode", value=mode, remedy=nearest(mode, MODES))
        self.mode: Mode = mode
        self.logits = nn.Parameter(torch.zeros(len(self.operations)))

    @property
    def weights(self) -> Tensor:
        """(n,) the softmax of the logits."""
        return self.logits.softmax(dim=0)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run every operation and mix the outputs."""
        outputs = [operation(*args, **kwargs) for operation in self.operations]
        return mix(outputs, self.weights, self.mode)
