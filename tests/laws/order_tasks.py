"""Small runs that are recorded, and the same runs in other orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.laws.order import OrderEstimator, OrderRecorder, train_in_order


class Point(nn.Module):
    """Two parameters that are the weights themselves."""

    def __init__(self, dtype: torch.dtype = torch.float64, size: int = 4) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-1, 1, size, dtype=dtype))
        self.b = nn.Parameter(torch.full((2,), 0.3, dtype=dtype))

    def forward(self) -> Tensor:
        return torch.cat([self.a, self.b])


def quadratics(
    n: int, dtype: torch.dtype = torch.float64, *, diagonal: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Batches (A, c) of the loss (x - c)' A (x - c) / 2."""
    generator = torch.Generator().manual_seed(n)
    batches = []
    for _ in range(n):
        root = torch.randn(6, 6, generator=generator, dtype=dtype)
        A = root @ root.T / 6 + 0.2 * torch.eye(6, dtype=dtype)
        A = torch.diag(torch.diagonal(A)) if diagonal else A
        batches.append((A, torch.randn(6, generator=generator, dtype=dtype)))
    return batches


def quadratic_loss(model: nn.Module, batch: Any) -> Tensor:
    A, c = batch
    away = model() - c
    return away @ A @ away / 2


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def examples(n: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Batches of five labelled points whose mean drifts, so that the order matters."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(5, 3, generator=generator, dtype=dtype) + j / n,
            torch.randint(0, 2, (5,), generator=generator),
        )
        for j in range(n)
    ]


def classify(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])


def flat(parameters: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1) for v in parameters.values()])


class Task:
    """A run in the order 0, 1, 2, ..., recorded in a folder."""

    def __init__(self, folder: Path, build: Any, loss: Any, batches: Any, **recording: Any) -> None:
        self.folder, self.build, self.loss, self.batches = folder, build, loss, batches
        self.training = {k: recording.pop(k) for k in ("noise_seed", "max_norm") if k in recording}
        self.passes = recording.pop("passes", 1)
        self.reference = list(range(len(batches))) * self.passes
        self.model, self.optimizer = build()
        recording["order"] = self.reference
        with OrderRecorder(folder, self.model, self.optimizer, **recording):
            self.train(self.model, self.optimizer, self.reference)

    def train(self, model: nn.Module, optimizer: Any, order: list[int]) -> None:
        train_in_order(model, optimizer, self.loss, self.batches, order, **self.training)

    def truth(self, order: list[int]) -> Tensor:
        model, optimizer = self.build()
        self.train(model, optimizer, order)
        return weights(model)

    def estimator(self, **options: Any) -> OrderEstimator:
        model, optimizer = self.build()
        settings = self.training | {"show": False} | options
        return OrderEstimator(self.folder, model, optimizer, self.loss, self.batches, **settings)
