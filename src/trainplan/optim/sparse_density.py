"""How many weights of each layer a sparse network keeps, and which ones it begins with.

Erdos-Renyi-Kernel (ERK) gives small layers a higher density than large ones at the same total
(Evci, Gale, Menick, Castro and Elsen, 2020, "Rigging the Lottery", arXiv 1911.11134).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import finite

INITS = ("erk", "uniform", "magnitude")
Shapes = Mapping[str, Sequence[int]]


def layer_densities(
    shapes: Shapes,
    density: float | Mapping[str, float],
    init: str = "erk",
    *,
    power: float = 1.0,
) -> dict[str, float]:
    """The share of weights that each layer keeps.

    ``erk``: raw_l = (sum(shape_l) / prod(shape_l)) ** power and density_l = eps raw_l, with eps
    such that density sum(n) weights are kept in all. Layers that would keep more than all their
    weights are made dense, those of the largest raw_l first, and eps is found again for the rest.

    Args:
        shapes: Shape of each weight by name; (out, in, height, width) for convolutions.
        density: Share of all weights in (0, 1], or a share for each name (``init`` is unused then).
        init: ``erk``, or ``uniform`` (also ``magnitude``) for the same share everywhere.
        power: Exponent of ERK; 0 is uniform.

    Raises:
        PlanError: If a share is not in (0, 1], or a name is missing or unknown.

    >>> shapes = {"in": (64, 64), "hidden": (64, 64), "out": (10, 64)}
    >>> {k: round(v, 3) for k, v in layer_densities(shapes, 0.2).items()}
    {'in': 0.167, 'hidden': 0.167, 'out': 0.619}
    """
    if isinstance(density, Mapping):
        return _custom(shapes, density)
    share = _share(density, "density")
    if init not in INITS:
        raise PlanError("unknown", place="init", value=init, remedy=nearest(init, INITS))
    if init != "erk":
        return dict.fromkeys(shapes, share)
    return _erk(shapes, share, finite(power, "power"))


def _erk(shapes: Shapes, share: float, power: float) -> dict[str, float]:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: (sum(shape) / sizes[name]) ** power for name, shape in shapes.items()}
    dense: set[str] = set()
    while sparse := [name for name in shapes if name not in dense]:
        kept = share * sum(sizes.values()) - sum(sizes[name] for name in dense)
        eps = kept / sum(raw[name] * sizes[name] for name in sparse)
        largest = max(raw[name] for name in sparse)
        if eps * largest <= 1:
            break
        dense |= {name for name in sparse if raw[name] == largest}
    return {name: 1.0 if name in dense else eps * raw[name] for name in shapes}


def _custom(shapes: Shapes, density: Mapping[str, float]) -> dict[str, float]:
    for name in density:
        if name not in shapes:
            remedy = nearest(name, shapes)
            raise PlanError("no such weight", place="density", value=name, remedy=remedy)
    missing = [name for name in shapes if name not in density]
    if missing:
        remedy = "Give every sparse weight a share, or leave it out with skip"
        raise PlanError("a weight has no share", place="density", value=missing[0], remedy=remedy)
    return {name: _share(density[name], f"density.{name}") for name in shapes}


def _share(value: float, place: str) -> float:
    share = finite(value, place)
    if not 0 < share <= 1:
        remedy = "Write 0.2 to keep a fifth of the weights"
        raise PlanError("a density lies in (0, 1]", place=place, value=value, remedy=remedy)
    return share


def draw_masks(
    weights: Mapping[str, Tensor],
    densities: Mapping[str, float],
    generator: torch.Generator,
    *,
    per_unit: int = 0,
) -> dict[str, Tensor]:
    """Masks whose entries are active independently, with their layer's density.

    The numbers of active entries are therefore random. Draws are made on the CPU, so that they do
    not depend on the device.

    Args:
        weights: By name.
        densities: By name, in (0, 1].
        generator: A generator of the CPU.
        per_unit: The least number of active inputs of an output unit; as many random ones are
            added where there are fewer.

    Returns:
        Masks of the weights' shapes, of type bool and on their devices.
    """
    masks = {}
    for name, weight in weights.items():
        drawn = torch.rand(weight.shape, generator=generator)
        mask = drawn < densities[name]
        if per_unit and weight.ndim > 1:
            rows = drawn.flatten(1)  # the smallest draws are the first to be active
            least = rows.argsort(1)[:, : min(per_unit, rows.shape[1])]
            mask.view(rows.shape).scatter_(1, least, True)
        masks[name] = mask.to(weight.device)
    return masks


def largest_weights(weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Masks of the weights that are largest in absolute value over all layers together.

    >>> weights = {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([3.0, 2.0])}
    >>> {name: mask.tolist() for name, mask in largest_weights(weights, 0.5).items()}
    {'a': [False, True], 'b': [True, False]}
    """
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    kept = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    kept[sizes.topk(math.ceil(density * len(sizes))).indices] = True
    parts = torch.split(kept, [weight.numel() for weight in weights.values()])
    return {
        name: part.view(weight.shape).to(weight.device)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }
