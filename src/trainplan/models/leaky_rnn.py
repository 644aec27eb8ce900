"""A recurrent network whose units each learn how fast they forget, with a read-out for every N.

Khajehabdollahi et al., 2023, "Emergent mechanisms for long timescales depend on training curriculum
and affect performance in memory tasks", arXiv 2309.12927.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count, finite

LEAKS = ("inside", "outside")


class LeakyRNN(nn.Module):
    """h_t = f((1 - 1/tau) h_(t-1) + (W h_(t-1) + b + U x_t + c) / tau), with f a leaky ReLU.

    With the leak ``outside``, h_t = (1 - 1/tau) h_(t-1) + f(W h_(t-1) + b + U x_t + c) / tau. The
    diagonal of W is zero, and tau is at least 1 for every unit: below, it has no gradient, and a
    unit whose parameter has fallen under 1 stays there.

    Args:
        inputs: Features per time step.
        hidden: Units.
        heads: Names of the read-outs, such as the N that will ever be trained.
        classes: Outputs of a read-out.
        leak: ``inside`` or ``outside``.
        tau: Time constants begin evenly between tau and tau + 1.
        train_tau: Whether they are learned.
        rescale: Factor on tau, for inputs whose every step is repeated so many times.

    >>> model = LeakyRNN(hidden=8, heads=[2, 3])
    >>> logits = model(torch.zeros(5, 4, 1), heads=[2])
    >>> list(logits), tuple(logits[2].shape)
    ([2], (4, 2))
    """

    def __init__(
        self,
        inputs: int = 1,
        hidden: int = 500,
        heads: Sequence[int] = tuple(range(2, 102)),
        *,
        classes: int = 2,
        leak: str = "inside",
        tau: float = 1.0,
        train_tau: bool = True,
        rescale: float = 1.0,
    ) -> None:
        super().__init__()
        if leak not in LEAKS:
            raise PlanError("unknown", place="leak", value=leak, remedy=nearest(leak, LEAKS))
        units = count(hidden, "hidden")
        self.leak, self.rescale = leak, finite(rescale, "rescale")
        self.input = nn.Linear(count(inputs, "inputs"), units)
        self.recurrent = nn.Linear(units, units)
        self.tau = nn.Parameter(finite(tau, "tau") + torch.rand(units), requires_grad=train_tau)
        self.readouts = nn.ModuleDict({str(name): nn.Linear(units, classes) for name in heads})
        self.off_diagonal: Tensor
        self.register_buffer("off_diagonal", 1 - torch.eye(units), persistent=False)

    def time_constants(self) -> Tensor:
        """(H,) tau as it is used: rescaled, and at least 1."""
        return (self.tau * self.rescale).clamp(min=1.0)

    def start(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, H) a state to begin with: noise between 0 and 0.1.

        Args:
            batch: B.
            generator: Of the noise, on the CPU; PyTorch's own by default. Seed one with the step
                where a run has to be resumed exactly.
        """
        noise = torch.rand(batch, len(self.tau), generator=generator, dtype=self.tau.dtype)
        return 0.1 * noise.to(self.tau.device)

    def states(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """(T + 1, B, H) the state to begin with and those after each step.

        Args:
            x: (T, B, F) inputs.
            h: (B, H) the state to begin with; `start` by default.
        """
        if x.ndim != 3 or x.shape[2] != self.input.in_features:
            remedy = f"Give (T, B, {self.input.in_features})"
            raise PlanError("not a sequence", place="x", value=tuple(x.shape), remedy=remedy)
        h = self.start(x.shape[1]) if h is None else h
        drive = self.input(x) + self.recurrent.bias
        weight = (self.recurrent.weight * self.off_diagonal).T
        rate = 1 / self.time_constants()
        keep, found = 1 - rate, [h]
        for now in drive:
            pulled = now + h @ weight
            if self.leak == "inside":
                h = nn.functional.leaky_relu(keep * h + pulled * rate)
            else:
                h = keep * h + nn.functional.leaky_relu(pulled) * rate
            found.append(h)
        return torch.stack(found)

    def forward(
        self, x: Tensor, heads: Sequence[int] | None = None, h: Tensor | None = None
    ) -> dict[int, Tensor]:
        """(B, C) logits of each read-out from the last state.

        Args:
            x: (T, B, F) inputs.
            heads: Which; all by default.
            h: (B, H) the state to begin with.
        """
        last = self.states(x, h)[-1]
        names = [int(name) for name in self.readouts] if heads is None else heads
        for name in names:
            if str(name) not in self.readouts:
                remedy = nearest(str(name), self.readouts)
                raise PlanError("no such read-out", place="heads", value=name, remedy=remedy)
        return {name: self.readouts[str(name)](last) for name in names}


def summed_loss(logits: Mapping[int, Tensor], labels: Mapping[int, Tensor]) -> Tensor:
    """The sum over read-outs of their mean cross-entropies.

    A sum, not a mean: the step grows with the number of read-outs, up to clipping.

    >>> zeros = torch.zeros(4, 2)
    >>> summed_loss({2: zeros, 3: zeros}, {2: torch.ones(4).long(), 3: torch.ones(4).long()})
    tensor(1.3863)
    """
    losses = [nn.functional.cross_entropy(logits[n], labels[n]) for n in logits]
    return torch.stack(losses).sum()


@torch.no_grad()
def accuracies(logits: Mapping[int, Tensor], labels: Mapping[int, Tensor]) -> dict[int, float]:
    """The share of right answers of each read-out."""
    return {n: float((logits[n].argmax(-1) == labels[n]).float().mean()) for n in logits}
