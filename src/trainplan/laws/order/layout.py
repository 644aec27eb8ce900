"""The trained parameters of a model as one vector, in the optimizer's order, and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainplan.errors import PlanError


@dataclass(frozen=True)
class Layout:
    """Which parameters a vector of length ``size`` holds, one after the other.

    Attributes:
        names: As in ``model.named_parameters()``, in the order of the optimizer's groups.
        shapes: Of each.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module, optimizer: Optimizer) -> Layout:
        """The parameters that the optimizer trains.

        Raises:
            PlanError: If one is not the model's, or if they differ in dtype or device.
        """
        names = {id(p): name for name, p in model.named_parameters()}
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        if not all(id(p) in names for p in trained):
            remedy = "Build it from model.parameters() of this very model"
            raise PlanError(
                "trains a parameter that the model lacks", place="optimizer", remedy=remedy
            )
        kinds = {(p.dtype, p.device) for p in trained}
        if len(kinds) != 1 or not trained[0].is_floating_point():
            raise PlanError(
                "the trained parameters must share one floating dtype and one device",
                place="optimizer",
                value=sorted(f"{dtype} on {device}" for dtype, device in kinds),
                remedy="Cast the model, or train one part of it",
            )
        return cls(tuple(names[id(p)] for p in trained), tuple(tuple(p.shape) for p in trained))

    @property
    def sizes(self) -> list[int]:
        """The number of values of each parameter."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """The number of values of all of them."""
        return sum(self.sizes)

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """A new vector ``[size]`` from tensors by name."""
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a vector ``[size]`` by name, through which gradients flow."""
        parts = torch.split(flat, self.sizes)
        return {
            name: part.view(shape)
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }


def bare(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside wrappers, such as Accelerate's, whose steps are the ones that count."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def untrained(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """What the optimizer leaves alone: frozen parameters and buffers, by name."""
    trained = set(layout.names)
    frozen = {n: p.detach() for n, p in model.named_parameters() if n not in trained}
    return frozen | dict(model.named_buffers())


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}".encode())
        raw = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(raw.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
