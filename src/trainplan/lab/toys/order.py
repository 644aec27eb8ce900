"""Handwritten digits in batches sorted by class: a task on which the order of batches matters.

1210 weights in float64, one pass of Adam, so that hundreds of orders can really be trained.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from trainplan._extras import require
from trainplan.laws.order import (
    OrderEstimator,
    OrderRecorder,
    ProjectionWarning,
    train_in_order,
)

Batch = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean loss of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


class SortedDigits:
    """One seed's batches sorted by class, its held-out images, and its initial weights.

    Args:
        seed: Of the images chosen and the weights.
        rate: Adam's, constant.
        number: Of batches of 32; at most 32.
    """

    def __init__(self, seed: int, rate: float, number: int) -> None:
        load_digits = require("sklearn.datasets", extra="lab").load_digits
        images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
        shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        train = shuffled[: 32 * number]
        train = train[torch.argsort(labels[train], stable=True)]
        self.batches = [(images[part] / 16, labels[part]) for part in torch.split(train, 32)]
        self.validation, self.test = (
            (images[part] / 16, labels[part]) for part in shuffled[1024:].chunk(2)
        )
        self.seed, self.rate = seed, rate

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model and optimizer at the start."""
        torch.manual_seed(self.seed)
        model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
        return model, torch.optim.Adam(model.parameters(), lr=self.rate)

    def trained(self, order: list[int]) -> nn.Module:
        """The truth: a model really trained in this order."""
        model, optimizer = self.build()
        train_in_order(model, optimizer, cross_entropy, self.batches, order)
        return model

    @contextmanager
    def estimator(self, **options: Any) -> Iterator[OrderEstimator]:
        """Estimates from a run in the order of the classes."""
        model, optimizer = self.build()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", ProjectionWarning)
            with OrderRecorder(folder, model, optimizer):
                train_in_order(model, optimizer, cross_entropy, self.batches)
            found = OrderEstimator(
                folder, model, optimizer, cross_entropy, self.batches, show=False, **options
            )
            found.prepare()
            yield found

    @torch.no_grad()
    def tested(self, model: nn.Module) -> float:
        """Loss on images used for nothing else."""
        return float(cross_entropy(model, self.test))

    @torch.no_grad()
    def validated(self, model: nn.Module) -> float:
        """Loss that searches minimize."""
        return float(cross_entropy(model, self.validation))


def vector(model: nn.Module) -> torch.Tensor:
    """All weights."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
