"""The objective of direct preference optimisation, on sums of log-probabilities.

Rafailov et al., 2023, "Direct Preference Optimization", arXiv 2305.18290; with label smoothing, and
beside the likelihood of the chosen answer (Pang et al., 2024, arXiv 2404.19733).
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from trainplan.errors import PlanError


def preference_loss(
    policy_B2: torch.Tensor,
    reference_B2: torch.Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    lengths_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B,) loss of each pair: -log sigmoid(beta * margin), on sums over tokens, not means.

    Args:
        policy_B2: (B, 2) log-probabilities of the chosen and the rejected answer.
        reference_B2: (B, 2) those of the reference model.
        beta: Pull to the reference.
        label_smoothing: Share of pairs that are taken to be the wrong way round.
        rpo_alpha: Weight of the chosen answer's mean negative log-likelihood.
        lengths_B: (B,) tokens of the chosen answer, for ``rpo_alpha``.

    Raises:
        PlanError: If there are no lengths and they are needed.

    >>> preference_loss(torch.tensor([[-4.0, -4.0]]), torch.tensor([[-4.0, -4.0]])).tolist()
    [0.6931471824645996]
    """
    ratio_B2 = policy_B2 - reference_B2
    margin = beta * (ratio_B2[:, 0] - ratio_B2[:, 1])
    loss = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    if not rpo_alpha:
        return loss
    if lengths_B is None:
        remedy = "Give the number of tokens of each chosen answer"
        raise PlanError("missing", place="lengths_B", value=None, remedy=remedy)
    return loss - rpo_alpha * policy_B2[:, 0] / lengths_B


def answer_log_probability(logits_BTV: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """(B,) log-probability of the answers: the sum over tokens whose label is not -100.

    Args:
        logits_BTV: (B, T, V) for the token after each position.
        labels_BT: (B, T) not shifted.

    >>> answer_log_probability(torch.zeros(1, 3, 2), torch.tensor([[-100, 1, 0]])).tolist()
    [-1.3862943649291992]
    """
    logs, labels = logits_BTV[:, :-1].log_softmax(dim=2), labels_BT[:, 1:]
    counted = labels >= 0
    found = logs.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
    return (found * counted).sum(dim=1)
