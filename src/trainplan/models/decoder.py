"""A small decoder-only transformer: the model that the ``text`` workload trains.

Pre-norm residual blocks (causal self-attention, then a squared-ReLU network), learned positions,
and an output head tied to the embedding. Nothing in it is particular to this project; it is the
usual GPT layout (Radford et al. 2019; squared ReLU from So et al. 2021, arXiv:2109.08668), kept
small enough that a hundred runs fit on two CPU cores.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - everybody calls it F
from torch import Tensor, nn


class Block(nn.Module):
    """One residual layer: attention, then a two-layer network, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.norm_network = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The stream (B, T, D) after this layer."""
        B, T, D = x_BTD.shape
        qkv = self.qkv(self.norm_attention(x_BTD)).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D / heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.mix(attended.transpose(1, 2).reshape(B, T, D))
        hidden = F.relu(self.expand(self.norm_network(x_BTD)))
        return x_BTD + self.contract(hidden * hidden)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Predict the next token from all earlier ones.

    Args:
        vocabulary: Number of tokens; 256 for bytes.
        context: The longest sequence it can read, in tokens.
        width: Size of the residual stream; a multiple of ``heads``.
        layers: Number of blocks.
        heads: Number of attention heads.

    Example:
        >>> model = Decoder(vocabulary=256, context=16, width=32, layers=1, heads=2)
        >>> import torch
        >>> model(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 16, 256])
    """

    def __init__(
        self, *, vocabulary: int, context: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.02)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("mix.weight", "contract.weight")):
                nn.init.zeros_(parameter)  # every block begins as the identity
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) for the token after each position."""
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"{length} tokens are more than the context of {self.context}")
        x_BTD = self.embedding(tokens_BT) + self.positions.weight[:length]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.norm(x_BTD), self.embedding.weight)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Matrices decay; norms, positions and the tied embedding do not."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            is_table = name in ("embedding.weight", "positions.weight")
            (decayed if parameter.ndim == 2 and not is_table else kept).append(parameter)
        return [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]


def next_token_loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Mean cross-entropy, in nats per token, of predicting each token from those before it.

    Args:
        model: Maps tokens (B, T - 1) to logits (B, T - 1, vocabulary).
        tokens_BT: At least two tokens per row.
    """
    logits = model(tokens_BT[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens_BT[:, 1:].flatten())
