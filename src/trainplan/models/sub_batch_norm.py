"""Batch normalisation over parts of a batch, so that statistics stay as noisy as in small batches.

Wu et al., 2020, "A Multigrid Method for Efficiently Training Video Models", arXiv 1912.00998:
where a batch is k times as large, each of k parts is normalised on its own, so that what
normalisation does to training does not change with the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainplan.errors import PlanError
from trainplan.schedules.values import count

_PARTS = ("split_mean", "split_var")


class SubBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `SubBatchNorm1d`, `SubBatchNorm2d` and `SubBatchNorm3d` do with (N, C, ...).

    Example i of a batch is in part ``i % splits``. In evaluation all parts' statistics count as
    those of one batch; they are gathered on ``eval()`` and when the state is taken, which
    ordinary batch normalisation can load (with ``strict=False``), and the other way round.

    Args:
        num_features: Channels C of (N, C, ...).
        splits: Number of parts, of which N must be a multiple while training.
        eps: Added to the variance.
        momentum: Of the running statistics; None averages over all batches.
        affine: Whether to learn a scale and a shift for each channel, which the parts share.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    split_mean: Tensor
    split_var: Tensor

    def __init__(
        self,
        num_features: int,
        splits: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine)
        self.splits = count(splits, "splits")
        self.register_buffer("split_mean", self.running_mean.repeat(self.splits))
        self.register_buffer("split_var", self.running_var.repeat(self.splits))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...).

        Raises:
            PlanError: If N is no multiple of the number of parts while training.
        """
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        examples, channels = x.shape[:2]
        if examples % self.splits:
            raise PlanError(
                f"{examples} examples are not {self.splits} equal parts",
                place="splits",
                value=self.splits,
                remedy="Drop the last batch if it is not full, or give fewer splits",
            )
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
        parts = x.reshape(examples // self.splits, channels * self.splits, *x.shape[2:])
        normal = functional.batch_norm(
            parts, self.split_mean, self.split_var, None, None, True, momentum, self.eps
        ).reshape(x.shape)
        if not self.affine:
            return normal
        each = (1, channels) + (1,) * (x.ndim - 2)
        return normal * self.weight.view(each) + self.bias.view(each)

    @torch.no_grad()
    def aggregate(self) -> None:
        """Gather the parts' running statistics into those of evaluation."""
        means = self.split_mean.view(self.splits, -1)
        mean = means.mean(0)
        variance = self.split_var.view(self.splits, -1).mean(0) + (means - mean).square().mean(0)
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)

    def set_splits(self, splits: int) -> None:
        """Go on with another number of parts, each with the gathered statistics."""
        if count(splits, "splits") == self.splits:
            return
        self.aggregate()
        self._spread(splits)

    def _spread(self, splits: int) -> None:
        self.splits = splits
        self.split_mean = self.running_mean.repeat(splits)
        self.split_var = self.running_var.repeat(splits)

    def train(self, mode: bool = True) -> SubBatchNorm:
        """Train, or gather the statistics and evaluate."""
        if self.training and not mode:
            self.aggregate()
        super().train(mode)
        return self

    def reset_running_stats(self) -> None:
        """Forget all statistics, as ``torch.optim.swa_utils.update_bn`` does."""
        super().reset_running_stats()
        if hasattr(self, "split_mean"):
            self._spread(self.splits)

    def _save_to_state_dict(self, *arguments: Any, **options: Any) -> None:
        if self.training:
            self.aggregate()
        super()._save_to_state_dict(*arguments, **options)

    def _load_from_state_dict(self, state: Any, prefix: str, *arguments: Any) -> None:
        # A state with another number of parts, or of ordinary batch normalisation.
        sized = state.get(prefix + "split_mean")
        if sized is not None and sized.numel() != self.split_mean.numel():
            self._spread(sized.numel() // self.num_features)
        for name in _PARTS:
            plain = state.get(prefix + name.replace("split", "running"))
            if sized is None and plain is not None:
                state[prefix + name] = plain.repeat(self.splits)
        super()._load_from_state_dict(state, prefix, *arguments)

    def extra_repr(self) -> str:
        """What it is, with the number of parts."""
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, splits={self.splits}"


class SubBatchNorm1d(SubBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over parts of a batch; see `SubBatchNorm`."""


class SubBatchNorm2d(SubBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over parts of a batch; see `SubBatchNorm`."""


class SubBatchNorm3d(SubBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` over parts of a batch; see `SubBatchNorm`."""


_KINDS: dict[type[nn.Module], type[SubBatchNorm]] = {
    nn.BatchNorm1d: SubBatchNorm1d,
    nn.BatchNorm2d: SubBatchNorm2d,
    nn.BatchNorm3d: SubBatchNorm3d,
}


def split_batch_norms(model: nn.Module, splits: int) -> nn.Module:
    """Have every batch normalisation of a model take a batch in so many parts.

    Ordinary ones are replaced in place, with their parameters and statistics; make the optimizer
    afterwards, or before: the parameters stay the same objects. Call it again when the number of
    parts changes.

    Args:
        model: With ``torch.nn.BatchNorm1d``, ``2d`` or ``3d``; others are left alone.
        splits: Number of parts.

    Returns:
        The model, or what replaces it if it is a batch normalisation itself.

    >>> model = split_batch_norms(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 4)
    >>> type(model[1]).__name__, split_batch_norms(model, 2)[1].splits
    ('SubBatchNorm2d', 2)
    """
    if isinstance(model, SubBatchNorm):
        model.set_splits(splits)
        return model
    kind = _KINDS.get(type(model))
    if kind is not None and getattr(model, "track_running_stats", False):
        return _converted(model, kind, splits)
    for name, child in model.named_children():
        replaced = split_batch_norms(child, splits)
        if replaced is not child:
            setattr(model, name, replaced)
    return model


def _converted(layer: Any, kind: type[SubBatchNorm], splits: int) -> SubBatchNorm:
    new = kind(layer.num_features, splits, layer.eps, layer.momentum, layer.affine)
    new.to(layer.running_mean)
    new.load_state_dict(layer.state_dict())
    new.weight, new.bias = layer.weight, layer.bias
    new.training = layer.training
    return new
