"""Learning rates large enough to oscillate, and how to see that they do.

With a rate above a threshold the outputs on samples with a strong feature swing around their
labels instead of converging. On average a residual is left, and it goes on teaching the weak
features that every sample has. Lu, Wu, Yang and Zou, 2023, "Benign Oscillation of Stochastic
Gradient Descent with Large Learning Rates", arXiv 2310.17074. The theory is for a small network
and assumes the oscillation; the monitor and the sharpness are ours.

To oscillate first and anneal then, so that the strong samples are fitted in the end, use a
constant rate above the threshold with a late decay::

    lr = tp.schedules.wsd(rate, warmup=0, decay="30%", shape="cosine", end=0.0)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

if TYPE_CHECKING:
    from torch import Tensor


def oscillation_threshold(width: int, strong_norm: float) -> float:
    """The rate above which the two-layer network of the paper oscillates: m / (2 |u|^2).

    For mean squared-ReLU outputs, the loss (f - y)^2 / 2 and batches of one sample; around 0.8
    m / |u|^2 it diverges. (Without the 1/2 in the loss both are half as large.)

    Args:
        width: Neurons per sign, m.
        strong_norm: Length of the strong feature, |u|, above 0.

    >>> oscillation_threshold(8, 1.0)
    4.0
    """
    return count(width, "width") / (2 * _norm(strong_norm) ** 2)


def strong_feature_multiplier(rate: npt.ArrayLike, width: int, strong_norm: float) -> Any:
    """What one step multiplies a small error of a strong sample by: 1 - 4 rate |u|^2 / m.

    Below -1 the error grows: the output oscillates.

    >>> strong_feature_multiplier(2.0, 8, 1.0)
    0.0
    """
    values = np.asarray(rate, dtype=np.float64)
    result = 1 - 4 * values * _norm(strong_norm) ** 2 / count(width, "width")
    return float(result) if values.ndim == 0 else result


class OscillationMonitor:
    """Watches residuals, sample by sample, for oscillation.

    Push what is left to learn about a sample, such as y f - 1, or the loss minus its mean, each
    time the sample is seen. Over the last ``window`` pushes it knows:

    - ``score``: share of sign changes between consecutive visits of the same sample;
    - ``amplitude``: standard deviation of the residuals;
    - ``drift``: their mean, whose sign and size are what teaches the weak features.

    Args:
        window: How many pushes are remembered.

    >>> monitor = OscillationMonitor(window=100)
    >>> for residual in (0.5, -0.5, 0.5, -0.4):
    ...     monitor.push({"sample 7": residual})
    >>> monitor.score, round(monitor.drift, 3)
    (1.0, 0.025)
    """

    def __init__(self, window: int = 1000) -> None:
        self.window = count(window, "window")
        self._residuals: deque[float] = deque(maxlen=self.window)
        self._changes: deque[bool] = deque(maxlen=self.window)
        self._last: dict[str, float] = {}

    def push(self, residuals: Mapping[Any, float]) -> None:
        """Residuals by sample; what is not finite is an error."""
        for sample, value in residuals.items():
            residual, name = finite(value, f"residuals[{sample!r}]"), str(sample)
            self._residuals.append(residual)
            if name in self._last:
                self._changes.append((residual > 0) != (self._last[name] > 0))
            self._last[name] = residual

    @property
    def score(self) -> float:
        """Share of sign changes, in [0, 1]; NaN before any sample was seen twice."""
        return float(np.mean(self._changes)) if self._changes else float("nan")

    @property
    def amplitude(self) -> float:
        """Standard deviation of the residuals; NaN before the first."""
        return float(np.std(self._residuals)) if self._residuals else float("nan")

    @property
    def drift(self) -> float:
        """Mean of the residuals; NaN before the first."""
        return float(np.mean(self._residuals)) if self._residuals else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The window, as plain numbers and lists."""
        return {
            "window": self.window,
            "residuals": list(self._residuals),
            "changes": [int(change) for change in self._changes],
            "last": dict(self._last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if state["window"] != self.window:
            raise PlanError(
                f"the saved window is {state['window']}", place="window", value=self.window
            )
        self._residuals = deque(map(float, state["residuals"]), maxlen=self.window)
        self._changes = deque(map(bool, state["changes"]), maxlen=self.window)
        self._last = {str(sample): float(value) for sample, value in state["last"].items()}


def sharpness(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int = 30, seed: int = 0
) -> float:
    """The largest curvature of a loss in absolute value, by power iteration.

    Gradient descent at a rate above 2 / sharpness cannot converge where it is.

    Args:
        loss: Computes the loss, twice differentiable, on a fixed batch.
        parameters: What it is a function of.
        steps: Products of the Hessian with a vector.
        seed: Of the first vector.

    >>> import torch
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> round(sharpness(lambda: (3 * w[0] ** 2 + w[1] ** 2) / 2, [w]), 4)
    3.0
    """
    import torch

    wanted = [p for p in parameters if p.requires_grad]
    if not wanted:
        raise PlanError("no parameter requires a gradient", place="parameters")
    gradients = torch.autograd.grad(loss(), wanted, create_graph=True)
    generator = torch.Generator().manual_seed(seed)
    vector = [torch.randn(p.shape, generator=generator).to(p) for p in wanted]
    curvature = 0.0
    for _ in range(count(steps, "steps")):
        size = torch.sqrt(sum((v * v).sum() for v in vector))  # type: ignore[arg-type]
        if not size:
            return 0.0
        vector = [v / size for v in vector]
        product = torch.autograd.grad(gradients, wanted, vector, retain_graph=True)
        curvature = float(sum((v * p).sum() for v, p in zip(vector, product, strict=True)))
        vector = list(product)
    return abs(curvature)


def _norm(value: float) -> float:
    norm = finite(value, "strong_norm")
    if norm <= 0:
        raise PlanError("must be above zero", place="strong_norm", value=value)
    return norm
