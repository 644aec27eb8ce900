"""A small transformer encoder, for masked language modelling.

The layout of ModernBERT (Warner et al., 2024, arXiv 2412.13663) without its long-context parts:
pre-norm residual blocks without biases, rotary positions (Su et al., 2021, arXiv 2104.09864), a
gated network (GeGLU; Shazeer, 2020, arXiv 2002.05202), and an output head tied to the embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it F
from torch import Tensor, nn

from trainplan.errors import PlanError


def rotations(length: int, size: int, base: float = 10_000.0) -> Tensor:
    """The unit complex numbers exp(i t base^(-2j/size)) that encode positions by rotation.

    Args:
        length: Number of positions t.
        size: Size of an attention head, even; there are size/2 frequencies j.
        base: The greater, the slower the slowest rotation.

    Returns:
        (length, size / 2), complex.

    Example:
        >>> rotations(3, 4).shape, rotations(3, 4)[0].tolist()
        (torch.Size([3, 2]), [(1+0j), (1+0j)])
    """
    frequencies = base ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.polar(torch.ones_like(angles), angles)


class EncoderBlock(nn.Module):
    """One residual layer: attention in both directions, then a gated network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.norm_network = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_BTD: Tensor, turns_TF: Tensor, visible_BT: Tensor | None = None) -> Tensor:
        """The stream (B, T, D) after this layer; the rotations are those of the T positions."""
        B, T, D = x_BTD.shape
        qkv = self.qkv(self.norm_attention(x_BTD)).view(B, T, 3, self.heads, D // self.heads)
        qk, v = qkv.permute(2, 0, 3, 1, 4).split((2, 1))  # each (., B, heads, T, D / heads)
        pairs = torch.view_as_complex(qk.unflatten(-1, (-1, 2)))
        q, k = torch.view_as_real(pairs * turns_TF).flatten(-2)
        mask = None if visible_BT is None else visible_BT[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v[0], attn_mask=mask)
        x_BTD = x_BTD + self.mix(attended.transpose(1, 2).reshape(B, T, D))
        value, gate = self.expand(self.norm_network(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.contract(value * F.gelu(gate))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Read a sequence in both directions, to predict tokens that are hidden from it.

    Calling it gives hidden states; `logits` turns those of the masked positions into predictions,
    which is cheaper than predicting every position.

    Args:
        vocabulary: Number of tokens, special ones included.
        context: The longest sequence it can read, in tokens.
        width: Size of the residual stream; a multiple of twice the heads.
        layers: Number of blocks.
        heads: Number of attention heads.

    Raises:
        PlanError: If the width does not divide.

    Example:
        >>> model = Encoder(vocabulary=100, context=16, width=32, layers=1, heads=2)
        >>> tokens = torch.zeros(2, 16, dtype=torch.long)
        >>> hidden = model(tokens)
        >>> model.logits(hidden[:, :3]).shape
        torch.Size([2, 3, 100])
    """

    turns: Tensor

    def __init__(
        self, *, vocabulary: int, context: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            remedy = f"Choose a multiple of {2 * heads}, twice the heads"
            raise PlanError("width does not divide", place="width", value=width, remedy=remedy)
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.register_buffer("turns", rotations(context, width // heads), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.1)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("mix.weight", "contract.weight")):
                nn.init.zeros_(parameter)  # every block begins as the identity
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def forward(self, tokens_BT: Tensor, visible_BT: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, width).

        Args:
            tokens_BT: The sequences.
            visible_BT: Which tokens may be attended to: false for padding. By default all. At
                least one in every row.

        Raises:
            PlanError: If the sequences are longer than the context.
        """
        length = tokens_BT.shape[1]
        if length > self.context:
            remedy = f"Cut them to the context of {self.context}, or give the model a longer one"
            raise PlanError("too long", place="tokens_BT", value=length, remedy=remedy)
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.turns[:length], visible_BT)
        return self.norm(x_BTD)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocabulary) of the token at each position, from its state (..., width)."""
        return F.linear(hidden, self.embedding.weight)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Matrices decay; norms and the tied embedding do not."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            is_matrix = parameter.ndim == 2 and name != "embedding.weight"
            (decayed if is_matrix else kept).append(parameter)
        return [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]


def masked_token_loss(
    model: Encoder, shown_BT: Tensor, tokens_BT: Tensor, chosen_BT: Tensor
) -> Tensor:
    """Mean cross-entropy, in nats per token, of predicting the chosen tokens.

    Args:
        model: The encoder.
        shown_BT: What it reads, the chosen tokens masked.
        tokens_BT: The true tokens.
        chosen_BT: Which ones are to be predicted; at least one.

    Example:
        >>> model = Encoder(vocabulary=10, context=4, width=8, layers=1, heads=2)
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> masked_token_loss(model, tokens, tokens, tokens == 2).ndim
        0
    """
    return F.cross_entropy(model.logits(model(shown_BT)[chosen_BT]), tokens_BT[chosen_BT])
