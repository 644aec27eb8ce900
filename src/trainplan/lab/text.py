"""The ``text`` workload: a byte-level language model on Python's standard library.

Small enough that thirty runs end within minutes on two CPU cores, and real enough (code and
English, a validation split by file, AdamW with clipping) that learning-rate schedules differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.lab.corpus import standard_library
from trainplan.lab.workload import require_installed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Text:
    """A byte-level decoder-only transformer on the standard library's sources and topic pages.

    Attributes:
        width: Size of the residual stream.
        layers: Number of blocks.
        heads: Number of attention heads.
        context: Bytes per training sequence.
        batch_size: Sequences per step; also a knob of the plan.
        validation_sequences: Sequences of the validation part, at even distances, that
            ``evaluate`` reads.
        weight_decay: AdamW's decay of the matrices, unless the plan sets it.
        max_grad_norm: Length to which gradients are clipped.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 64
    batch_size: int = 16
    validation_sequences: int = 256
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0

    # A pilot over 2e-3 to 1.6e-2 (seeds 1000 and 1001, 800 steps) found constant best at 2e-3, REX
    # and WSD at 4e-3, and cosine at 8e-3: one peak for all is a compromise, and --tune-peak is not.
    default_peak = 4e-3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name not in ("weight_decay", "max_grad_norm")
            if isinstance(value, bool) or (whole and not isinstance(value, int)) or value <= 0:
                kind = "a whole number" if whole else "a number"
                raise PlanError(f"{name} must be {kind} above zero", place="text", value=value)
        if self.width % self.heads:
            remedy = f"Choose a multiple of heads={self.heads}"
            raise PlanError("width does not divide", place="text", value=self.width, remedy=remedy)

    def digest(self) -> str:
        """Covers the corpus of this machine and the code of the model."""
        require_installed("torch", extra="lab")
        model = resources.files("trainplan.models").joinpath("decoder.py").read_bytes()
        code = hashlib.sha256(model).hexdigest()
        return f"{standard_library().digest} {code}"

    def describe(self) -> dict[str, str]:
        """What a reader of the report wants to know, as label and text."""
        corpus = standard_library()
        return {
            "Model": f"byte-level decoder, {self.layers} layers of width {self.width}, "
            f"{self.heads} heads, context {self.context}",
            "Batch": f"{self.batch_size} sequences, {self.batch_size * self.context} bytes",
            "Optimizer": f"AdamW (0.9, 0.95), weight decay {self.weight_decay} on matrices, "
            f"gradients clipped at {self.max_grad_norm}",
            "Corpus": f"{corpus.documents[0]} files and pages ({len(corpus.train) / 1e6:.1f} MB) "
            f"to train on, {corpus.documents[1]} others ({len(corpus.validation) / 1e6:.1f} MB) "
            "to validate on",
            "Corpus digest": corpus.digest,
        }

    def build(self, seed: int) -> TextTask:
        """A new model and its data order, both determined by ``seed``."""
        return TextTask(self, seed)


class TextTask:
    """The text workload for one seed. See :class:`trainplan.lab.Task`."""

    knobs = ("batch_size",)

    def __init__(self, settings: Text, seed: int) -> None:
        require("torch", extra="lab")
        import torch

        from trainplan.models.decoder import Decoder

        corpus = standard_library()
        self.settings = settings
        self.seed = seed
        self.batch_size = settings.batch_size
        self.max_grad_norm = settings.max_grad_norm
        self._train = corpus.train
        self._validation = _even_windows(
            corpus.validation, settings.validation_sequences, settings.context + 1
        )
        torch.manual_seed(seed)
        self.model: torch.nn.Module = Decoder(
            vocabulary=256,
            context=settings.context,
            width=settings.width,
            layers=settings.layers,
            heads=settings.heads,
        )
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.model.parameter_groups(settings.weight_decay),
            lr=settings.default_peak,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.95),
            fused=True,  # one kernel over all parameters: less overhead on the CPU as well
        )

    @property
    def tokens_per_batch(self) -> int:
        """Bytes that one step predicts."""
        return self.batch_size * self.settings.context

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take the plan's batch size."""
        self.batch_size = max(1, round(values.get("batch_size", self.batch_size)))

    def batch(self, step: int) -> torch.Tensor:
        """Sequences (batch_size, context + 1) at random places of the corpus."""
        window = self.settings.context + 1
        random = np.random.default_rng((self.seed, step))
        # Drawn one after the other, so that a larger batch begins with the smaller one.
        starts = random.integers(len(self._train) - window + 1, size=self.batch_size)
        return _as_tensor(self._train[starts[:, None] + np.arange(window)])

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats per byte."""
        from trainplan.models.decoder import next_token_loss

        return next_token_loss(self.model, batch)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy in nats per byte, and the same in bits, on fixed validation sequences."""
        import torch

        self.model.eval()
        total = 0.0
        with torch.no_grad():
            for rows in np.array_split(self._validation, -(-len(self._validation) // 32)):
                total += self.loss(_as_tensor(rows)).item() * len(rows)
        self.model.train()
        loss = total / len(self._validation)
        return {"loss": loss, "bits_per_byte": loss / float(np.log(2))}


def _even_windows(text: NDArray[np.uint8], count: int, window: int) -> NDArray[np.uint8]:
    """``count`` windows (count, window) that start at even distances over ``text``."""
    if len(text) < window:
        raise PlanError(
            f"the validation text has {len(text)} bytes", place="text.context", value=window - 1
        )
    starts = np.linspace(0, len(text) - window, count).astype(np.int64)
    windows: NDArray[np.uint8] = text[starts[:, None] + np.arange(window)]
    return windows


def _as_tensor(rows: NDArray[np.uint8]) -> torch.Tensor:
    import torch

    return torch.from_numpy(rows.astype(np.int64))
