"""Feed a decoder its own predictions in a second pass, instead of ever more of the true tokens.

The first pass reads the true tokens. In the inputs of the second, a token is true with a
probability that falls over training; otherwise it is what the first pass predicts for its place, as
a token or as a mean of embeddings weighted by probabilities. The loss is that of the second pass,
and targets are always true. Two passes for Transformers are of Mihaylova and Martins, 2019,
"Scheduled Sampling for Transformers"; the means of embeddings under a falling probability are the
curriculum of Ma et al., 2024, arXiv 2412.20211.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainplan.data.forcing import resolved_share
from trainplan.data.hashing import checked_seed, fingerprint
from trainplan.data.self_tokens import mix_context
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule

Decode = Callable[[Tensor], Tensor]
"""Maps embeddings of inputs (B, T, D) to scores (B, T, V) of each position's next token."""


def mix_decoder_inputs(
    first: Tensor,
    ids: Tensor,
    ratio: float,
    u: Tensor,
    embedding: Tensor | None = None,
    *,
    mixup: bool = True,
) -> Tensor:
    """Inputs of the second pass: the own prediction wherever u is above the ratio.

    Args:
        first: (B, T, V) scores of the first pass, each of its position's next token.
        ids: (B, T) true inputs; the first of each row stays.
        ratio: The probability of a true token, in [0, 1].
        u: (B, T - 1) numbers from [0, 1) for the positions after the first; (1, T - 1) for all rows
            alike, as the authors draw them.
        embedding: (V, D) table of embeddings.
        mixup: Whether the own prediction is the mean of all embeddings, weighted by probabilities,
            through which gradients flow into the first pass; otherwise it is the likeliest token.

    Returns:
        Embeddings (B, T, D); ids (B, T) if there is no table.

    >>> first = torch.eye(4)[[2, 3, 0]][None]
    >>> mix_decoder_inputs(first, torch.tensor([[1, 1, 1]]), 0.5, torch.tensor([[0.7, 0.2]]))
    tensor([[1, 2, 1]])
    """
    if first.shape[:2] != ids.shape or u.shape[-1] != ids.shape[1] - 1:
        value = [tuple(first.shape), tuple(ids.shape), tuple(u.shape)]
        remedy = "Give scores (B, T, V), ids (B, T) and u (B, T - 1)"
        raise PlanError("do not fit together", place="first, ids, u", value=value, remedy=remedy)
    limit = torch.as_tensor(ratio, dtype=u.dtype, device=u.device)
    if embedding is None or not mixup:
        # The ratio is the share of true tokens, so the two change places.
        own = mix_context(ids[:, 1:], first[:, :-1].argmax(-1), limit, u)
        mixed = torch.cat([ids[:, :1], own], dim=1)
        return mixed if embedding is None else embedding[mixed]
    true = embedding[ids]
    means = torch.softmax(first[:, :-1], -1) @ embedding
    return torch.cat([true[:, :1], mix_context(true[:, 1:], means, limit, u[..., None])], dim=1)


class TwoPassSampling:
    """The curriculum from true inputs to own ones, over the updates of a run.

    Draws are a function of the seed, the update and the batch, so there is no state: a resumed run
    draws the same. While the ratio is 1 there is one pass, plain teacher forcing.

    Args:
        ratio: The probability of a true token in [0, 1], as a number or a schedule over updates;
            see `teacher_forcing`. A schedule has to be resolved, as ``plan["ratio"]`` is.
        mixup: See `mix_decoder_inputs`. Without, the first pass needs no gradients.
        seed: Of the draws.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> table = torch.eye(4)
    >>> sampling = TwoPassSampling(0.0, mixup=False)
    >>> after = torch.eye(4)[[1, 2, 3, 0]]
    >>> scores = sampling(lambda inputs: inputs @ after, torch.tensor([[0, 0, 0]]), table, step=0)
    >>> scores.argmax(-1)  # of the inputs 0, 1, 1
    tensor([[1, 2, 2]])
    """

    def __init__(self, ratio: float | Schedule, *, mixup: bool = True, seed: int = 0) -> None:
        self.ratio = resolved_share(ratio, "ratio")
        self.mixup, self.seed = mixup, checked_seed(seed)

    def ratio_at(self, step: int) -> float:
        """The probability of a true token after so many updates."""
        if isinstance(self.ratio, Schedule):
            return float(self.ratio(step))
        return self.ratio

    def __call__(self, decode: Decode, ids: Tensor, embedding: Tensor, step: int) -> Tensor:
        """The scores of the second pass.

        Args:
            decode: The decoder, in training mode.
            ids: (B, T) true inputs, which begin with a start token.
            embedding: (V, D) its table.
            step: Completed updates.

        Returns:
            (B, T, V).
        """
        if self.ratio_at(step) >= 1:
            return decode(embedding[ids])
        with torch.set_grad_enabled(self.mixup and torch.is_grad_enabled()):
            first = decode(embedding[ids])
        return decode(self.inputs(first, ids, embedding, step))

    def inputs(
        self,
        first: Tensor,
        ids: Tensor,
        embedding: Tensor,
        step: int,
        answer: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of the second pass's inputs (B, T, D).

        Args:
            first: (B, T, V) scores of the first pass.
            ids: (B, T) true inputs.
            embedding: (V, D) the decoder's table.
            step: Completed updates.
            answer: (B, T) which inputs may be replaced; by default all but the first.
        """
        random = np.random.default_rng([self.seed, step, fingerprint(ids.cpu().numpy())])
        u = torch.from_numpy(random.random((ids.shape[0], ids.shape[1] - 1))).to(ids.device)
        if answer is not None:
            u = torch.where(answer[:, 1:], u, -1.0)
        return mix_decoder_inputs(first, ids, self.ratio_at(step), u, embedding, mixup=self.mixup)
