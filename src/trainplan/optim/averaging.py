"""Average the last checkpoints of a run, instead of letting the learning rate decay.

At a high rate the weights wander around the valley's floor; their average is close to it, and the
last data still move the weights. Luo et al., 2025, "How Learning Rate Decay Wastes Your Best Data
in Curriculum-Based LLM Pretraining", arXiv 2511.18903: simple, weighted and exponential averages of
the last six checkpoints. Averaging removes noise and adds lag: where there is little noise the last
weights alone are better.

Evaluate the average, but go on training from the weights. Statistics of batch norm are averaged
like weights, which is wrong: recompute them (``torch.optim.swa_utils.update_bn``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["sma", "wma", "ema", "normalised_ema"]
KINDS = ("sma", "wma", "ema", "normalised_ema")


def averaging_weights(
    kind: Kind, n: int, *, alpha: float = 0.2, weights: Sequence[float] | None = None
) -> npt.NDArray[np.float64]:
    """The weight of each of ``n`` checkpoints, oldest first; together 1.

    ``sma`` weighs all alike, ``wma`` as given. ``ema`` is the paper's recursion M = c_1, then
    M = alpha c_i + (1 - alpha) M; as it starts from the oldest checkpoint, that one keeps
    (1 - alpha)^(n - 1), often the largest weight of all. ``normalised_ema`` is without this
    peculiarity: weights in proportion to (1 - alpha)^(n - i).

    Args:
        kind: See above.
        n: Number of checkpoints.
        alpha: In (0, 1]; weight of the newest in each step of the recursion.
        weights: For ``wma``: one number per checkpoint, oldest first; normalised.

    >>> averaging_weights("ema", 4).round(3).tolist()
    [0.512, 0.128, 0.16, 0.2]
    >>> averaging_weights("normalised_ema", 4).round(3).tolist()
    [0.173, 0.217, 0.271, 0.339]
    """
    number = count(n, "n")
    if kind not in KINDS:
        raise PlanError("unknown average", place="kind", value=kind, remedy=nearest(kind, KINDS))
    if (weights is not None) != (kind == "wma"):
        raise PlanError("weights belong to wma, and it needs them", place="weights", value=weights)
    if kind == "sma":
        return np.full(number, 1 / number)
    if weights is not None:
        raw = np.asarray([finite(w, f"weights[{i}]") for i, w in enumerate(weights)])
        if raw.size != number or (raw < 0).any() or not raw.any():
            raise PlanError(
                f"needs {number} weights that are not below zero", place="weights", value=weights
            )
        return np.asarray(raw / raw.sum(), dtype=np.float64)
    share = finite(alpha, "alpha")
    if not 0 < share <= 1:
        raise PlanError("alpha must lie in (0, 1]", place="alpha", value=alpha)
    fading = (1 - share) ** np.arange(number - 1, -1, -1.0)
    if kind == "normalised_ema":
        return np.asarray(fading / fading.sum(), dtype=np.float64)
    return np.concatenate([fading[:1], share * fading[1:]])


class CheckpointAverager:
    """Keeps the last ``n`` checkpoints on the CPU and averages them on demand.

    Push a state dict at fixed intervals, 1.5 to 2 % of the run say; intervals and the number are
    the window that is averaged, so do not begin at step 0. Checkpoints are kept as they are and
    averaged in float32 at least, whatever the model's type. Whole numbers (such as counters of
    batches) are those of the newest checkpoint.

    Args:
        kind: See `averaging_weights`.
        n: How many checkpoints are averaged, the newest ones.
        alpha: For the exponential kinds.
        weights: For ``wma``; with fewer than ``n`` checkpoints the last weights are used.

    >>> import torch
    >>> averager = CheckpointAverager("sma", n=2)
    >>> for value in (1.0, 2.0, 4.0):
    ...     averager.push({"w": torch.tensor([value])})
    >>> averager.result()["w"]
    tensor([3.])
    """

    def __init__(
        self,
        kind: Kind = "sma",
        n: int = 6,
        *,
        alpha: float = 0.2,
        weights: Sequence[float] | None = None,
    ) -> None:
        averaging_weights(kind, n, alpha=alpha, weights=weights)
        self.kind: Kind = kind
        self.n = count(n, "n")
        self.alpha = alpha
        self.weights = None if weights is None else tuple(float(w) for w in weights)
        self._kept: deque[dict[str, Tensor]] = deque(maxlen=self.n)

    def __len__(self) -> int:
        return len(self._kept)

    def push(self, state: Mapping[str, Tensor]) -> None:
        """Take a copy of a model's state as the newest checkpoint.

        Raises:
            PlanError: If it has other tensors than the checkpoints before.
        """
        if self._kept:
            _check_alike(self._kept[-1], state)
        # copy=True: on the CPU .to alone would keep a view of weights that go on changing.
        self._kept.append({name: t.detach().to("cpu", copy=True) for name, t in state.items()})

    def result(self) -> dict[str, Tensor]:
        """The average of the checkpoints kept, for ``model.load_state_dict``.

        Raises:
            PlanError: If none was pushed.
        """
        if not self._kept:
            raise PlanError("there is no checkpoint to average", remedy="Call push first")
        number = len(self._kept)
        given = None if self.weights is None else self.weights[-number:]
        weights = averaging_weights(self.kind, number, alpha=self.alpha, weights=given)
        newest = self._kept[-1]
        return {name: self._average(name, weights) for name in newest}

    def _average(self, name: str, weights: npt.NDArray[np.float64]) -> Tensor:
        import torch

        tensors = [state[name] for state in self._kept]
        newest = tensors[-1]
        if not (newest.is_floating_point() or newest.is_complex()):
            return newest.clone()
        wide = torch.promote_types(newest.dtype, torch.float32)
        total = torch.zeros_like(newest, dtype=wide)
        for weight, tensor in zip(weights.tolist(), tensors, strict=True):
            total.add_(tensor.to(wide), alpha=weight)
        return total

    def state_dict(self) -> dict[str, Any]:
        """The checkpoints kept, oldest first, and the settings; for ``torch.save``."""
        settings = {"kind": self.kind, "n": self.n, "alpha": self.alpha}
        weights = None if self.weights is None else list(self.weights)
        return settings | {"weights": weights, "checkpoints": [dict(state) for state in self._kept]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            PlanError: If it comes from an averager with other settings.
        """
        mine = self.state_dict()
        for name in ("kind", "n", "alpha", "weights"):
            if state.get(name) != mine[name]:
                raise PlanError(
                    f"the saved averager has {name}={state.get(name)!r}",
                    place=name,
                    value=mine[name],
                    remedy="Make this one alike",
                )
        self._kept.clear()
        for checkpoint in state["checkpoints"]:
            self.push(checkpoint)


def _check_alike(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    different = sorted(set(before) ^ set(now))
    if different:
        raise PlanError(
            "the checkpoint has other tensors than those before", place="state", value=different
        )
    for name, tensor in now.items():
        if tensor.shape != before[name].shape:
            raise PlanError(
                f"the tensor had the shape {tuple(before[name].shape)} before",
                place=f"state[{name!r}]",
                value=tuple(tensor.shape),
            )
