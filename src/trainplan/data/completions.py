"""Sequences of a prompt and its completion: which to keep, and what the loss is taken on.

SteloCoder (Pan et al., 2023, arXiv 2310.15539) drops what is longer than 95 of 100 examples, and
trains on prompt, completion and padding alike; by default only the completion is trained on here.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import finite

Integers = npt.NDArray[np.int64]
IGNORED: Final = -100
"""The label that PyTorch's cross-entropy leaves out."""


def _lengths(values: npt.ArrayLike, place: str) -> Integers:
    given = np.asarray(values)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu" or given.min() < 0:
        remedy = "Give a whole number of tokens for each example"
        raise PlanError("not lengths", place=place, value=values, remedy=remedy)
    return given.astype(np.int64)


def percentile_length_filter(lengths: npt.ArrayLike, p: float = 0.95) -> tuple[int, Integers]:
    """A cap on the length, and the examples that are not longer.

    The cap is the value at place ``int(p * n)`` of the sorted lengths. Longer examples are left
    out, not cut. The authors measured the cap without the end token and the examples with it, and
    so lost those exactly at the cap.

    Args:
        lengths: (n,) in tokens, measured in one way.
        p: From 0 to below 1.

    Returns:
        The cap, and the kept examples in their order.

    >>> cap, kept = percentile_length_filter([5, 9, 3, 7], p=0.5)
    >>> cap, kept.tolist()
    (7, [0, 2, 3])
    """
    found = _lengths(lengths, "lengths")
    if not 0 <= finite(p, "p") < 1:
        remedy = "Write 0.95 for 95 of 100"
        raise PlanError("a share from 0 to below 1", place="p", value=p, remedy=remedy)
    cap = int(np.sort(found)[int(p * found.size)])
    return cap, np.flatnonzero(found <= cap)


def completion_labels(
    tokens: Any, prompts: npt.ArrayLike, lengths: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Labels for a language model: the tokens of the completions, and -100 elsewhere.

    Args:
        tokens: (B, T) padded on the right.
        prompts: (B,) length of each prompt, which a completion follows.
        lengths: (B,) length of both together, the end token included.

    Returns:
        (B, T) labels, not shifted.

    >>> completion_labels([[5, 6, 7, 1, 1]], [2], [4]).tolist()
    [[-100, -100, 7, 1, -100]]
    """
    read = np.asarray(tokens, dtype=np.int64)
    first, end = _lengths(prompts, "prompts"), _lengths(lengths, "lengths")
    if read.ndim != 2 or not read.shape[0] == first.size == end.size:
        remedy = "Give (B, T) tokens, and B lengths of each kind"
        raise PlanError("sizes differ", place="tokens", value=read.shape, remedy=remedy)
    wrong = np.flatnonzero((first > end) | (end > read.shape[1]))
    if wrong.size:
        row = wrong[0]
        raise PlanError(
            f"prompt {first[row]}, both {end[row]}, and {read.shape[1]} tokens in the row",
            place=f"lengths[{row}]",
            value=int(end[row]),
            remedy="Count the prompt as part of the whole",
        )
    at = np.arange(read.shape[1])
    return np.where((at >= first[:, None]) & (at < end[:, None]), read, IGNORED)
