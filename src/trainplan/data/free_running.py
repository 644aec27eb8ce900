"""A language model that continues its own output, position by position, and what that costs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite

Logits = Callable[[Tensor], Any]
"""Maps ids (B, T) to scores (B, T, V) of each position's next token: a tensor, or an output that
holds it as ``logits``, as Transformers' causal models do."""

_CACHES = ("cache", "past_key_values")
"""What Transformers' models have called what they remember of a prefix."""


class Prefix:
    """What a model has read so far, and its scores of the next token.

    A Transformers model keeps its keys and values, and reads each token once. Any other callable
    reads the whole prefix again at every step.

    Args:
        model: See `Logits`.
        mask: (B, T) attention mask of the whole sequences, for models that take one.
    """

    def __init__(self, model: Logits, mask: Tensor | None = None) -> None:
        self._model, self._mask = model, mask
        names = [name for name in _CACHES if _takes(model, name)]
        self._cache = names[0] if names else None
        self._past: Any = None
        self._read: list[Tensor] = []
        self._length = 0

    def read(self, ids: Tensor) -> Tensor:
        """Scores (B, V) of the token after these (B, t), which follow what was read before."""
        self._length += ids.shape[1]
        if self._cache is None:
            self._read.append(ids)
            return logits_of(self._model(torch.cat(self._read, dim=1)))[:, -1]
        options = {self._cache: self._past}
        if self._mask is not None:
            options["attention_mask"] = self._mask[:, : self._length]
        model: Any = self._model
        output = model(input_ids=ids, use_cache=True, **options)
        self._past = getattr(output, self._cache)
        return logits_of(output)[:, -1]


def whole_logits(model: Logits, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scores (B, T, V) of every position's next token in one pass.

    Args:
        model: See `Logits`.
        ids: (B, T).
        mask: (B, T) attention mask, for models that take one.
    """
    if mask is None or not _takes(model, "attention_mask"):
        return logits_of(model(ids))
    masked: Any = model
    return logits_of(masked(input_ids=ids, attention_mask=mask))


def logits_of(output: Any) -> Tensor:
    """The scores in a model's output."""
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        remedy = "Give a function of ids that returns logits, or a causal model of Transformers"
        raise PlanError("returns no logits", place="model", value=type(output), remedy=remedy)
    return found


def pick(logits: Tensor, temperature: float, random: torch.Generator | None) -> Tensor:
    """The likeliest token (...,) of scores (..., V), or one drawn at a temperature above 0."""
    if temperature == 0:
        return logits.argmax(-1)
    shares = torch.softmax(logits.double().cpu() / temperature, -1)
    drawn = torch.multinomial(shares.flatten(0, -2), 1, generator=random)
    return drawn.view(logits.shape[:-1]).to(logits.device)


def continue_prompts(
    model: Logits,
    prompts: Tensor,
    most: int,
    *,
    eos: int | None = None,
    temperature: float = 0.0,
    random: torch.Generator | None = None,
) -> list[list[int]]:
    """What a model answers, one token after the other; an end token is kept.

    Args:
        model: See `Logits`; as it is, call it in evaluation mode.
        prompts: (B, P) ids, all of one length.
        most: Longest answer.
        eos: The token that ends an answer.
        temperature: 0 for the likeliest token.
        random: On the CPU, for a temperature above 0.

    >>> after = torch.eye(3)[[1, 2, 0]]  # 0 is followed by 1, 1 by 2 and 2 by 0
    >>> continue_prompts(lambda ids: after[ids], torch.tensor([[0]]), 5, eos=2)
    [[1, 2]]
    """
    count(most, "most")
    prefix, ids = Prefix(model), prompts
    found: list[Tensor] = []
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    with torch.no_grad():
        while len(found) < most and not bool(ended.all()):
            token = pick(prefix.read(ids), temperature, random)
            found.append(token)
            ended |= token == (-1 if eos is None else eos)
            ids = token[:, None]
    rows = torch.stack(found, dim=1).tolist()
    return [row if eos not in row else row[: row.index(eos) + 1] for row in rows]


def device_of(model: Any, ids: Tensor) -> torch.device:
    """Where a model's weights are; for one without, where the ids are."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return ids.device if first is None else first.device


@contextmanager
def frozen(model: Any) -> Iterator[Any]:
    """A model in evaluation mode without gradients; its parts are as they were at the end."""
    before = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    if before:
        model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in before:
            module.training = training


def exposure_gap(
    reference: npt.ArrayLike, next_token_logits: npt.ArrayLike, start: int, steps: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How much worse a model's next token is after its own history than after the true one.

    For chains in which a token depends on the one before. Both begin at ``start``.

    Args:
        reference: (V, V) true probabilities of the next token.
        next_token_logits: (V, V) the model's scores of it.
        start: The first token.
        steps: How many tokens.

    Returns:
        KL(reference || model) of each step (steps,), in nats: with histories drawn from the
        reference, as in training, and from the model, as in use.

    >>> true, scores = [[0.5, 0.5], [0.5, 0.5]], [[0.0, 0.0], [2.0, 0.0]]
    >>> taught, free = exposure_gap(true, scores, 0, 2)
    >>> taught.round(3).tolist(), free.round(3).tolist()
    ([0.0, 0.217], [0.0, 0.217])
    """
    true, scores = np.asarray(reference, np.float64), np.asarray(next_token_logits, np.float64)
    square = true.ndim == 2 and true.shape[0] == true.shape[1] == scores.shape[0]
    if not square or scores.shape != true.shape or (true < 0).any():
        place, value = "reference", [true.shape, scores.shape]
        raise PlanError("needs two tables (V, V) of probabilities", place=place, value=value)
    if not np.allclose(true.sum(1), 1, atol=1e-6):
        raise PlanError("its rows do not sum to 1", place="reference", value=finite(true.sum(), ""))
    log_model = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(true > 0, true * (np.log(true) - log_model), 0.0).sum(1)
    histories = np.zeros((2, len(true)))
    histories[:, count(start, "start", least=0, most=len(true) - 1)] = 1.0
    found = np.empty((2, count(steps, "steps")))
    for step in range(steps):
        found[:, step] = histories @ each
        histories = np.stack([histories[0] @ true, histories[1] @ np.exp(log_model)])
    return found[0], found[1]


def _takes(model: Any, name: str) -> bool:
    forward = model.forward if isinstance(model, nn.Module) else None
    return forward is not None and name in inspect.signature(forward).parameters
