"""The ``digits`` workload: handwritten digits from scikit-learn, seconds per run.

A two-layer network on 8 x 8 images (Alpaydin and Kaynak 1998, shipped inside scikit-learn). For
trying things out and for tests; it is too easy to rank training methods on it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainplan._extras import require
from trainplan.errors import PlanError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Digits:
    """A two-layer network on the 1797 images of scikit-learn's digits.

    Attributes:
        width: Hidden units.
        batch_size: Images per step; also a knob of the plan.
        optimizer: ``adamw`` or ``sgd`` (with momentum 0.9).
    """

    width: int = 64
    batch_size: int = 32
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        for name in ("width", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                problem = f"{name} must be a whole number above zero"
                raise PlanError(problem, place="digits", value=value)
        if self.optimizer not in ("adamw", "sgd"):
            remedy = "Choose 'adamw' or 'sgd'"
            raise PlanError(
                "unknown optimizer", place="digits", value=self.optimizer, remedy=remedy
            )

    @property
    def default_peak(self) -> float:
        """The peak learning rate of the default arms."""
        return 0.01 if self.optimizer == "adamw" else 0.1

    def digest(self) -> str:
        """Covers the images and their labels."""
        images, labels = _images()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def describe(self) -> dict[str, str]:
        """What a reader of the report wants to know, as label and text."""
        return {
            "Model": f"two-layer network with {self.width} hidden units",
            "Batch": f"{self.batch_size} images",
            "Optimizer": self.optimizer,
            "Data": "scikit-learn's digits: 1438 images to train on, 359 others to validate on",
            "Data digest": self.digest(),
        }

    def build(self, seed: int) -> DigitsTask:
        """A new model and its data order, both determined by ``seed``."""
        return DigitsTask(self, seed)


class DigitsTask:
    """The digits workload for one seed. See :class:`trainplan.lab.Task`."""

    knobs = ("batch_size",)

    def __init__(self, settings: Digits, seed: int) -> None:
        require("torch", extra="lab")
        import torch

        images, labels = _images()
        # The split is the same for all seeds: a seed changes the model and the order alone.
        order = np.random.default_rng(0).permutation(len(images))
        held_out = len(images) // 5
        to_tensor = torch.as_tensor
        self._validation = (
            to_tensor(images[order[:held_out]]),
            to_tensor(labels[order[:held_out]]),
        )
        self._train = (to_tensor(images[order[held_out:]]), to_tensor(labels[order[held_out:]]))
        self.seed = seed
        self.batch_size = settings.batch_size
        torch.manual_seed(seed)
        self.model: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(64, settings.width),
            torch.nn.ReLU(),
            torch.nn.Linear(settings.width, 10),
        )
        peak = settings.default_peak
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(self.model.parameters(), lr=peak)
            if settings.optimizer == "adamw"
            else torch.optim.SGD(self.model.parameters(), lr=peak, momentum=0.9)
        )

    @property
    def tokens_per_batch(self) -> int:
        """Images per step."""
        return self.batch_size

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take the plan's batch size."""
        self.batch_size = max(1, round(values.get("batch_size", self.batch_size)))

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (batch_size, 64) and labels (batch_size,), drawn with replacement."""
        import torch

        images, labels = self._train
        random = np.random.default_rng((self.seed, step))
        chosen = torch.from_numpy(random.integers(len(images), size=self.batch_size))
        return images[chosen], labels[chosen]

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        import torch

        images, labels = batch
        return torch.nn.functional.cross_entropy(self.model(images), labels)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy in nats and the share of correct answers on the held-out images."""
        import torch

        images, labels = self._validation
        with torch.no_grad():
            logits = self.model(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            accuracy = (logits.argmax(-1) == labels).float().mean()
        return {"loss": loss.item(), "accuracy": accuracy.item()}


@lru_cache(maxsize=1)
def _images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = require("sklearn.datasets", extra="lab").load_digits()
    return (data.data / 16.0).astype(np.float32), data.target.astype(np.int64)
