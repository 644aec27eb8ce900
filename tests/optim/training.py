"""A tiny network with every kind of parameter, its data, and training it step by step."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import trainplan as tp

STEPS = 9


@dataclass(frozen=True)
class Subject:
    """An optimizer that is to keep the contract, and what it is able to do.

    Attributes:
        make: ``make(model, **options)`` is the optimizer of a model, at a rate that trains `net`.
        options: Those of ``foreach`` and ``maximize`` that ``make`` takes.
        knobs: Schedules for a plan to drive, by hyperparameter; ``lr`` is driven anyway.
        trainer: ``trainer(model)`` returns what Transformers' ``optimizer_cls_and_kwargs`` takes.
        compiles: Whether ``torch.compile`` can trace a step.
        tolerance: By how much the two paths may differ, by type; as a share of the largest change.
        learns: By which factor training has to lower the loss.
    """

    make: Callable[..., torch.optim.Optimizer]
    options: frozenset[str] = frozenset({"foreach", "maximize"})
    knobs: Mapping[str, Any] = field(default_factory=dict)
    trainer: Callable[[nn.Module], tuple[type, dict[str, Any]]] | None = None
    compiles: bool = True
    tolerance: Mapping[torch.dtype, float] = field(
        default_factory=lambda: {
            torch.float64: 1e-6,
            torch.float32: 1e-4,
            torch.bfloat16: 0.1,
        }
    )
    learns: float = 0.8


def net(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """Convolution, wide, tall and square matrices, biases and a norm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.Flatten(),
        nn.Linear(96, 12),
        nn.Tanh(),
        nn.Linear(12, 20),
        nn.LayerNorm(20),
        nn.Linear(20, 20, bias=False),
        nn.Tanh(),
        nn.Linear(20, 3),
    ).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float32, size: int = 8) -> tuple[Tensor, Tensor]:
    """Images (size, 2, 6, 6), and whether the first channel, the second or neither is brighter."""
    random = torch.Generator().manual_seed(1000 + step)
    images = torch.randn(size, 2, 6, 6, generator=random)
    first, second = images.mean((2, 3)).unbind(1)
    neither = torch.full_like(first, 0.05)
    return images.to(dtype), torch.stack([first, second, neither]).argmax(0)


def loss_of(model: nn.Module, step: int) -> Tensor:
    """Cross-entropy of a model on the batch of a step."""
    dtype = next(model.parameters()).dtype
    images, labels = batch(step, dtype)
    return nn.functional.cross_entropy(model(images).float(), labels)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range | int = STEPS,
    *,
    before: Callable[[int], None] = lambda t: None,
    sign: float = 1.0,
) -> list[float]:
    """Train; ``before(t)`` is called between the backward pass and the update."""
    losses = []
    for t in range(steps) if isinstance(steps, int) else steps:
        optimizer.zero_grad()
        loss = loss_of(model, t)
        (sign * loss).backward()
        before(t)
        optimizer.step()
        losses.append(loss.item())
    return losses


def saved(thing: Any) -> Any:
    """What comes back from a file that only tensors and plain values may be read from."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def weights(model: nn.Module) -> list[Tensor]:
    """Copies of a model's parameters."""
    return [p.detach().clone() for p in model.parameters()]


def same(a: Any, b: Any) -> bool:
    """Whether two nests of lists, dicts and tensors are equal to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def difference(a: list[Tensor], b: list[Tensor], start: list[Tensor]) -> float:
    """How far two results are apart at most, as a share of how far each tensor has moved.

    Two roundings of the type are nothing: in bfloat16 a parameter at 1 moves in steps of 0.008.
    """
    shares = []
    for p, q, s in zip(a, b, start, strict=True):
        apart = (p - q).abs() - 2 * torch.finfo(p.dtype).eps * p.abs()
        shares.append((apart.max().clamp_min(0) / (p - s).abs().max().clamp_min(1e-12)).item())
    return max(shares)


def reload(subject: Subject, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any):
    """The model and its optimizer as another process would find them in a checkpoint."""
    kept = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    again = net(next(model.parameters()).dtype, seed=77)
    again.load_state_dict(kept["model"])
    other = subject.make(again, **options)
    other.load_state_dict(kept["optimizer"])
    return again, other


def plan_of(subject: Subject, optimizer: torch.optim.Optimizer) -> tp.Plan:
    """A plan that changes the rate, and the optimizer's other knobs, at every step."""
    peak = float(optimizer.defaults["lr"])
    return tp.Plan(horizon=STEPS, lr=tp.schedules.linear(peak, warmup=2), **subject.knobs)
