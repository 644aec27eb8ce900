"""A decoder that writes a number as tokens, its loss, and the amount that is read off it.

Ma et al., 2024, "Generative Regression Based Watch Time Prediction for Short-Video
Recommendation", arXiv 2412.20211. Tokens are those of a
`trainplan.data.generative_regression.QuantileVocabulary`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainplan.data.generative_regression import END, PAD, START
from trainplan.data.two_pass import Decode
from trainplan.errors import PlanError
from trainplan.schedules.values import count


def windowed_amounts(
    logits: Tensor, values: Tensor, window: int = 20, mask: Tensor | None = None
) -> Tensor:
    """The expected amount of each step, from the tokens around the likeliest one.

    Probabilities are not made to sum to 1 within the window; the special tokens lie in it and are
    worth nothing, so a likely end makes an amount smaller.

    Args:
        logits: (..., T, V) scores.
        values: (V,) worth of each id.
        window: Half of it lies on each side, and the likeliest id between: 21 ids for 20.
        mask: (..., T) which steps count.

    Returns:
        (..., T), in the unit of the values.

    >>> scores = torch.tensor([[[0.0, 0.0, 0.0, 9.0]]])
    >>> windowed_amounts(scores, torch.tensor([0.0, 0.0, 0.0, 5.0]), window=0).round(decimals=2)
    tensor([[5.]])
    """
    if logits.shape[-1] != len(values):
        value = [logits.shape[-1], len(values)]
        raise PlanError("not one value for each id", place="values", value=value)
    half = count(window, "window", least=0) // 2
    ids = torch.arange(len(values), device=logits.device)
    near = (ids - logits.argmax(-1, keepdim=True)).abs() <= half
    worth = values.to(logits.dtype)
    amounts = (torch.softmax(logits, -1) * near) @ worth
    return amounts if mask is None else amounts * mask


class AmountLoss(NamedTuple):
    """Loss of a batch, summed over it: of the tokens, of the amounts, and both weighted."""

    total: Tensor
    tokens: Tensor
    amounts: Tensor


def amount_loss(
    logits: Tensor,
    targets: Tensor,
    amounts: Tensor,
    values: Tensor,
    *,
    window: int = 20,
    token_weight: float = 10.0,
    amount_weight: float = 1.0,
    delta: float = 1.0,
    ignored: int = PAD,
) -> AmountLoss:
    """Cross-entropy of the tokens and Huber loss of the amount, both summed over the batch.

    Sums grow with the batch: the authors' rate of 5e-4 belongs to batches of 512.

    Args:
        logits: (B, T, V) scores of the targets.
        targets: (B, T) true next ids, the end among them.
        amounts: (B,) true numbers.
        values: (V,) worth of each id, in the unit of the amounts.
        window: See `windowed_amounts`.
        token_weight: On the cross-entropy.
        amount_weight: On the Huber loss.
        delta: Where the Huber loss turns from a square to a line.
        ignored: Targets that are none: padding, or -100 for labels of Transformers.
    """
    mask = targets != ignored
    tokens = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="sum"
    )
    found = windowed_amounts(logits, values, window, mask).sum(-1)
    error = functional.huber_loss(found, amounts.to(found.dtype), reduction="sum", delta=delta)
    return AmountLoss(token_weight * tokens + amount_weight * error, tokens, error)


@torch.no_grad()
def written_amounts(
    decode: Decode,
    embedding: Tensor,
    number: int,
    values: Tensor,
    *,
    most: int = 19,
    window: int = 20,
    mixup: bool = True,
) -> Tensor:
    """The numbers (B,) that a decoder writes on its own; call it in evaluation mode.

    Args:
        decode: Maps embeddings (B, T, D) of what was written to scores (B, T, V).
        embedding: (V, D) its table.
        number: B.
        values: (V,) worth of each id.
        most: Longest answer in tokens, with the end.
        window: See `windowed_amounts`.
        mixup: Whether it reads means of embeddings, as it was trained to, or the likeliest tokens.

    >>> after = torch.eye(6)[[0, 3, 0, 4, 2, 0]] * 99.0  # the start is followed by 3, 4 and the end
    >>> decode = lambda inputs: inputs @ after
    >>> written_amounts(decode, torch.eye(6), 1, torch.tensor([0.0, 0, 0, 50, 7, 1]), window=0)
    tensor([57.])
    """
    count(most, "most")
    start = torch.full((number, 1), START, device=embedding.device)
    inputs = embedding[start]
    total = inputs.new_zeros(number)
    ended = torch.zeros(number, dtype=torch.bool, device=embedding.device)
    for _ in range(most):
        last = decode(inputs)[:, -1:]
        total = total + windowed_amounts(last, values, window)[:, 0] * ~ended
        ended |= last[:, 0].argmax(-1) == END
        if bool(ended.all()):
            break
        own = torch.softmax(last, -1) @ embedding if mixup else embedding[last.argmax(-1)]
        inputs = torch.cat([inputs, own], dim=1)
    return total


class TokenRegressor(nn.Module):
    """A transformer decoder over one vector of features, without positions.

    As in the authors' code: what was written before is a set, and its order is always the same.

    Args:
        features: Module from features to (B, width).
        tokens: Size of the vocabulary.
        width: Of embeddings; a multiple of ``heads``.
        layers: Of the decoder.
        heads: Of attention.
        hidden: Units of the feed-forward parts.
        dropout: In [0, 1).

    >>> model = TokenRegressor(nn.Identity(), tokens=6, width=8, layers=1, heads=2, hidden=16)
    >>> memory = model.features(torch.zeros(2, 8))
    >>> model.decode(model.embedding.weight[torch.ones(2, 3, dtype=torch.long)], memory).shape
    torch.Size([2, 3, 6])
    """

    def __init__(
        self,
        features: nn.Module,
        tokens: int,
        width: int = 128,
        layers: int = 3,
        heads: int = 8,
        hidden: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise PlanError("not a multiple of heads", place="width", value=[width, heads])
        self.features = features
        self.embedding = nn.Embedding(count(tokens, "tokens", least=4), width)
        layer = nn.TransformerDecoderLayer(width, heads, hidden, dropout, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, count(layers, "layers"))
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, tokens)

    def decode(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """Scores (B, T, V) of each position's next token.

        Args:
            inputs: (B, T, width) embeddings of what was written before.
            memory: (B, width) what the features became.
        """
        length = inputs.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        read = self.decoder(self.drop(inputs), memory[:, None], tgt_mask=later)
        scores: Tensor = self.head(read)
        return scores

    @torch.no_grad()
    def predict(
        self,
        features: Tensor,
        values: Tensor,
        *,
        most: int = 19,
        window: int = 20,
        mixup: bool = True,
    ) -> Tensor:
        """The numbers (B,) that the model writes on its own; call it in evaluation mode.

        Args:
            features: Of B examples.
            values: (V,) worth of each id.
            most: Longest answer in tokens, with the end.
            window: See `windowed_amounts`.
            mixup: Whether it reads means of embeddings, as it was trained to, or the likeliest
                tokens.
        """
        memory = self.features(features)
        return written_amounts(
            lambda inputs: self.decode(inputs, memory),
            self.embedding.weight,
            len(memory),
            values,
            most=most,
            window=window,
            mixup=mixup,
        )
