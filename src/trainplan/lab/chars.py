"""A character model that trains some thousand steps a second on one core.

Studies of schedules and mixtures need hundreds of short runs. The model predicts a character from
the twelve before it: an embedding, one hidden layer, a softmax (Bengio et al. 2003, JMLR 3). Its
few products are written out with their gradients in place, because at this size automatic
differentiation would take longer than the arithmetic; a test compares the two.

    text = char_text(("prose", "code"))
    model = CharModel(text, seed=0)
    model.train(plan, {"prose": 1.0})        # to the plan's horizon
    trunk = model.snapshot()
    model.train(decay, {"prose": 0.7, "code": 0.3})
    model.losses()                           # {'prose': 1.89, 'code': 3.67}
    model.restore(trunk)                     # another branch

Batches are functions of (seed, step): arms and branches with one seed see the same positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trainplan.errors import PlanError, nearest
from trainplan.lab.domains import CharText
from trainplan.plan import Plan

CONTEXT = 12
_CHUNK = 500
_EVALUATED = 8192

Share = float | Callable[[NDArray[np.float64]], ArrayLike]
"""A domain's share of each batch: a number, or a function of the steps (n,), as schedules are."""


@dataclass(frozen=True)
class Record:
    """What was recorded at every step of a call of `CharModel.train`.

    Attributes:
        losses: Training loss before the update; shape (steps,).
        grad_l2: Length of the gradient; shape (steps,).
        grad_l1: Sum of its absolute values; shape (steps,).
    """

    losses: NDArray[np.float64]
    grad_l2: NDArray[np.float64]
    grad_l1: NDArray[np.float64]


class CharModel:
    """The model with its optimizer (AdamW) and its place in the data.

    Args:
        text: What it reads.
        seed: Of its weights and batches.
        hidden: Width of the hidden layer.
        embedding: Size of a character's embedding.
        batch: Examples per step.
        betas: Of AdamW.
        weight_decay: Of AdamW, multiplied by the rate.

    Attributes:
        step: Completed steps.
        weights: All parameters in one tensor (n,), for averaging over checkpoints.
    """

    def __init__(
        self,
        text: CharText,
        seed: int,
        *,
        hidden: int = 192,
        embedding: int = 16,
        batch: int = 32,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.01,
    ) -> None:
        self.text, self.seed, self.batch, self.step = text, seed, batch, 0
        self.characters = len(text.alphabet)
        V, E, D, H = self.characters, embedding, CONTEXT * embedding, hidden
        self._shapes = ((V, E), (D, H), (H,), (H, V), (V,))
        self._windows = {name: _windows(codes) for name, codes in text.train.items()}
        self._held_out = {name: _windows(codes) for name, codes in text.validation.items()}
        self.weights = _initial(self._shapes, seed)
        self.weights.grad = torch.zeros_like(self.weights)
        self._optimizer = torch.optim.AdamW(
            [self.weights], lr=0.0, betas=betas, weight_decay=weight_decay, fused=True
        )
        self._backward = _Backward(self.weights, self.weights.grad, self._shapes, batch)

    def train(
        self, rates: ArrayLike | Plan, mixture: Mapping[str, Share] | str, *, record: bool = False
    ) -> Record | None:
        """Take one step for each rate.

        Args:
            rates: Learning rates (n,); or a plan, whose remaining steps are trained.
            mixture: The domains' shares, summing to one at each step; or one domain's name.
            record: Return the loss and the gradient's size at each step, at some cost in speed.

        Raises:
            PlanError: If the shares are not shares, or a domain is unknown.
        """
        values = self._rates(rates)
        chosen = {mixture: 1.0} if isinstance(mixture, str) else mixture
        group = self._optimizer.param_groups[0]
        rows: list[tuple[float, float, float]] = []
        end = self.step + len(values)
        with torch.no_grad():
            while self.step < end:
                # Chunks begin at multiples of their length, so that a branch draws what its
                # trunk would have drawn.
                stop = min(end, (self.step // _CHUNK + 1) * _CHUNK)
                inputs, targets = self._draw(self.step, stop, chosen)
                for rate, x, y in zip(values, inputs.unbind(), targets.unbind(), strict=False):
                    group["lr"] = rate
                    self._backward(x, y)
                    if record:
                        rows.append(self._backward.sizes())
                    self._optimizer.step()
                values = values[stop - self.step :]
                self.step = stop
        if not record:
            return None
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return Record(table[:, 0], table[:, 1], table[:, 2])

    def loss(self, domain: str) -> float:
        """Validation loss in nats per character, on a fixed sample; infinite if it diverged."""
        windows = self._held_out[domain]
        sample = windows[torch.linspace(0, len(windows) - 1, _EVALUATED).long()]
        embedding, w1, b1, w2, b2 = _views(self.weights, self._shapes)
        with torch.no_grad():
            x = embedding[sample[:, :CONTEXT]].flatten(1)
            logits = torch.tanh(x @ w1 + b1) @ w2 + b2
            found = torch.nn.functional.cross_entropy(logits, sample[:, CONTEXT]).item()
        return found if math.isfinite(found) else math.inf

    def losses(self) -> dict[str, float]:
        """Validation loss of every domain."""
        return {domain: self.loss(domain) for domain in self._held_out}

    def snapshot(self) -> dict[str, Any]:
        """The whole state: weights, moments, step."""
        moments = self._optimizer.state[self.weights]
        return {
            "step": self.step,
            "weights": self.weights.clone(),
            "moments": {name: value.clone() for name, value in moments.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a snapshot of this model, or of one of the same shape."""
        self.step = state["step"]
        self.weights.copy_(state["weights"])
        moments = {name: value.clone() for name, value in state["moments"].items()}
        self._optimizer.state[self.weights] = moments

    def reset_optimizer(self) -> None:
        """Forget the moments of AdamW."""
        self._optimizer.state.clear()

    def _rates(self, rates: ArrayLike | Plan) -> list[float]:
        if isinstance(rates, Plan):
            _, curve = rates.curve("lr")
            rates = curve[self.step :]
        return np.asarray(rates, dtype=np.float64).tolist()  # type: ignore[no-any-return]

    def _draw(self, start: int, stop: int, mixture: Mapping[str, Share]) -> tuple[Tensor, Tensor]:
        """Inputs (steps, batch * context) and targets (steps, batch) as flat indices."""
        for name in mixture:
            if name not in self._windows:
                remedy = nearest(name, self._windows)
                raise PlanError("no such domain", place="mixture", value=name, remedy=remedy)
        first = start // _CHUNK * _CHUNK
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + first)
        uniform = torch.rand(2, _CHUNK, self.batch, generator=generator, dtype=torch.float64)
        where, which = uniform[:, start - first : stop - first]
        upto = torch.from_numpy(_cumulative(mixture, np.arange(start, stop, dtype=np.float64)))
        domain = (which[..., None] >= upto[:, None, :]).sum(-1).clamp_(max=len(mixture) - 1)
        rows = torch.empty(*where.shape, CONTEXT + 1, dtype=torch.long)
        for number, name in enumerate(mixture):
            windows, here = self._windows[name], domain == number
            rows[here] = windows[(where[here] * len(windows)).long()]
        targets = rows[..., CONTEXT] + torch.arange(self.batch) * self.characters
        return rows[..., :CONTEXT].flatten(1).contiguous(), targets


class _Backward:
    """Loss and gradients of one batch, in buffers that are made once."""

    def __init__(
        self, weights: Tensor, gradient: Tensor, shapes: tuple[tuple[int, ...], ...], batch: int
    ) -> None:
        self.embedding, self.w1, self.b1, self.w2, self.b2 = _views(weights, shapes)
        self.to = _views(gradient, shapes)
        self.gradient = gradient
        (V, E), (D, H) = shapes[0], shapes[1]
        self.x, self.dx = torch.empty(batch, D), torch.empty(batch, D)
        self.h, self.dh, self.slope = (torch.empty(batch, H) for _ in range(3))
        self.p = torch.empty(batch, V)
        self.x_rows, self.dx_rows = self.x.view(-1, E), self.dx.view(-1, E)
        self.p_flat = self.p.view(-1)
        self.minus_one, self.per_example = torch.full((batch,), -1.0), 1.0 / batch
        self.likelihood = torch.empty(batch)

    def __call__(self, characters: Tensor, targets: Tensor) -> None:
        """Set the gradient for inputs (batch * context,) and flat targets (batch,)."""
        embedding, w1, w2 = self.embedding, self.w1, self.w2
        g_embedding, g_w1, g_b1, g_w2, g_b2 = self.to
        torch.index_select(embedding, 0, characters, out=self.x_rows)
        torch.addmm(self.b1, self.x, w1, out=self.h).tanh_()
        torch.addmm(self.b2, self.h, w2, out=self.p)
        torch.softmax(self.p, 1, out=self.p)
        torch.index_select(self.p_flat, 0, targets, out=self.likelihood)
        # d loss / d logits = (softmax - one-hot) / batch
        self.p_flat.index_add_(0, targets, self.minus_one)
        self.p.mul_(self.per_example)
        torch.mm(self.h.t(), self.p, out=g_w2)
        torch.sum(self.p, 0, out=g_b2)
        torch.mm(self.p, w2.t(), out=self.dh)
        torch.mul(self.h, self.h, out=self.slope)
        self.dh.addcmul_(self.dh, self.slope, value=-1)  # d tanh = 1 - tanh^2
        torch.mm(self.x.t(), self.dh, out=g_w1)
        torch.sum(self.dh, 0, out=g_b1)
        torch.mm(self.dh, w1.t(), out=self.dx)
        g_embedding.zero_()
        g_embedding.index_add_(0, characters, self.dx_rows)

    def sizes(self) -> tuple[float, float, float]:
        """Loss of the batch, and the gradient's L2 and L1 norms."""
        loss = -self.likelihood.log().mean().item()
        return loss, self.gradient.norm().item(), self.gradient.abs().sum().item()


def _cumulative(mixture: Mapping[str, Share], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper ends of the domains' parts of [0, 1), shape (steps, domains)."""
    shares = np.stack(
        [
            np.broadcast_to(np.asarray(s(steps) if callable(s) else s, np.float64), steps.shape)
            for s in mixture.values()
        ],
        axis=1,
    )
    if (shares < 0).any() or not np.allclose(shares.sum(axis=1), 1.0):
        remedy = "Give shares that are not negative and sum to one at each step"
        raise PlanError(
            "not shares of a batch", place="mixture", value=dict(mixture), remedy=remedy
        )
    return np.cumsum(shares, axis=1)


def _windows(codes: NDArray[np.int64]) -> Tensor:
    """Every stretch of context and target, as a view (n, context + 1)."""
    return torch.from_numpy(codes).unfold(0, CONTEXT + 1, 1)


def _initial(shapes: tuple[tuple[int, ...], ...], seed: int) -> Tensor:
    """Weights (n,): standard normal embeddings, uniform layers scaled by their inputs."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.empty(sum(math.prod(shape) for shape in shapes))
    embedding, w1, b1, w2, b2 = _views(weights, shapes)
    embedding.normal_(generator=generator)
    for w, b in ((w1, b1), (w2, b2)):
        reach = 1 / math.sqrt(w.shape[0])
        w.uniform_(-reach, reach, generator=generator)
        b.uniform_(-reach, reach, generator=generator)
    return weights


def _views(flat: Tensor, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    parts = torch.split(flat, [math.prod(shape) for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
