"""A gate between low-rank experts, decided once for a sequence.

SteloCoder (Pan et al., 2023, arXiv 2310.15539): one linear score for each expert and token, the
largest over the tokens, and a softmax over experts. While the gate trains the experts are averaged;
afterwards the likeliest is used alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError
from trainplan.schedules.values import count


class ExpertGate(nn.Module):
    """Weights of the experts for each sequence.

    Args:
        width: D, of the embeddings of tokens and positions: what the first layer reads.
        experts: E.
        mask_padding: Whether padding is left out of the largest score. The authors' code keeps it
            in.

    >>> gate = ExpertGate(width=4, experts=3)
    >>> gate(torch.zeros(2, 5, 4)).tolist()[0]
    [0.3333333432674408, 0.3333333432674408, 0.3333333432674408]
    """

    def __init__(self, width: int, experts: int, *, mask_padding: bool = True) -> None:
        super().__init__()
        shape = count(experts, "experts"), count(width, "width")
        self.weight = nn.Parameter(torch.empty(shape).normal_(std=0.02))
        self.mask_padding = mask_padding

    def scores(self, embeddings_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """(B, E) the largest score over the tokens that are not padding.

        Args:
            embeddings_BTD: (B, T, D).
            mask_BT: (B, T) 0 at padding; None if there is none.

        Raises:
            PlanError: If a sequence has nothing but padding.
        """
        scores_BTE = embeddings_BTD @ self.weight.T.to(embeddings_BTD.dtype)
        if mask_BT is not None and self.mask_padding:
            kept = mask_BT.bool()
            if not kept.any(dim=1).all():
                remedy = "Leave such sequences out"
                raise PlanError("a sequence is all padding", place="mask_BT", remedy=remedy)
            scores_BTE = scores_BTE.masked_fill(~kept[:, :, None], -torch.inf)
        return scores_BTE.amax(dim=1)

    def forward(self, embeddings_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """(B, E) weights: averaging in training mode, one expert in evaluation mode."""
        scores_BE = self.scores(embeddings_BTD, mask_BT)
        return scores_BE.softmax(dim=1) if self.training else choose_expert(scores_BE)


def choose_expert(scores_BE: Tensor) -> Tensor:
    """(B, E) weight 1 for the highest score, the first of equals, and 0 for the others.

    >>> choose_expert(torch.tensor([[0.1, 0.7, 0.7]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    chosen = torch.zeros_like(scores_BE)
    return chosen.scatter_(1, scores_BE.argmax(dim=1, keepdim=True), 1.0)


def lora_mixture(
    x_BTD: Tensor, A_ERD: Tensor, B_EOR: Tensor, weights_BE: Tensor, scale: float
) -> Tensor:
    """(B, T, O) what the experts add to a layer: scale * sum_e weights_e B_e A_e x.

    Args:
        x_BTD: (B, T, D) input of the layer.
        A_ERD: (E, R, D) maps down to the rank.
        B_EOR: (E, O, R) maps up.
        weights_BE: (B, E) from an `ExpertGate`.
        scale: alpha / rank; 8 in the paper.

    >>> one = torch.ones(1, 1, 1)
    >>> lora_mixture(one, one, one, torch.tensor([[0.5]]), scale=8.0).item()
    4.0
    """
    down = torch.einsum("btd,erd,be->bter", x_BTD, A_ERD, weights_BE)
    return scale * torch.einsum("bter,eor->bto", down, B_EOR)


def lora_parameters(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Parameters of one low-rank expert on layers of these shapes, (inputs, outputs).

    >>> lora_parameters([(6144, 6400), (6144, 6144), (24576, 6144)] * 40, rank=4)
    8888320
    """
    return count(rank, "rank") * sum(inputs + outputs for inputs, outputs in shapes)
