"""State space models over the interleaved pixels of two frames, read in four directions.

Token by token the two frames take turns, so that the state at a pixel has just seen the same place
of the other frame. Zhang et al., 2024, "VFIMamba: Video Frame Interpolation with State Space
Models", arXiv 2407.02315; the selective scan is that of Gu and Dao, 2023, "Mamba", arXiv
2312.00752, here in plain PyTorch, in a number of operations that grows with the logarithm of the
length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainplan.errors import PlanError
from trainplan.schedules.values import count


def interleave(x: Tensor) -> Tensor:
    """(b, C, 2 H W) tokens of two frames in turn, row by row.

    Args:
        x: (2 b, C, H, W), all first frames before all second ones.

    >>> interleave(torch.tensor([[[[1, 2]]], [[[3, 4]]]])).tolist()
    [[[1, 3, 2, 4]]]
    """
    if x.ndim != 4 or x.shape[0] % 2:
        remedy = "Give (2 b, C, H, W): all first frames, then all second ones"
        raise PlanError("not pairs of frames", place="x", value=tuple(x.shape), remedy=remedy)
    first, second = x.flatten(2).chunk(2)
    return torch.stack([first, second], dim=-1).flatten(2)


def deinterleave(tokens: Tensor, height: int) -> Tensor:
    """(2 b, C, H, W) frames from their tokens; the inverse of `interleave`.

    Args:
        tokens: (b, C, 2 H W).
        height: H.

    >>> deinterleave(torch.tensor([[[1, 3, 2, 4]]]), height=1).tolist()
    [[[[1, 2]]], [[[3, 4]]]]
    """
    batch, channels, length = tokens.shape
    frames = tokens.reshape(batch, channels, height, length // (2 * height), 2)
    return frames.movedim(-1, 0).flatten(0, 1)


def four_scans(x: Tensor) -> Tensor:
    """(b, 4, C, 2 H W) interleaved tokens: by rows, by columns, and both from the end.

    Args:
        x: (2 b, C, H, W), all first frames before all second ones.
    """
    forward = torch.stack([interleave(x), interleave(x.transpose(2, 3))], dim=1)
    return torch.cat([forward, forward.flip(-1)], dim=1)


def merge_scans(tokens: Tensor, height: int) -> Tensor:
    """(2 b, C, H, W) the sum over the four readings, each put back in place.

    Args:
        tokens: (b, 4, C, 2 H W), as `four_scans` gives them.
        height: H.
    """
    forward, backward = tokens.chunk(2, dim=1)
    rows, columns = (forward + backward.flip(-1)).unbind(1)
    width = tokens.shape[-1] // (2 * height)
    return deinterleave(rows, height) + deinterleave(columns, width).transpose(2, 3)


def linear_scan(decay: Tensor, drive: Tensor) -> Tensor:
    """h_t = decay_t h_(t-1) + drive_t along the last axis, from h = 0.

    Args:
        decay: (..., L) factors, of magnitude at most 1.
        drive: (..., L) what is added.

    >>> linear_scan(torch.full((3,), 0.5), torch.ones(3)).tolist()
    [1.0, 1.5, 1.75]
    """
    length, reach = drive.shape[-1], 1
    while reach < length:
        # Each position holds the last `reach` ones; join it with the `reach` before them.
        before = functional.pad(drive[..., :-reach], (reach, 0))
        drive = drive + decay * before
        decay = decay * functional.pad(decay[..., :-reach], (reach, 0))
        reach *= 2
    return drive


class SelectiveScan(nn.Module):
    """Sequences through state space models whose step and in- and outputs depend on the token.

    h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t and y_t = C_t h_t + D x_t, where B and C are linear in
    x_t, dt is a softplus of such, and each of K kinds of sequences has a model of its own.

    Args:
        channels: C.
        states: N, of h for each channel.
        kinds: K.

    >>> scan = SelectiveScan(channels=6, states=4, kinds=2)
    >>> tuple(scan(torch.zeros(3, 2, 6, 10)).shape)
    (3, 2, 6, 10)
    """

    def __init__(self, channels: int, states: int = 16, kinds: int = 4) -> None:
        super().__init__()
        self.channels, self.states = count(channels, "channels"), count(states, "states")
        kinds = count(kinds, "kinds")
        self.rank = math.ceil(self.channels / 16)
        wide = self.rank + 2 * self.states
        scale = self.channels**-0.5
        self.select = nn.Parameter(scale * (2 * torch.rand(kinds, wide, self.channels) - 1))
        scale = self.rank**-0.5
        self.step = nn.Parameter(scale * (2 * torch.rand(kinds, self.channels, self.rank) - 1))
        # Steps begin between 0.001 and 0.1, evenly in their logarithm.
        begin = torch.exp(math.log(1e-3) + math.log(100) * torch.rand(kinds, self.channels))
        self.step_bias = nn.Parameter(begin + torch.log(-torch.expm1(-begin)))
        rates = torch.arange(1, self.states + 1.0).log()
        self.log_rate = nn.Parameter(rates.repeat(kinds, self.channels, 1))
        self.skip = nn.Parameter(torch.ones(kinds, self.channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, K, C, L) outputs.

        Args:
            x: (b, K, C, L) tokens.
        """
        selected = torch.einsum("bkcl,kwc->bkwl", x, self.select)
        low, into, out = torch.split(selected, [self.rank, self.states, self.states], dim=2)
        raw = torch.einsum("bkrl,kcr->bkcl", low, self.step) + self.step_bias[..., None]
        dt = functional.softplus(raw)
        decay = torch.exp(-dt[:, :, :, None] * self.log_rate.exp()[..., None])
        drive = (dt * x)[:, :, :, None] * into[:, :, None]
        h = linear_scan(decay, drive)
        y: Tensor = (h * out[:, :, None]).sum(dim=3) + self.skip[..., None] * x
        return y


class InterleavedScan(nn.Module):
    """A block that mixes the features of two frames: interleaved, scanned four ways, gated, added.

    Args:
        channels: C.
        states: Of each channel's state space model.
        expand: Inner channels per channel.

    >>> block = InterleavedScan(channels=8, states=4)
    >>> tuple(block(torch.zeros(2, 8, 4, 6)).shape)
    (2, 8, 4, 6)
    """

    def __init__(self, channels: int, states: int = 16, expand: int = 2) -> None:
        super().__init__()
        inner = count(channels, "channels") * count(expand, "expand")
        self.norm = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, 2 * inner, bias=False)
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.scan = SelectiveScan(inner, states)
        self.scan_norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(2 b, C, H, W) features.

        Args:
            x: (2 b, C, H, W) features, all first frames before all second ones.
        """
        features, gate = self.enter(self.norm(x.movedim(1, -1))).chunk(2, dim=-1)
        near = functional.silu(self.local(features.movedim(-1, 1)))
        merged = merge_scans(self.scan(four_scans(near)), x.shape[2])
        gated = self.scan_norm(merged.movedim(1, -1)) * functional.silu(gate)
        mixed: Tensor = self.leave(gated)
        return x + mixed.movedim(-1, 1)
