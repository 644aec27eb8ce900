"""A transformer for clips of any number of frames, of which an image is the clip of one.

Each block attends over time, then over space, and begins as one for images: the attention over time
first gives exactly 0. Bain et al., 2021, "Frozen in Time", arXiv 2104.00650, whose residual of the
attention over space comes from the block's input, unlike TimeSformer's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

TIME_INITS = ("zeros", "random")


class DividedAttention(nn.Module):
    """Patches attend to the first token and to the patches of their group; it attends to all.

    Args:
        dim: Of tokens; a multiple of the heads.
        heads: Number of attention heads.
        zeros: Whether it gives 0 at first, while the values' weights get gradients.
    """

    def __init__(self, dim: int, heads: int, *, zeros: bool = False) -> None:
        super().__init__()
        if count(dim, "dim") % count(heads, "heads"):
            remedy = f"Choose a multiple of {heads}, the heads"
            raise PlanError("dim does not divide", place="dim", value=dim, remedy=remedy)
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if zeros:
            for value in (self.qkv.weight, self.qkv.bias, self.proj.bias):
                nn.init.zeros_(value)
            nn.init.ones_(self.proj.weight)

    def forward(self, x: Tensor, frames: int, *, over_time: bool) -> Tensor:
        """(B, 1 + F P, D) what was attended to.

        Args:
            x: (B, 1 + F P, D) tokens: the first, then the P patches of each frame.
            frames: F.
            over_time: Whether a group is one place in all frames, or else one frame.
        """
        batch, length, dim = x.shape
        heads = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        first, rest = heads[:, :, :, :1], heads[:, :, :, 1:]
        grouped = rest.unflatten(3, (frames, -1))
        grouped = grouped.transpose(3, 4) if over_time else grouped
        q, k, v = grouped
        keys, values = (
            torch.cat([one[:, :, None].expand(*many.shape[:3], -1, -1), many], dim=3)
            for one, many in zip(first[1:], (k, v), strict=True)
        )
        found = functional.scaled_dot_product_attention(q, keys, values)
        found = (found.transpose(2, 3) if over_time else found).flatten(2, 3)
        summary = functional.scaled_dot_product_attention(first[0], heads[1], heads[2])
        joined = torch.cat([summary, found], dim=2).transpose(1, 2).reshape(batch, length, dim)
        out: Tensor = self.proj(joined)
        return out


class SpaceTimeBlock(nn.Module):
    """u = x + Time(LN x), v = x + Space(LN u), y = v + MLP(LN v).

    Args:
        dim: Of tokens.
        heads: Number of attention heads.
        mlp_ratio: Hidden units of the network per dimension.
        time_init: ``zeros``, so that attention over time gives 0 at first, or ``random``.
        eps: Of the norms.

    >>> block = SpaceTimeBlock(dim=8, heads=2)
    >>> tuple(block(torch.zeros(1, 1 + 2 * 3, 8), frames=2).shape)
    (1, 7, 8)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        time_init: str = "zeros",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if time_init not in TIME_INITS:
            remedy = nearest(time_init, TIME_INITS)
            raise PlanError("unknown", place="time_init", value=time_init, remedy=remedy)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, eps=eps) for _ in range(3))
        self.attn = DividedAttention(dim, heads)
        self.timeattn = DividedAttention(dim, heads, zeros=time_init == "zeros")
        hidden = count(dim * mlp_ratio, "dim * mlp_ratio")
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B, 1 + F P, D) tokens after the block.

        Args:
            x: (B, 1 + F P, D) tokens: the first, then the P patches of each frame.
            frames: F.
        """
        u = x + self.timeattn(self.norm3(x), frames, over_time=True)
        v = x + self.attn(self.norm1(u), frames, over_time=False)
        y: Tensor = v + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(v))))
        return y


class SpaceTimeTransformer(nn.Module):
    """Clips to vectors; with fewer frames than it has temporal positions, the first ones count.

    Args:
        size: Pixels of a frame's side; a multiple of the patch.
        patch: Pixels of a patch's side.
        channels: C.
        frames: Temporal positions; `trainplan.data.resize_frames` changes their number.
        dim: Of tokens.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden units of a block's network per dimension.
        outputs: Size of the vectors; None gives the first token's dim numbers.
        time_init: See `SpaceTimeBlock`.

    >>> model = SpaceTimeTransformer(8, 4, channels=1, frames=4, dim=16, depth=1, heads=2)
    >>> [tuple(model(torch.zeros(2, frames, 1, 8, 8)).shape) for frames in (1, 4)]
    [(2, 16), (2, 16)]
    """

    def __init__(
        self,
        size: int = 224,
        patch: int = 16,
        channels: int = 3,
        frames: int = 1,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        *,
        mlp_ratio: float = 4.0,
        outputs: int | None = None,
        time_init: str = "zeros",
    ) -> None:
        super().__init__()
        if count(size, "size") % count(patch, "patch"):
            remedy = f"Choose a multiple of {patch}, the patch"
            raise PlanError("size does not divide", place="size", value=size, remedy=remedy)
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, dim))
        self.time_embeddings = nn.Parameter(torch.zeros(1, count(frames, "frames"), dim))
        self.blocks = nn.ModuleList(
            SpaceTimeBlock(dim, heads, mlp_ratio, time_init=time_init, eps=1e-6)
            for _ in range(count(depth, "depth"))
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Identity() if outputs is None else nn.Linear(dim, outputs)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, outputs) vectors.

        Args:
            clips: (B, F, C, H, W), with at most as many frames as there are temporal positions.
        """
        batch, frames = clips.shape[:2]
        patches = self.embed(clips.flatten(0, 1)).flatten(2).transpose(1, 2)
        tokens = patches.reshape(batch, -1, patches.shape[2])
        x = torch.cat([self.first.expand(batch, -1, -1), tokens], dim=1)
        x = x + total_positions(self.positions[0], self.time_embeddings[0], frames)
        for block in self.blocks:
            x = block(x, frames)
        out: Tensor = self.head(self.norm(x[:, 0]))
        return out


def total_positions(positions: Tensor, temporal: Tensor, frames: int) -> Tensor:
    """(1 + F P, D) what is added to the first token, and to the patches frame by frame.

    Args:
        positions: (1 + P, D) of the first token, and of the places in a frame.
        temporal: (at least F, D) of the frames.
        frames: F.

    >>> total_positions(torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [20.0]]), 2).tolist()
    [[0.0], [11.0], [21.0]]
    """
    if count(frames, "frames") > len(temporal):
        remedy = f"Resize the table of temporal positions to {frames} first"
        raise PlanError(
            f"there are {len(temporal)} positions", place="frames", value=frames, remedy=remedy
        )
    places = (positions[1:] + temporal[:frames, None]).flatten(0, 1)
    return torch.cat([positions[:1], places])
