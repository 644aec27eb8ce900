"""Train on contexts that hold the model's own tokens, while the targets stay the true ones.

A model that is trained on true contexts meets its own mistakes for the first time when it is used.
Cen et al., 2024, "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
arXiv 2410.14655, replace a share of the answer's tokens in the context by the model's own, made in
rounds and not at every step. Of the paper only the abstract is known here: rates, the period of
rounds and the share of clean examples are our own. It helps where the prompt still determines the
answer after a mistake, and harms where it does not, as in forecasting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainplan.data.forcing import resolved_share, share_of
from trainplan.data.free_running import Logits, Prefix, device_of, frozen, pick, whole_logits
from trainplan.data.hashing import checked_seed, fingerprint
from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count, finite

MODES: Final = ("mixed", "teacher", "free")
IGNORED: Final = -100
"""The label of positions that have no target."""
Batch = dict[str, Any]


def mix_context(truth: Tensor, own: Tensor, u: Tensor, share: float | Tensor) -> Tensor:
    """The context: a model's own token wherever a number u from [0, 1) is below the share.

    >>> truth, own = torch.tensor([5, 6, 7]), torch.tensor([1, 2, 3])
    >>> mix_context(truth, own, torch.tensor([0.9, 0.1, 0.5]), 0.5).tolist()
    [5, 2, 7]
    """
    return torch.where(u < share, own, truth)


def own_tokens(
    model: Logits,
    ids: Tensor,
    answer: Tensor,
    u: Tensor,
    share: float | Tensor,
    *,
    mode: str = "mixed",
    mask: Tensor | None = None,
    temperature: float = 0.0,
    random: torch.Generator | None = None,
    eos: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Contexts that mix true and own tokens.

    Args:
        model: See `trainplan.data.free_running.Logits`; as it is.
        ids: (B, T) true sequences, each a prompt and an answer. There is a token in front of
            every answer.
        answer: (B, T) whether a position belongs to the answer.
        u: (B, T) numbers from [0, 1).
        share: Of own tokens, or one for each position, (B, 1) or (B, T).
        mode: After what own tokens come. ``mixed``: after the mixed context so far, one position
            after the other. ``teacher``: after the true one, in one pass. ``free``: after the own
            answer alone; where that has ended, tokens are true.
        mask: (B, T) attention mask.
        temperature: 0 for the likeliest token.
        random: On the CPU, for a temperature above 0.
        eos: The end of answers, for ``free``.

    Returns:
        The mixed sequences and the own tokens, both (B, T); outside of answers both are true.

    Raises:
        PlanError: If the mode is unknown, or an answer has nothing in front of it.

    >>> after = torch.eye(4)[[1, 2, 3, 0]]  # each token is followed by the next one
    >>> ids, answer = torch.tensor([[0, 3, 1]]), torch.tensor([[False, True, True]])
    >>> mixed, own = own_tokens(lambda ids: after[ids], ids, answer, torch.zeros(1, 3), 1.0)
    >>> mixed.tolist(), own.tolist()
    ([[0, 1, 2]], [[0, 1, 2]])
    """
    if mode not in MODES:
        raise PlanError("unknown", place="mode", value=mode, remedy=nearest(str(mode), MODES))
    if bool(answer[:, 0].any()):
        remedy = "Put a token that begins a sequence in front"
        raise PlanError("nothing comes before the first token", place="answer", remedy=remedy)
    if not bool(answer.any()):
        return ids, ids
    if mode == "teacher":
        scores = whole_logits(model, ids, mask)
        own = torch.cat([ids[:, :1], pick(scores[:, :-1], temperature, random)], dim=1)
        own = torch.where(answer, own, ids)
        return mix_context(ids, own, u, share), own
    every: float | Tensor = 1.0 if mode == "free" else share
    mixed, own = _recursion(model, ids, answer, u, every, mask, temperature, random)
    if mode == "free":
        if eos is not None:
            ended = ((own == eos) & answer).cumsum(1) > 0
            own = torch.where(ended, ids, own)
        mixed = mix_context(ids, own, u, share)
    return mixed, own


def _recursion(
    model: Logits,
    ids: Tensor,
    answer: Tensor,
    u: Tensor,
    share: float | Tensor,
    mask: Tensor | None,
    temperature: float,
    random: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    mixed, own = ids.clone(), ids.clone()
    columns = torch.nonzero(answer.any(0)).flatten().tolist()
    shares = torch.as_tensor(share, device=ids.device).expand(ids.shape)
    prefix, done = Prefix(model, mask), 0
    for column in range(columns[0], columns[-1] + 1):
        scores = prefix.read(mixed[:, done:column])
        done = column
        here = answer[:, column]
        own[here, column] = pick(scores, temperature, random)[here]
        mixed[:, column] = mix_context(
            ids[:, column], own[:, column], u[:, column], shares[:, column]
        )
    return mixed, own


class SelfTokenMixer:
    """Replaces answer tokens in the inputs of batches by the model's own, in rounds.

    Batches hold ``input_ids``, ``labels`` of the same shape (-100 outside of answers, as
    Transformers shifts them itself) and, if there is padding, ``attention_mask``. At the beginning
    of a round the batches of its updates are drawn ahead and mixed with the model as it is then,
    in evaluation mode; labels are never touched. A share of 0 leaves batches as they are, without
    a call of the model.

    All draws are a function of the seed, the round and the batch. A state holds what is left of a
    round, so that a resumed run sees the same contexts.

    Args:
        share: Share of own tokens in [0, 1], as a number or a schedule over updates (resolved, if
            it is relative), read at the beginning of a round. Above one half accuracy on true
            contexts suffers. See also `teacher_forcing`, whose complement it is.
        refresh_every: Updates of a round. Contexts of long rounds come from another model.
        mode: See `own_tokens`. ``teacher`` costs one forward pass, ``mixed`` one per position.
        temperature: Of own tokens; 0, the likeliest, suits greedy decoding.
        clean_fraction: Share of each batch's examples that stay true, in [0, 1].
        eos: The end token; it is never replaced.
        seed: Of the draws.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> after = torch.eye(4)[[1, 2, 3, 0]]
    >>> batch = {"input_ids": torch.tensor([[0, 3, 1]]), "labels": torch.tensor([[-100, 3, 1]])}
    >>> mixer = SelfTokenMixer(1.0, clean_fraction=0.0)
    >>> mixer.mix(lambda ids: after[ids], batch, step=0)["input_ids"].tolist()
    [[0, 1, 2]]
    """

    def __init__(
        self,
        share: float | Schedule,
        refresh_every: int = 100,
        *,
        mode: str = "mixed",
        temperature: float = 0.0,
        clean_fraction: float = 0.5,
        eos: int | None = None,
        seed: int = 0,
    ) -> None:
        if mode not in MODES:
            raise PlanError("unknown", place="mode", value=mode, remedy=nearest(str(mode), MODES))
        if finite(temperature, "temperature") < 0:
            raise PlanError("below 0", place="temperature", value=temperature)
        self.share = resolved_share(share, "share")
        self.refresh_every = count(refresh_every, "refresh_every")
        self.mode, self.temperature, self.eos = mode, float(temperature), eos
        self.clean_fraction = share_of(clean_fraction, "clean_fraction")
        self.seed = checked_seed(seed)
        self._ready: deque[Batch] = deque()
        self._loaded: deque[Tensor] = deque()

    def round(self, step: int) -> int:
        """The round of an update that comes after so many."""
        return count(step, "step", least=0) // self.refresh_every

    def share_at(self, step: int) -> float:
        """The share of own tokens of that update's round."""
        if not isinstance(self.share, Schedule):
            return self.share
        return share_of(float(self.share(self.round(step) * self.refresh_every)), "share")

    def mix(self, model: Logits, batch: Mapping[str, Any], step: int) -> Batch:
        """A batch with own tokens in its inputs, of the model as it is now.

        Args:
            model: See `trainplan.data.free_running.Logits`.
            batch: See above.
            step: Completed updates.
        """
        share = self.share_at(step)
        ids, labels = _tensors(batch)
        answer = (labels != IGNORED) & (ids != (-1 if self.eos is None else self.eos))
        answer[:, 0] = False  # nothing comes before
        if share == 0 or not bool(answer.any()):
            return dict(batch)
        drawn = np.random.default_rng([self.seed, self.round(step), fingerprint(ids.cpu().numpy())])
        shares = np.full((len(ids), 1), share)
        clean = round(self.clean_fraction * len(ids))
        shares[drawn.permutation(len(ids))[:clean]] = 0.0
        u = torch.from_numpy(drawn.random(tuple(ids.shape)))
        random = torch.Generator().manual_seed(int(drawn.integers(2**62)))
        place = device_of(model, ids)
        mask = batch.get("attention_mask")
        with frozen(model):
            mixed, _ = own_tokens(
                model,
                ids.to(place),
                answer.to(place),
                u.to(place),
                torch.from_numpy(shares).to(place),
                mode=self.mode,
                mask=None if mask is None else mask.to(place),
                temperature=self.temperature,
                random=random,
                eos=self.eos,
            )
        return {**batch, "input_ids": mixed.to(ids.device)}

    def stream(
        self,
        batches: Iterable[Mapping[str, Any]],
        model: Logits,
        step: Callable[[], int],
        per_update: int = 1,
    ) -> Iterator[Batch]:
        """Batches with own tokens, mixed in rounds.

        At the end of the batches a round ends early, and the rest of its updates are a round of
        their own.

        Args:
            batches: True ones, in order.
            model: See `trainplan.data.free_running.Logits`.
            step: Called before each batch: the number of completed updates.
            per_update: Batches of an update.
        """
        source = iter(batches)
        while True:
            if not self._ready:
                now = step()
                updates = self.refresh_every - now % self.refresh_every
                self._fill(list(islice(source, updates * per_update)), model, now)
            if not self._ready:
                return
            yield self._ready.popleft()

    def _fill(self, batches: list[Mapping[str, Any]], model: Logits, step: int) -> None:
        for batch in batches:
            if self._loaded:
                self._ready.append(_with(batch, self._loaded.popleft()))
            else:
                self._ready.append(self.mix(model, batch, step))

    def state_dict(self) -> dict[str, Any]:
        """What is left of the round: a list of inputs, as lists of ids."""
        rest = [batch["input_ids"].tolist() for batch in self._ready]
        return {"contexts": rest + [ids.tolist() for ids in self._loaded]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a round; the next batches have to be those that were to come.

        Raises:
            PlanError: If it is not a state.
        """
        contexts = state.get("contexts") if isinstance(state, Mapping) else None
        if not isinstance(contexts, (list, tuple)):
            raise PlanError("not the state of a SelfTokenMixer", place="state", value=type(state))
        self._ready.clear()
        self._loaded = deque(torch.as_tensor(ids) for ids in contexts)


def _with(batch: Mapping[str, Any], ids: Tensor) -> Batch:
    truth, labels = _tensors(batch)
    fixed = (labels == IGNORED).cpu()
    if ids.shape != truth.shape or bool((ids != truth.cpu())[fixed].any()):
        raise PlanError(
            "the batch is not the one that the saved contexts were made for",
            place="state",
            value=tuple(truth.shape),
            remedy="Resume with the same data, order and batch sizes",
        )
    return {**batch, "input_ids": ids.to(truth.device)}


def _tensors(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    for name in ("input_ids", "labels"):
        if not isinstance(batch.get(name), Tensor):
            remedy = "Give batches with the tensors input_ids and labels"
            raise PlanError("is missing", place=f"batch['{name}']", remedy=remedy)
    ids, labels = batch["input_ids"], batch["labels"]
    if ids.shape != labels.shape or ids.ndim != 2:
        value = [tuple(ids.shape), tuple(labels.shape)]
        remedy = "Give both as (B, T)"
        raise PlanError("labels are not of the inputs", place="batch", value=value, remedy=remedy)
    return ids, labels
