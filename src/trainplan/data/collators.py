"""A whole-word masking collator for Hugging Face whose rate follows a schedule.

A data loader's workers collate batches ahead of time and keep their own copies of the collator,
so a rate that changes with the step cannot be applied there: it would be late by the loader's
look-ahead, or never change at all. This collator therefore only pads in the workers, and masks in
the main process, at the rate of the step that uses the batch. The masks are a function of
(seed, step, batch): resuming, or more workers, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainplan.data.hashing import fingerprint
from trainplan.data.masking import choose_words, replace_words
from trainplan.errors import PlanError
from trainplan.schedules.base import Schedule

_IGNORED = -100
"""The label that the cross-entropies of PyTorch and Transformers leave out."""


class WholeWordCollator:
    """Pads sequences, and masks whole words of them at a rate that may depend on the step.

    Examples hold ``input_ids`` and ``word_ids`` (the word of each token, from 0; None or -1 for
    special tokens), as a fast tokenizer's ``encoding.word_ids()`` gives them. With a number for a
    rate a call returns a masked batch. With a schedule it returns a padded one, and `mask` (or
    `stream`, or `attach` for a Transformers ``Trainer``) masks it in the main process.

    Args:
        mask_token: The mask's id.
        pad_token: The padding's id.
        vocabulary: Number of tokens, or the ids, from which random replacements are drawn.
        rate: A share of tokens, or a schedule of it over steps (resolved, if it is relative).
        seed: Of the masks.
        shares: Of chosen words that are masked, replaced at random, and kept.
        multiple_of: Pad to a multiple of this length.

    >>> collate = WholeWordCollator(mask_token=9, pad_token=0, vocabulary=9, rate=0.5)
    >>> batch = collate([{"input_ids": [1, 5, 6], "word_ids": [None, 0, 1]}])
    >>> sorted(batch), int((batch["labels"] != -100).sum())
    (['attention_mask', 'input_ids', 'labels'], 1)
    """

    def __init__(
        self,
        *,
        mask_token: int,
        pad_token: int,
        vocabulary: int | Sequence[int],
        rate: float | Schedule = 0.15,
        seed: int = 0,
        shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
        multiple_of: int = 1,
    ) -> None:
        if isinstance(rate, Schedule) and rate.needs_horizon:
            raise PlanError(
                "the schedule of the rate needs a horizon",
                place="rate",
                value=rate,
                remedy="Give rate.resolve(steps), or plan['mask_rate']",
            )
        self.mask_token = mask_token
        self.pad_token = pad_token
        self.vocabulary = vocabulary
        self.rate = rate
        self.seed = seed
        self.shares = shares
        self.multiple_of = multiple_of

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of (B, T) tensors: masked if the rate is a number, else only padded."""
        batch = self._pad(examples)
        return batch if isinstance(self.rate, Schedule) else self.mask(batch, 0)

    def mask(self, batch: dict[str, Tensor], step: float) -> dict[str, Tensor]:
        """Mask a padded batch, at the rate of ``step`` completed updates; for the main process.

        Returns:
            The batch with ``labels``, which are -100 but for the chosen tokens, and without
            ``word_ids``.
        """
        if "word_ids" not in batch:
            raise PlanError("the batch is masked already, or not of this collator", place="batch")
        tokens, words = (batch[key].cpu().numpy() for key in ("input_ids", "word_ids"))
        rng = np.random.default_rng([self.seed, int(step), fingerprint(tokens)])
        rate = self.rate(step) if isinstance(self.rate, Schedule) else self.rate
        chosen = choose_words(words, rate, rng)
        new = replace_words(
            tokens,
            words,
            chosen,
            mask_token=self.mask_token,
            vocabulary=self.vocabulary if isinstance(self.vocabulary, int) else [*self.vocabulary],
            rng=rng,
            shares=self.shares,
        )
        device = batch["input_ids"].device
        rest = {key: value for key, value in batch.items() if key != "word_ids"}
        return rest | {
            "input_ids": torch.from_numpy(new).to(device),
            "labels": torch.from_numpy(np.where(chosen, tokens, _IGNORED)).to(device),
        }

    def stream(
        self, batches: Iterable[dict[str, Tensor]], step: Callable[[], float]
    ) -> Iterator[dict[str, Tensor]]:
        """Mask padded batches as they are used.

        Args:
            batches: What the data loader yields.
            step: Called for each batch: the number of completed updates.
        """
        for batch in batches:
            yield self.mask(batch, step())

    def at(self, rate: float) -> WholeWordCollator:
        """The same collator at a fixed rate, for evaluation: masks depend on the batch alone."""
        return WholeWordCollator(
            mask_token=self.mask_token,
            pad_token=self.pad_token,
            vocabulary=self.vocabulary,
            rate=rate,
            seed=self.seed,
            shares=self.shares,
            multiple_of=self.multiple_of,
        )

    def attach(self, trainer: Any, evaluation_rate: float = 0.15) -> None:
        """Have a Transformers ``Trainer`` with this collator mask by its step.

        Training batches are masked as the trainer takes them, at its ``global_step``; evaluation
        uses ``evaluation_rate`` throughout, so that its losses can be compared.

        Raises:
            PlanError: If the trainer would drop the words, or has another collator.
        """
        if trainer.data_collator is not self:
            raise PlanError(
                "the trainer has another collator",
                place="trainer.data_collator",
                value=trainer.data_collator,
                remedy="Give it data_collator=collator",
            )
        if trainer.args.remove_unused_columns:
            raise PlanError(
                "the trainer would drop the column word_ids",
                place="trainer.args.remove_unused_columns",
                value=True,
                remedy="Set remove_unused_columns=False",
            )
        take, load = trainer.get_batch_samples, trainer.get_eval_dataloader

        def take_masked(batches: Iterator[Any], number: int, device: Any) -> Any:
            # A batch with labels comes from a fixed rate and is masked already.
            if isinstance(self.rate, Schedule):
                batches = self.stream(batches, lambda: trainer.state.global_step)
            return take(batches, number, device)

        def load_fixed(*args: Any, **kwargs: Any) -> Any:
            trainer.data_collator = self.at(evaluation_rate)
            try:
                return load(*args, **kwargs)
            finally:
                trainer.data_collator = self

        trainer.get_batch_samples, trainer.get_eval_dataloader = take_masked, load_fixed

    def _pad(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(example["input_ids"]) for example in examples)
        length = -(-longest // self.multiple_of) * self.multiple_of
        batch = {
            "input_ids": torch.full((len(examples), length), self.pad_token, dtype=torch.long),
            "attention_mask": torch.zeros((len(examples), length), dtype=torch.long),
            "word_ids": torch.full((len(examples), length), -1, dtype=torch.long),
        }
        for row, example in enumerate(examples):
            ids, words = example["input_ids"], example.get("word_ids")
            if words is None or len(words) != len(ids):
                raise PlanError(
                    f"an example of {len(ids)} tokens needs as many word ids",
                    place=f"examples[{row}]['word_ids']",
                    value=words,
                    remedy="Store a fast tokenizer's encoding.word_ids() beside input_ids",
                )
            known = [-1 if word is None else int(word) for word in words]
            batch["input_ids"][row, : len(ids)] = torch.as_tensor(ids)
            batch["attention_mask"][row, : len(ids)] = 1
            batch["word_ids"][row, : len(ids)] = torch.as_tensor(known)
        return batch
