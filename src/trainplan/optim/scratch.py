"""Buffers that are used again for one parameter after another, for the length of one update.

Memory that is asked for and given back for every parameter is handed over by the operating system
page by page each time, which can take longer than what is computed in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """Named buffers, as large as their largest use so far; what they hold is undefined.

    >>> scratch = Scratch()
    >>> first = scratch.take("product", (3, 4), torch.float32, torch.device("cpu"))
    >>> again = scratch.take("product", (2, 2), torch.float32, torch.device("cpu"))
    >>> first.data_ptr() == again.data_ptr(), again.shape
    (True, torch.Size([2, 2]))
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A contiguous tensor in the buffer of that name, type and device."""
        key, size = (name, dtype, device), math.prod(shape)
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers.pop(key, None)  # gone before the larger one is made
            self._buffers[key] = torch.empty(size, dtype=dtype, device=device)
        return self._buffers[key][:size].view(shape)
