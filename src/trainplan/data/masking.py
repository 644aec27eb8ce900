"""Masked language modelling on whole words, at a rate that changes during training.

If only part of a word is hidden, the rest of it gives it away; hiding whole words makes the model
use the context. A high rate early gives more to learn from, a low rate late is closer to how the
model is used. Zhao et al., 2025, "Chinese ModernBERT with Whole-Word Masking", arXiv 2510.12285,
go from 30 % to 15 %. How words are chosen within the budget is our own rule.

Watch the loss at one fixed rate: at a falling rate the training loss falls because the task gets
easier.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Duration
from trainplan.schedules.phases import Phase, Sequence
from trainplan.schedules.values import finite

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def mask_rate(low: float = 0.15, high: float = 0.30, warmup: int | float | str = "5%") -> Schedule:
    """The share of tokens to mask: up to ``high`` during the warm-up, then down to ``low``.

    low + (high - low) t/W for t <= W; then high - (high - low) (t - W)/(T - W). Without a warm-up
    it starts at ``high``, which is all that the paper's abstract says. The mean over a run is
    (low + high)/2 either way.

    Args:
        low: Rate at the start and the end, in [0, 1].
        high: Rate after the warm-up, in [0, 1].
        warmup: Length of the rise.

    >>> rate = mask_rate(warmup="10%").resolve(1000)
    >>> rate([0, 100, 550, 1000]).round(4).tolist()
    [0.15, 0.3, 0.225, 0.15]
    """
    for name, value in (("low", low), ("high", high)):
        _rate(value, name)
    rise = Duration.parse(warmup)
    fall = Phase(high, low)
    return Sequence(Phase(low, high, rise), fall) if rise.amount else fall


@dataclass(frozen=True)
class Selection:
    """The words of one sequence that are to be masked.

    Attributes:
        words: Their ids, in the order in which they were taken.
        tokens: (T,) whether each token belongs to one of them.
        budget: How many tokens could be taken at most.
    """

    words: tuple[int, ...]
    tokens: Mask
    budget: int


def select_words(word_ids: npt.ArrayLike, order: Seq[int], rate: float) -> Selection:
    """Choose whole words of one sequence within a budget of tokens.

    The budget is max(1, round(rate n)) of the n tokens that belong to a word (round half to
    even). Words are visited in the given order; one that still fits is taken, another is skipped.

    Args:
        word_ids: (T,) the word that each token belongs to; -1 for special tokens and padding.
        order: The words, each once.
        rate: Share of tokens, in [0, 1].

    >>> chosen = select_words([-1, 0, 0, 1, 2, 2, -1], order=[2, 1, 0], rate=0.6)
    >>> chosen.words, chosen.tokens.astype(int).tolist(), chosen.budget
    ((2, 1), [0, 0, 0, 1, 1, 1, 0], 3)
    """
    ids = _word_ids(word_ids, 1)
    budget = left = int(_budgets(ids[None], np.asarray([_rate(rate, "rate")]))[0])
    words, sizes = np.unique(ids[ids >= 0], return_counts=True)
    if sorted(order) != words.tolist():
        raise PlanError(
            f"the order must name each of the {words.size} words once", place="order", value=order
        )
    size_of = dict(zip(words.tolist(), sizes.tolist(), strict=True))
    taken = []
    for word in order:
        if size_of[word] <= left:
            taken.append(int(word))
            left -= size_of[word]
    return Selection(tuple(taken), np.isin(ids, taken), budget)


def choose_words(word_ids: npt.ArrayLike, rate: float, rng: np.random.Generator) -> Mask:
    """Choose whole words of every sequence of a batch, in random order, as `select_words` does.

    Args:
        word_ids: (B, T) the word that each token belongs to; -1 for special tokens and padding.
            Ids count from 0 within each sequence.
        rate: Share of each sequence's tokens, in [0, 1].
        rng: What makes the order.

    Returns:
        (B, T) whether each token is to be masked. In a sequence all of whose words are longer than
        the budget it is none.

    >>> choose_words([[0, 0, 1, 1, -1]], 0.5, np.random.default_rng(0)).astype(int).tolist()
    [[0, 0, 1, 1, 0]]
    """
    ids = _word_ids(word_ids, 2)
    rows, words = ids.shape[0], int(ids.max(initial=-1)) + 1
    if words > max(1, 4 * ids.shape[1]):
        raise PlanError(
            "word ids must count from 0 within each sequence", place="word_ids", value=words - 1
        )
    if not words:
        return np.zeros(ids.shape, dtype=bool)
    sizes = _sizes(ids, words)
    left = _budgets(ids, np.full(rows, _rate(rate, "rate")))
    order = np.argsort(rng.random((rows, words)), axis=1)
    taken = np.zeros((rows, words), dtype=bool)
    row = np.arange(rows)
    for visited in order.T:
        size = sizes[row, visited]
        fits = (size > 0) & (size <= left)
        taken[row, visited] = fits
        left = left - size * fits
        if not left.any():
            break
    return np.asarray(np.take_along_axis(taken, np.maximum(ids, 0), axis=1) & (ids >= 0))


def replace_words(
    tokens: npt.ArrayLike,
    word_ids: npt.ArrayLike,
    chosen: Mask,
    *,
    mask_token: int,
    vocabulary: int | npt.ArrayLike,
    rng: np.random.Generator,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Ids:
    """Replace the chosen words: by masks, by random tokens, or not at all, each word as a whole.

    Args:
        tokens: (B, T) the sequences.
        word_ids: (B, T) as in `choose_words`.
        chosen: (B, T) what `choose_words` chose.
        mask_token: The mask's id.
        vocabulary: Number of tokens, or the ids, that random tokens are drawn from.
        rng: What decides.
        shares: Of masked, random and kept words; together 1 (Devlin et al., 2019, arXiv
            1810.04805). Masks alone, ``(1, 0, 0)``, are common too.

    Returns:
        (B, T) the sequences to feed to the model; the targets are the old tokens where ``chosen``.
    """
    old, ids = np.asarray(tokens, dtype=np.int64), _word_ids(word_ids, 2)
    if not old.shape == ids.shape == np.shape(chosen):
        raise PlanError(
            "tokens, word_ids and chosen must have one shape",
            place="tokens",
            value=f"{old.shape}, {ids.shape}, {np.shape(chosen)}",
        )
    masked, random, kept = (finite(share, "shares") for share in shares)
    if min(masked, random, kept) < 0 or abs(masked + random + kept - 1) > 1e-9:
        raise PlanError("the shares must be three that make 1", place="shares", value=shares)
    fate = np.take_along_axis(
        rng.random((old.shape[0], max(1, int(ids.max(initial=-1)) + 1))), np.maximum(ids, 0), axis=1
    )
    pool = np.arange(vocabulary) if isinstance(vocabulary, int) else np.asarray(vocabulary)
    drawn = rng.choice(pool, size=old.shape)
    new = np.where(fate < masked, mask_token, np.where(fate < masked + random, drawn, old))
    return np.where(chosen, new, old)


def _sizes(ids: Ids, words: int) -> Ids:
    """(B, W) number of tokens of each word."""
    rows = np.broadcast_to(np.arange(ids.shape[0])[:, None], ids.shape)
    inside = ids >= 0
    flat = np.bincount(rows[inside] * words + ids[inside], minlength=ids.shape[0] * words)
    return np.asarray(flat.reshape(ids.shape[0], words), dtype=np.int64)


def _budgets(ids: Ids, rates: npt.NDArray[np.float64]) -> Ids:
    maskable = (ids >= 0).sum(axis=1)
    return np.asarray(np.maximum(1, np.rint(rates * maskable)), dtype=np.int64)


def _word_ids(word_ids: npt.ArrayLike, dimensions: int) -> Ids:
    ids = np.asarray(word_ids, dtype=np.int64)
    if ids.ndim != dimensions:
        what = "one sequence (T,)" if dimensions == 1 else "a batch (B, T)"
        raise PlanError(f"needs {what}", place="word_ids", value=f"shape {ids.shape}")
    if ids.size and ids.min() < -1:
        raise PlanError(
            "a word id is below -1",
            place="word_ids",
            value=int(ids.min()),
            remedy="Use -1 for special tokens and padding",
        )
    return ids


def _rate(value: float, place: str) -> float:
    rate = finite(value, place)
    if not 0 <= rate <= 1:
        raise PlanError(
            "a masking rate must lie in [0, 1]",
            place=place,
            value=value,
            remedy="Write 0.15 for 15 %",
        )
    return rate
