"""TRL: preference optimisation in stages, each from the model of the last, and then fine-tuning.

    model = tp.trl.train_stages(schedule, model, make_trainer, folder)

A reference model that is left to a trainer is the model on the disk, or the one under the adapter:
the original, if adapters are not merged between stages. Here the reference is always given.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainplan.data.preferences import ProgressivePreferenceSchedule
from trainplan.errors import PlanError
from trainplan.integrations import transformers as hf
from trainplan.integrations.hf_data import order_data
from trainplan.integrations.hf_phases import train_or_load


@dataclass(frozen=True)
class PreferenceStage:
    """What a trainer of one stage is made from.

    Attributes:
        index: From 0.
        factor: Of the stage's pairs; None in fine-tuning.
        model: To be trained, without an adapter.
        reference: Another copy of it, or of the first stage's model; None in fine-tuning.
        folder: Where the trainer's checkpoints belong.
        epochs: For the trainer's arguments.
        batch_size: Of an optimizer step, for the trainer's arguments.
    """

    index: int
    factor: int | None
    model: Any
    reference: Any
    folder: str
    epochs: int
    batch_size: int


def train_stages(
    schedule: ProgressivePreferenceSchedule,
    model: Any,
    make_trainer: Callable[[PreferenceStage], Any],
    folder: str | Path,
) -> Any:
    """Run all stages; called again after an interruption, go on where it was.

    A stage that has ended is kept as a whole model. Within a stage, the trainer's last checkpoint
    is resumed. Order and rates are the schedule's.

    Args:
        schedule: Stages.
        model: A model of Transformers. It is not changed.
        make_trainer: Makes the trainer of a stage (``DPOTrainer`` or ``SFTTrainer``) with the
            stage's pairs, its ``reference`` as ``ref_model``, ``output_dir=stage.folder``, and a
            fresh ``peft_config`` if any.
        folder: Of the run.

    Returns:
        The model after the last stage, with adapters merged; None if a callback stopped a trainer
        early.
    """
    current = copy.deepcopy(model)
    for k, phase in enumerate(schedule.phases):
        here = Path(folder) / phase.data
        if not (here / "model").exists():
            prefers = k < len(schedule.factors)
            reference = current if schedule.refresh_reference else model
            stage = PreferenceStage(
                index=k,
                factor=schedule.factors[k] if prefers else None,
                model=current,
                reference=copy.deepcopy(reference) if prefers else None,
                folder=str(here / "checkpoints"),
                epochs=phase.epochs,
                batch_size=phase.batch_size,
            )
            trainer = make_trainer(stage)
            if not _train(schedule, k, trainer):
                return None
            _save(trainer, here)
        current = type(model).from_pretrained(here / "model")
    return current


def _train(schedule: ProgressivePreferenceSchedule, k: int, trainer: Any) -> bool:
    """Train one stage, or what is left of it; whether it came to its end."""
    epochs = trainer.args.num_train_epochs
    if trainer.args.max_steps <= 0 and epochs != schedule.phases[k].epochs:
        raise PlanError(
            f"the schedule has {schedule.phases[k].epochs} epochs in stage {k}",
            place="num_train_epochs",
            value=epochs,
            remedy="Give num_train_epochs=stage.epochs",
        )
    hf.enrol(hf.PlanCallback(schedule.plan(k)), trainer)
    order_data(trainer, schedule.sources[k])
    return train_or_load(trainer, schedule.lengths[k])


def _save(trainer: Any, here: Path) -> None:
    """Merge and keep the model: in 32 bits, as small updates vanish in 16."""
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model).float()
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        begun = here / "begun"
        shutil.rmtree(begun, ignore_errors=True)
        model.save_pretrained(begun)
        begun.rename(here / "model")
    trainer.accelerator.wait_for_everyone()
