"""A slow teacher and the loss that makes its student agree with it.

The teacher sees a weakly changed view of unlabelled data and the student a strongly changed one.
Islam et al., 2021, "Dynamic Distillation Network", arXiv 2106.07807, for images; Samarasinghe et
al., 2023, arXiv 2309.03989, for videos.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite


class EmaTeacher(AveragedModel):
    """A copy of the student that follows it: theta_t <- momentum theta_t + (1 - momentum) theta_s.

    Call `update` after every optimizer step. CDFSL-V averages once per epoch: give it the steps of
    one as ``every``. With ``every=1`` the teacher would follow the student as many times faster.
    Buffers are copied, not averaged. Its state dict holds the step count; it has no gradients, and
    does not belong into the optimizer.

    Args:
        student: The model; the teacher begins as a copy of it.
        momentum: In [0, 1).
        every: Steps between two averages.

    Raises:
        PlanError: If a number is out of its range.

    >>> student = nn.Linear(1, 1, bias=False)
    >>> teacher = EmaTeacher(student, momentum=0.75, every=2)
    >>> _ = nn.init.constant_(student.weight, 4.0), nn.init.zeros_(teacher.module.weight)
    >>> for _ in range(4):
    ...     teacher.update(student)
    >>> teacher.module.weight.item()
    1.75
    """

    def __init__(self, student: nn.Module, momentum: float = 0.99, *, every: int = 1) -> None:
        share = finite(momentum, "momentum")
        if not 0 <= share < 1:
            raise PlanError(
                "must lie in [0, 1)", place="momentum", value=momentum, remedy="Write 0.99"
            )
        average = get_ema_multi_avg_fn(share)  # type: ignore[no-untyped-call]
        super().__init__(student, multi_avg_fn=average)
        self.every = count(every, "every")
        self.n_averaged.fill_(1)  # at 0 the first update would copy the student once more
        self.steps: Tensor
        self.register_buffer("steps", torch.tensor(0, device=self.n_averaged.device))
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the teacher says, without a gradient."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Count a step of the student, and average if it is time."""
        self.steps += 1
        if int(self.steps) % self.every == 0:
            self.update_parameters(student)


def consistency_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean cross-entropy of the student with the sharpened teacher, in nats.

    The teacher's logits are divided by the temperature, the student's are not; there is no gradient
    through the teacher.

    Args:
        student: (N, C) logits of strongly changed views.
        teacher: (N, C) logits of weakly changed views of the same examples, over the same classes.
        temperature: Above 0; below 1 sharpens.

    Raises:
        PlanError: If the shapes differ or the temperature is not above 0.

    >>> student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.5, 0.1, 0.0]])
    >>> round(consistency_loss(student, teacher).item(), 4)
    0.4386
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise PlanError(
            "student and teacher must have one shape (N, C)",
            place="teacher",
            value=(tuple(student.shape), tuple(teacher.shape)),
        )
    if finite(temperature, "temperature") <= 0:
        raise PlanError("must be above 0", place="temperature", value=temperature)
    targets = (teacher.detach() / temperature).softmax(dim=1)
    return nn.functional.cross_entropy(student, targets)


def replace_nan(x: Tensor) -> Tensor:
    """With the mean of all finite numbers in place of those that are none.

    The authors do it with videos and with logits. Broken frames are a reason; logits that are no
    numbers mean that training has diverged, which this hides.

    >>> replace_nan(torch.tensor([1.0, torch.nan, 3.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    return torch.where(x.isnan(), x[x.isfinite()].mean(), x)
