"""Transformers and TRL: have a trainer read its data in a computed order.

    sampler = tp.transformers.order_data(trainer, tp.data.Shuffle(len(data), 64, epochs=3))

``Trainer`` resumes by skipping batches and tells samplers nothing of the epoch that survives on
several ranks. So a callback sets the sampler to the epoch of ``state.global_step``, and the
batches that are skipped are never computed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from trainplan._extras import require
from trainplan.data.repeated import Repeated
from trainplan.data.sampler import BatchSampler
from trainplan.data.sources import Source
from trainplan.errors import PlanError

transformers = require("transformers", extra="hf")
_TrainerCallback = transformers.TrainerCallback


_KEY = "trainplan_data"
"""Where the order's state stands in ``trainer_state.json``, under ``stateful_callbacks``."""


class OrderCallback(_TrainerCallback):  # type: ignore[misc, valid-type]
    """Moves a sampler to where the trainer is; added by `order_data`.

    It keeps the order's state in the checkpoint. Orders that listen to the run must have heard a
    step when it ends: add a callback that reports before you call `order_data`.
    """

    def __init__(self, sampler: BatchSampler, reads: int = 1) -> None:
        self.sampler = sampler
        self.reads = reads
        """Steps of the sampler in one of the trainer."""
        self._state: dict[str, Any] | None = None

    def steps(self, updates: int) -> int:
        """Steps of the sampler in the trainer's first ones, whose last of an epoch may be short."""
        per_epoch = self.sampler.source.steps_per_epoch
        if per_epoch is None:
            return updates * self.reads
        epoch, inside = divmod(updates, -(-per_epoch // self.reads))
        return epoch * per_epoch + inside * self.reads

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that the order is the one that the checkpoint was trained with."""
        self._state = state.stateful_callbacks.get(_KEY) if state.global_step else None
        if self._state is None and state.global_step and self.sampler.source.lag is not None:
            raise PlanError(
                "the checkpoint holds nothing of what the order has heard",
                place="resume_from_checkpoint",
                value=state.global_step,
                remedy="Resume from a checkpoint that was trained with this order",
            )
        if self._state is not None:
            self.sampler.load_state_dict(self._state)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the trainer begins to iterate, or to skip."""
        if self._state is not None:
            self.sampler.load_state_dict(self._state, skipped=True)
            self._state = None
            return
        per_epoch = self.sampler.source.steps_per_epoch
        done = self.steps(state.global_step)
        self.sampler.seek(epoch=done // per_epoch if per_epoch else 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the state for a checkpoint that may be made now."""
        state.stateful_callbacks[_KEY] = self.sampler.state_dict(step=self.steps(state.global_step))


class _RolloutCallback(OrderCallback):
    """Also tells a trainer that generates where in a block of shared completions it resumes."""

    def __init__(self, trainer: Any, sampler: BatchSampler, reads: int) -> None:
        super().__init__(sampler, reads)
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        # TRL would count from 0, and generate in the middle of the blocks from here on.
        self.trainer._step = self.steps(state.global_step)


def order_data(trainer: Any, source: Source, *, shape: Any = None) -> BatchSampler:
    """Have a ``Trainer`` (or TRL's trainers) read its training data in an order.

    Evaluation is not touched. Resume with ``resume_from_checkpoint`` as ever; the number of
    ranks, workers and accumulated micro-batches may change between runs as long as their product
    with the micro-batch stays the global batch.

    For trainers that generate (GRPO, RLOO), a step of the order is a generation: its prompts are
    read ``num_generations`` times each, for as long as the completions are used, which is for
    ``steps_per_generation * num_iterations`` micro-batches. By default that is one optimizer step.
    Resumed inside, the run generates again from the same prompts.

    Args:
        trainer: Before ``train()``.
        source: `trainplan.data.Shuffle` (with ``epochs`` or a tail other than ``wrap``),
            `trainplan.data.Curriculum` or `trainplan.data.Mixture` with ``steps``. Its global
            batch is per_device_train_batch_size * gradient_accumulation_steps * ranks; or, where
            completions are generated, generation_batch_size / num_generations prompts.
        shape: Of each step's examples, as `trainplan.data.BatchSampler` takes it.

    Returns:
        The sampler, which the trainer reads from now on.

    Raises:
        PlanError: If the sizes do not fit, the data cannot be indexed, or the trainer would read
            beyond the end of the order.
    """
    args = trainer.args
    _check_data(trainer, source)
    accumulation = args.gradient_accumulation_steps
    if hasattr(args, "steps_per_generation"):
        source = _prompts(trainer, source, shape)
        _check_length(args, source, accumulation)
        sampler = BatchSampler(source, ranks=args.world_size, rank="all")
        callback: OrderCallback = _RolloutCallback(trainer, sampler, accumulation)
    else:
        _check_batch(args, source)
        _check_length(args, source)
        sampler = BatchSampler(
            source, ranks=args.world_size, rank="all", accumulation=accumulation, shape=shape
        )
        callback = OrderCallback(sampler)
    trainer.get_train_dataloader = partial(_loader, trainer, sampler)
    trainer.add_callback(callback)
    return sampler


def _prompts(trainer: Any, source: Source, shape: Any) -> Repeated:
    """The order as a trainer that generates reads it: a step for each micro-batch."""
    args, copies = trainer.args, trainer.num_generations
    prompts = args.generation_batch_size // copies
    if prompts != source.global_batch:
        raise PlanError(
            f"completions are generated for {prompts} prompts at a time "
            f"(generation_batch_size {args.generation_batch_size} / num_generations {copies})",
            place="global_batch",
            value=source.global_batch,
            remedy=f"Give global_batch={prompts}, or change the trainer's sizes",
        )
    if shape is not None or source.shapes is not None:
        raise PlanError("prompts that are read several times cannot have shapes", place="shape")
    uses = args.steps_per_generation * trainer.num_iterations
    if source.lag is not None and args.gradient_accumulation_steps % uses:
        raise PlanError(
            f"an order that listens needs whole generations in each step, and completions are used "
            f"for {uses} micro-batches (steps_per_generation * num_iterations)",
            place="gradient_accumulation_steps",
            value=args.gradient_accumulation_steps,
            remedy=f"Give a multiple of {uses}",
        )
    return Repeated(source, copies, uses)


def _check_batch(args: Any, source: Source) -> None:
    accumulation = args.gradient_accumulation_steps
    whole = args.train_batch_size * accumulation * args.world_size
    if whole != source.global_batch:
        raise PlanError(
            f"the trainer's steps have {whole} examples ({args.train_batch_size} x "
            f"{accumulation} accumulated x {args.world_size} ranks)",
            place="global_batch",
            value=source.global_batch,
            remedy=f"Give global_batch={whole}, or change per_device_train_batch_size",
        )


def _check_data(trainer: Any, source: Source) -> None:
    data = trainer.train_dataset
    if data is None or not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise PlanError(
            "the training data cannot be read by index",
            place="trainer.train_dataset",
            value=type(data).__name__,
            remedy="Use a map-style data set, or mix iterable ones with trainplan.data.Streams",
        )
    if len(data) != source.n:
        raise PlanError(
            f"the trainer has {len(data)} training examples and the order {source.n}",
            place="source.n",
            value=source.n,
            remedy=f"Make the order for {len(data)}; trainers may drop or pack examples",
        )
    config = trainer.args.accelerator_config
    for name in ("split_batches", "dispatch_batches"):
        if getattr(config, name, None):
            raise PlanError(
                "would share the batches out in another way",
                place=f"trainer.args.accelerator_config.{name}",
                value=True,
                remedy="Leave it unset",
            )


def _check_length(args: Any, source: Source, reads: int = 1) -> None:
    if source.steps_per_epoch is not None:
        return
    if source.steps is None:
        raise PlanError(
            "a Trainer counts epochs and needs to know their length",
            place="source.steps",
            value=None,
            remedy="Give the source steps=, or Shuffle a tail='drop'",
        )
    updates = -(-source.steps // reads)
    if args.max_steps > updates or (args.max_steps <= 0 and args.num_train_epochs != 1):
        asked = f"max_steps={args.max_steps}" if args.max_steps > 0 else "several epochs"
        raise PlanError(
            f"the order ends after {updates} steps and the trainer asks for {asked}",
            place="source.steps",
            value=source.steps,
            remedy=f"Give TrainingArguments(max_steps={updates})",
        )


def _loader(trainer: Any, sampler: BatchSampler) -> Any:
    from torch.utils.data import DataLoader
    from transformers.trainer_utils import seed_worker

    args, data, collate = trainer.args, trainer.train_dataset, trainer.data_collator
    datasets = _module("datasets")
    if datasets is not None and isinstance(data, datasets.Dataset):
        data = trainer._remove_unused_columns(data, description="Training")
    else:
        collate = trainer._get_collator_with_removed_columns(collate, description="Training")
    workers = args.dataloader_num_workers
    loader = DataLoader(
        data,
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        worker_init_fn=partial(seed_worker, num_workers=workers, rank=args.process_index),
    )
    return trainer.accelerator.prepare(loader)


def _module(name: str) -> Any:
    import importlib.util

    return importlib.import_module(name) if importlib.util.find_spec(name) else None
